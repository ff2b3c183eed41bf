"""File utilities: hashes, atomic writing, and names that stay inside a folder."""

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
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, rejecting names that lead out of it.

    Raises:
        BundleError: the name is absolute, or leads out of the folder by `..` or a link.
        NotFoundError: the file does not exist.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: the file name {name!r} leads out of the folder")
    if not path.is_file():
        raise NotFoundError(f"{folder}: file {name!r} does not exist")
    return path


@contextlib.contextmanager
def atomic_file(target: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `target` on success and deleted on error.

    The temporary name keeps the suffix, because writers choose their format by it.

    Args:
        target: The file; it is replaced if it exists.
        folder: Folder of the temporary file, on the same file system; None for that of `target`.
            Use a folder that is cleaned up if a killed process can leave files.
    """
    handle, name = tempfile.mkstemp(
        dir=folder or target.parent, prefix=f".{target.stem}-", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
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


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `target` on success and is deleted on error."""
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
    """Rename `new` to `target` after moving an existing folder away."""
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
