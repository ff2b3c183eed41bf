"""File utilities: hashes, names that stay inside a folder, and atomic writing.

Files and folders are written as `.sr-tmp-XXXXXXXX` beside their target and renamed. The writer
holds a lock on this temporary until it is done. So a temporary that nobody holds is the leftover of
a killed process; the next process that writes into the folder deletes it. (Windows has no such
locks; leftovers stay there.)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import re
import reprlib
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy.errors import BundleError, NotFoundError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

_PREFIX = ".sr-tmp-"
_SUFFIX = re.compile(r"\.\w{1,16}")
TEMPORARY = re.compile(rf"{re.escape(_PREFIX)}\w{{8}}(\.\w{{1,16}})?")
"""Names of temporary files and folders; they fit where names are limited to 255 bytes."""
_NEW, _OLD = "new", "old"
"""In a temporary folder: the folder that is written, and the place of one that it replaces."""
_shown = reprlib.Repr()
_shown.maxstring = 300
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, rejecting names that lead out of it.

    Raises:
        BundleError: the name is absolute, leads out of the folder by `..` or a link, or cannot be
            the name of a file.
        NotFoundError: the file does not exist.
    """
    path = folder / name
    shown = _shown.repr(name)
    try:
        # Not Path.resolve, which raises RuntimeError for links in a loop before Python 3.13.
        leads_out = not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        is_there = path.is_file()
    except (OSError, ValueError) as error:  # too long, NUL, half a character
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{folder}: the file name {shown} is impossible: {reason}") from None
    if leads_out:
        raise BundleError(f"{folder}: the file name {shown} leads out of the folder")
    if not is_there:
        raise NotFoundError(f"{folder}: file {shown} does not exist")
    return path


@contextlib.contextmanager
def atomic_file(target: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `target` on success and deleted on error.

    The temporary name keeps a short suffix, because writers choose their format by it.

    Args:
        target: The file; it is replaced if it exists.
        folder: Folder of the temporary file, on the same file system; None for that of `target`.
    """
    folder = folder or target.parent
    _collect_once(folder)
    suffix = target.suffix if _SUFFIX.fullmatch(target.suffix) else ""
    temporary, handle = _new_file(folder, suffix)
    try:
        yield temporary
        _sync(temporary)
        # mkstemp creates private files; set the mode that a plain open() sets.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _close(handle)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `target` on success and is deleted on error."""
    collect_leftovers(target.parent)
    temporary, handle = _new_folder(target.parent)
    try:
        new = temporary / _NEW
        new.mkdir()
        yield new
        for path in sorted(new.rglob("*"), reverse=True):
            _sync(path)
        _sync(new)
        _swap(new, target)
        _sync(target.parent)
    finally:
        _delete(temporary)
        _close(handle)


def collect_leftovers(folder: Path) -> None:
    """Delete the temporaries of killed processes in a folder.

    A folder that such a process had moved away, but not replaced yet, is restored. Links, files of
    other users, and folders with other content are not ours and stay.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if TEMPORARY.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                _collect(folder / name)


@functools.lru_cache(maxsize=1024)
def _collect_once(folder: Path) -> None:
    """Collect leftovers when this process writes its first file into a folder."""
    collect_leftovers(folder)


def _collect(leftover: Path) -> None:
    """Delete a temporary if its process was killed.

    Raises:
        OSError: It was not, or the temporary cannot be deleted.
    """
    status = leftover.lstat()
    if sys.platform == "win32" or status.st_uid != os.geteuid():
        return
    is_file = stat.S_ISREG(status.st_mode)
    flags = os.O_RDWR if is_file else os.O_RDONLY | os.O_DIRECTORY
    handle = os.open(leftover, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_file:
            leftover.unlink()
        elif {path.name for path in leftover.iterdir()} <= {_NEW, _OLD}:
            _delete(leftover)
    finally:
        os.close(handle)


def _new_file(folder: Path, suffix: str) -> tuple[Path, int | None]:
    """Return a new file and its descriptor, which is locked; None on Windows."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX, suffix=suffix)
        if sys.platform == "win32":  # where open files cannot be renamed
            os.close(handle)
            return Path(name), None
        if _lock(handle):
            return Path(name), handle


def _new_folder(parent: Path) -> tuple[Path, int | None]:
    """Return a new folder and its descriptor, which is locked; None on Windows."""
    while True:
        path = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
        if sys.platform == "win32":
            return path, None
        with contextlib.suppress(FileNotFoundError):  # collected already
            handle = os.open(path, os.O_RDONLY)
            if _lock(handle):
                return path, handle


def _lock(handle: int) -> bool:
    """Lock a new temporary; return False, and close it, if another process is collecting it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:  # a file system without locks: nobody can lock, so nobody collects
            return True
        if not os.fstat(handle).st_nlink:
            os.close(handle)
            return False
    return True


def _close(handle: int | None) -> None:
    """Release a lock."""
    if handle is not None:
        os.close(handle)


def _delete(temporary: Path) -> None:
    """Delete a temporary folder, after restoring what was moved into it and not replaced.

    Raises:
        OSError: It cannot be restored; then nothing is deleted.
    """
    for old in (temporary / _OLD).glob("*"):
        target = temporary.with_name(old.name)
        if not target.exists():
            old.rename(target)
            _log.warning("%s: restored, since it could not be replaced", target)
    shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    """Rename `new` to `target`; an existing folder ends up beside `new`."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = new.with_name(_OLD)
        old.mkdir()
        target.rename(old / target.name)
        new.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders at once; return whether the system and the file system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # older C libraries have none
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return rename is not None and rename(*paths, _RENAME_EXCHANGE) == 0


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its renames are journaled
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Return the umask of the process, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
