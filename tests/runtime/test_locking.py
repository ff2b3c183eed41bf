from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sr_deploy.locking import locked

_HOLDER = """
import sys, time
from pathlib import Path
from sr_deploy.locking import locked
with locked(Path(sys.argv[1]), "testing"):
    print("held", flush=True)
    time.sleep(60)
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


def test_it_can_be_taken_again_and_an_error_gives_it_back(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), locked(tmp_path / ".lock", "testing"):
            raise ValueError("inside")


def test_who_waits_is_told_and_the_death_of_the_holder_sets_it_free(
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

    assert "waiting for another process that is testing" in caplog.text
