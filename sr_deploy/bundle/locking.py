"""Locks between processes, which the death of the holder releases."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

import filelock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_TRIES = 0.2


@contextlib.contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Hold a lock, waiting while another thread or process holds it.

    Args:
        path: The lock file; it is created and not deleted.
        purpose: What the lock protects, for the message of a waiting process.

    Raises:
        OSError: the file cannot be created.
    """
    lock = filelock.FileLock(path, thread_local=False, poll_interval=_SECONDS_BETWEEN_TRIES)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.warning("waiting for another process that is %s (%s)", purpose, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Lock:
    """A lock on a file, held until `release`.

    Raises:
        BlockingIOError: another process, or another lock of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(path, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BlockingIOError(f"{path} is locked") from None

    @property
    def held(self) -> bool:
        """Whether it is not released yet."""
        return self._lock.is_locked

    def release(self, *, delete: bool = False) -> None:
        """Release the lock, and delete its file if asked; repeated calls do nothing."""
        if not self.held:
            return
        if delete and os.name != "nt":  # while it is held: a waiting process notices and retries
            self._path.unlink(missing_ok=True)
        self._lock.release()
        if delete and os.name == "nt":  # where no open file can be deleted
            self._path.unlink(missing_ok=True)
