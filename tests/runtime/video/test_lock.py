from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sr_deploy.video.lock import Lock

HOLD = """
import sys
from pathlib import Path
from sr_deploy.video.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_lock_is_refused(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    lock.release()
    Lock(tmp_path / "lock").release()


def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            Lock(path)
        holder.kill()
    Lock(path).release()


def test_a_deleted_lock_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = Lock(path)
    lock.release(delete=True)
    assert not path.exists()
    assert not lock.held
    lock.release()
    Lock(path).release()


def test_a_lock_deleted_by_another_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    old = Lock(path)
    path.unlink()
    new = Lock(path)
    with pytest.raises(BlockingIOError):
        Lock(path)
    new.release()
    old.release()
