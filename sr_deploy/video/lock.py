"""A folder that one process at a time may work in; the system frees it when the process ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Lock:
    """A locked file in a folder, until `release`.

    Raises:
        BlockingIOError: another process, or another lock of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        while self._handle is None:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(handle)
            except OSError:
                os.close(handle)
                raise BlockingIOError(f"{path} is locked") from None
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

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
