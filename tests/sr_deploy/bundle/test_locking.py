from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sr_deploy.bundle.locking import Lock, locked

_HOLDER = """
import sys, time
from pathlib import Path
from sr_deploy.bundle.locking import locked
with locked(Path(sys.argv[1]), "testing"):
    print("held", flush=True)
    time.sleep(60)
"""

_UNTIL_KILLED = """
import sys
from pathlib import Path
from sr_deploy.bundle.locking import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    order: list[str] = []

    def other() -> None:
        with locked(path, "testing"):
            order.append("second")

    with locked(path, "testing"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(10)

    assert order == ["first", "second"]


def test_an_error_releases_the_lock_for_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), locked(tmp_path / ".lock", "testing"):
            raise ValueError("inside")


def test_waiting_logs_a_warning_and_the_death_of_the_holder_releases_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.5, holder.kill).start()

        with locked(path, "testing"):
            assert holder.wait(10) != 0

    (warning,) = caplog.messages
    assert "testing" in warning
    assert str(path) in warning


def test_a_second_lock_is_rejected(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    lock.release()
    Lock(tmp_path / "lock").release()


def test_killing_the_holder_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _UNTIL_KILLED, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            Lock(path)
        holder.kill()
    Lock(path).release()


def test_a_deleted_lock_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = Lock(path)
    lock.release(delete=True)
    assert not path.exists()
    assert not lock.held
    lock.release()
    Lock(path).release()


def test_a_lock_file_deleted_by_another_process_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    old = Lock(path)
    path.unlink()
    new = Lock(path)
    with pytest.raises(BlockingIOError):
        Lock(path)
    new.release()
    old.release()
