"""A lock between processes: a file that one of them holds, and that its death sets free."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_SECONDS = 0.2
"""Between two tries. Trying can be interrupted by Ctrl-C everywhere; waiting in the system not."""


@contextlib.contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Hold a lock, waiting while another thread or process does.

    Args:
        path: The lock's file; it is made, and stays.
        purpose: What the holder does, for the message of who waits.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("a+b") as file:
        if not _taken(file):
            _log.warning("waiting for another process that is %s (%s)", purpose, path)
            while not _taken(file):
                time.sleep(_SECONDS)
        yield  # closing the file, like the death of the process, gives the lock back


if sys.platform == "win32":
    import msvcrt

    def _taken(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _taken(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
