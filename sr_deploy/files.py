"""Files that are either whole or not there: hashing, atomic writing, safe names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy.errors import BundleError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, or refuse a name that leads out of the folder.

    Raises:
        BundleError: the name is absolute, climbs out, or passes through a link that does.
        NotFoundError: there is no such file.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: the file name {name!r} leads out of the folder")
    if not path.is_file():
        raise NotFoundError(f"{folder}: there is no file {name!r}")
    return path


@contextlib.contextmanager
def atomic_file(target: Path, folder: Path | None = None) -> Iterator[Path]:
    """Lend a temporary path beside `target`; on success it becomes `target`, else it goes.

    The temporary name keeps the suffix, since writers choose their format by it. It may be in
    another folder of the same file system, where somebody clears up what a killed process leaves.
    """
    handle, name = tempfile.mkstemp(
        dir=folder or target.parent, prefix=f".{target.stem}-", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        # mkstemp makes private files; give what a plain open() would have given.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Lend a temporary folder beside `target`; on success it takes the place of `target`."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield temporary
        for path in sorted(temporary.rglob("*"), reverse=True):
            _sync(path)
        temporary.chmod(0o777 & ~_umask())
        _swap(temporary, target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(new: Path, target: Path) -> None:
    """Rename `new` to `target`, moving an older folder out of the way first."""
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-old-"))
    target.rename(old / target.name)
    try:
        new.rename(target)
    except BaseException:
        (old / target.name).rename(target)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its renames are journaled
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
