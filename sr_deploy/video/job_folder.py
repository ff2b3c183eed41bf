"""The folder of a job, from which nothing is deleted that the job did not write."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from typing import TYPE_CHECKING

from sr_deploy.errors import InvalidInputError
from sr_deploy.files import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_log = logging.getLogger(__name__)

JOURNAL, LOCK = "journal.json", "lock"
_BEFORE_JOURNAL = re.compile(rf"{LOCK}|{TEMPORARY.pattern}")
"""Files of a job that was killed before its journal was complete."""
_OURS = re.compile(rf"{_BEFORE_JOURNAL.pattern}|journal\.json|\d{{6,}}\.packets")
_SUFFIX = ".sr-job"
_LONGEST_NAME = 255
"""Longest file name in bytes on nearly all file systems."""


def folder_of(target: Path) -> Path:
    """Return the job folder of an output: its name, or a hash of a name that is too long."""
    name = f".{target.name}{_SUFFIX}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}{_SUFFIX}"
    return target.with_name(name)


class JobFolder:
    """A job folder that is certainly ours, held open for deletions.

    Files are deleted by the folder's descriptor, so that a link put in its place later leads
    nowhere; only regular files with names that we use are deleted. (Windows has no such
    descriptors.)

    Raises:
        InvalidInputError: Something else has this name.
    """

    def __init__(self, target: Path) -> None:
        self.path = folder_of(target)
        self._handle: int | None = None
        try:
            self.path.mkdir()
            created = True
        except FileExistsError:
            created = False
        if self.path.is_symlink() or not self.path.is_dir():
            raise self._foreign("it is a link or a file")
        if os.name != "nt":
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self._handle = os.open(self.path, flags)
        try:
            begun = created or self.has_journal
            if not begun and not all(map(_BEFORE_JOURNAL.fullmatch, self._names())):
                raise self._foreign(f"it has no {JOURNAL}")
        except BaseException:
            self.close()
            raise

    def _foreign(self, reason: str) -> InvalidInputError:
        return InvalidInputError(
            f"{self.path}: not a job folder of sr-upscale ({reason}); remove or rename it, or "
            "choose another output"
        )

    def _names(self) -> list[str]:
        where = self.path if self._handle is None else self._handle
        return os.listdir(where)  # noqa: PTH208 - pathlib takes no descriptor

    def _is_file(self, name: str) -> bool:
        where = self.path / name if self._handle is None else name
        try:
            mode = os.stat(where, dir_fd=self._handle, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        return stat.S_ISREG(mode)

    @property
    def has_journal(self) -> bool:
        """Whether a job was begun here."""
        return self._is_file(JOURNAL)

    def delete_all_but(self, kept: Iterable[str]) -> None:
        """Delete our files except some."""
        for name in {*self._names()} - {*kept}:
            if _OURS.fullmatch(name) and self._is_file(name):
                os.unlink(self.path / name if self._handle is None else name, dir_fd=self._handle)
            else:
                _log.warning("%s: kept, since sr-upscale did not write it", self.path / name)

    def close(self) -> None:
        """Release the descriptor; twice is fine."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
