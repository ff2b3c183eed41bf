"""What a long job writes down: what it is, and which of its segments are finished."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.bundle import schema as strict
from sr_deploy.errors import BundleError, InvalidInputError, VideoError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 1
NAME = "journal.json"
LARGEST = 64 << 20


@dataclass(frozen=True)
class Segment:
    """A finished segment, as the journal lists it."""

    file: str
    bytes: int
    sha256: str
    frames: int
    first_pts: int
    last_pts: int
    depth: int
    """By how many places at most a picture is decoded later than its turn to be shown."""


@dataclass(frozen=True)
class Journal:
    """All of `journal.json`."""

    schema: int
    facts: dict[str, str]
    segments: tuple[Segment, ...] = ()
    remarks: tuple[str, ...] = ()
    """What is to be told when the file is written."""
    finished: bool = False
    """Whether there are no more segments to come."""

    def to_json(self) -> str:
        """Return the text of `journal.json`."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


def read(path: Path) -> Journal:
    """Read and check a journal.

    Raises:
        VideoError: it is damaged, or of another version.
    """
    advice = "begin the job again with --overwrite"
    try:
        journal = strict.read(Journal, path, SCHEMA, largest=LARGEST, advice=advice)
    except BundleError as error:
        raise VideoError(str(error)) from None
    for number, segment in enumerate(journal.segments):
        if segment.file != f"{number:06}.packets":
            raise VideoError(f"{path}: names a segment {segment.file!r}; begin with --overwrite")
    return journal


def check(journal: Journal, facts: Mapping[str, str], folder: Path) -> None:
    """Refuse a journal of another job, and one whose segments are not there.

    Raises:
        InvalidInputError: the job differs; the text says in what.
        VideoError: a segment is missing, or of another size.
    """
    old = journal.facts
    for name in [*facts, *old]:
        if facts.get(name) != old.get(name):
            raise InvalidInputError(
                f"{folder}: the job that was interrupted differs in {name}: it was "
                f"{old.get(name, 'not said')}, now it is {facts.get(name, 'not said')}; "
                "do as it did, or begin again with --overwrite"
            )
    for segment in journal.segments:
        path = folder / segment.file
        if not path.is_file() or path.stat().st_size != segment.bytes:
            raise VideoError(
                f"{path}: the journal lists it, but it is not there as it was written; "
                "begin the job again with --overwrite"
            )
