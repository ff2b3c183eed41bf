"""Locks between processes: files that one of them holds, and that its death sets free."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

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
    lock: Lock | None = None
    said = False
    while lock is None:
        try:
            lock = Lock(path)
        except BlockingIOError:
            if not said:
                _log.warning("waiting for another process that is %s (%s)", purpose, path)
            said = True
            time.sleep(_SECONDS)
    try:
        yield
    finally:
        lock.release()


class Lock:
    """A locked file, until `release`; it is not waited for.

    Raises:
        BlockingIOError: another process, or another lock of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        while self._handle is None:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _taken(handle):
                os.close(handle)
                raise BlockingIOError(f"{path} is locked")
            if self._is_current(handle):
                self._handle = handle
            else:
                os.close(handle)  # its holder deleted it while this one waited to open it

    @property
    def held(self) -> bool:
        """Whether it was not released yet."""
        return self._handle is not None

    def release(self, *, delete: bool = False) -> None:
        """Let others have it; calling twice is fine."""
        if self._handle is None:
            return
        if delete and os.name != "nt":
            self._path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None
        if delete:
            self._path.unlink(missing_ok=True)  # Windows deletes no open file

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except FileNotFoundError:
            return False


if sys.platform == "win32":
    import msvcrt

    def _taken(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _taken(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
