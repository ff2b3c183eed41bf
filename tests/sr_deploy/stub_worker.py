"""A child process for tests: `python -m tests.sr_deploy.stub_worker`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sr_deploy import errors
from sr_deploy._worker import serve

Progress = Callable[[str], None]


def echo(progress: Progress, **arguments: Any) -> dict[str, Any]:
    sys.stdout.write("printed by a library\n")  # must not get between the answers
    sys.stdout.flush()
    progress("halfway")
    return {"pid": os.getpid(), **arguments}


def fail(progress: Progress, error: str) -> None:
    kind = getattr(errors, error, None) or {"MemoryError": MemoryError, "OSError": OSError}[error]
    raise kind("what went wrong")


def defect(progress: Progress) -> None:
    raise ZeroDivisionError("oops")


def crash(progress: Progress) -> None:
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os.abort()


def sleep(progress: Progress, started: str = "") -> None:
    if started:
        Path(started).write_text(str(os.getpid()))
    time.sleep(60)


def fill(progress: Progress, size: int) -> int:
    return len(bytearray(size))


def spin(progress: Progress) -> None:
    while True:
        pass


def export(progress: Progress, options: dict[str, Any], folder: str, skip: int) -> None:
    """Export by the first strategy that does not crash; the first `name` ones do."""
    progress("reading")
    for attempt in range(skip, 99):
        progress(f"exporting in way {attempt}")
        if attempt < int(options["name"]):
            os.abort()
        (Path(folder) / "manifest.json").touch()
        return


if __name__ == "__main__":
    serve({each.__name__: each for each in (echo, fail, defect, crash, sleep, fill, spin, export)})
