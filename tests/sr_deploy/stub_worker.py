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
    return len(b"x" * size)


def spin(progress: Progress) -> None:
    progress("spinning")
    while True:
        pass


def write(progress: Progress, path: str, size: int) -> int:
    Path(path).write_bytes(b"x" * size)
    return os.getpid()


def export(progress: Progress, options: dict[str, Any], folder: str, skip: int) -> None:
    """Export by the first strategy that does not crash; the first `name` ones do.

    With the name "greedy STAGE", fill the memory in a stage.
    """
    progress("reading the checkpoint")
    if options["name"].startswith("greedy"):
        progress(options["name"].partition(" ")[2])
        fill(progress, 8 << 30)
    for attempt in range(skip, 99):
        progress(f"exporting in way {attempt}")
        if attempt < int(options["name"]):
            os.abort()
        (Path(folder) / "manifest.json").touch()
        return


if __name__ == "__main__":
    functions = (echo, fail, defect, crash, sleep, fill, spin, write, export)
    serve({each.__name__: each for each in functions})
