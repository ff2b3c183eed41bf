"""The tuning record of a bundle: the fastest settings that `sr-bench --tune` found on each device.

The record is the optional file `tuning.json`. An entry applies only to the processor or GPU, the
backend with its version, and the precision that it was measured with.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sr_deploy import machine
from sr_deploy.bundle import schema
from sr_deploy.errors import BundleError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
NAME = "tuning.json"
_LARGEST = 1 << 20
MOST = {"batch": 1 << 12, "lanes": 1 << 8, "threads": 1 << 12}
"""Upper bounds of settings, for the user's too: more would only exhaust memory and threads."""
_LONGEST_SIDE = 1 << 16

_log = logging.getLogger(__name__)

Goal = Literal["throughput", "latency"]


@dataclass(frozen=True)
class Tuning:
    """Settings of a network; the engine chooses those that are None.

    Attributes:
        tile: Height and width of the tiles.
        batch: Number of tiles computed at once, if a frame is tiled.
        lanes: Number of frames computed at once.
        threads: CPU threads of computation, for all lanes together.
    """

    tile: tuple[int, int] | None = None
    batch: int = 1
    lanes: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        checked = [(name, getattr(self, name), most) for name, most in MOST.items()]
        checked += [("tile", side, _LONGEST_SIDE) for side in self.tile or ()]
        for name, value, most in checked:
            if value is not None and not 1 <= value <= most:
                raise BundleError(f"{name} must be from 1 to {most}, found {value}")


@dataclass(frozen=True)
class TuningEntry:
    """The settings for one device, and how they were measured."""

    tuning: Tuning
    goal: Goal
    """Most frames per second, or the shortest time of a single frame."""
    size: tuple[int, int]
    """Width and height of the measured frames."""
    date: str
    gains: dict[str, float] = field(default_factory=dict)
    """Speedup of each setting; 1 without a gain."""


@dataclass(frozen=True)
class TuningRecord:
    """The content of `tuning.json`."""

    schema: int
    entries: dict[str, TuningEntry]
    """Entries by the result of `key`."""


def key(backend: str, precision: str, device: str | None = None) -> str:
    """Return the key of an entry: a text with everything that the tuning depends on.

    Args:
        backend: Name and version, see `backends.name_and_version`.
        precision: Precision of 8-bit frames.
        device: The device that the user chose; None for the backend's default.
    """
    place = f"{machine.processor()}, {machine.cores()} cores"
    return f"{place}; {backend} on {device or 'its default'}; {precision}"


def read(folder: Path) -> TuningRecord:
    """Return the tuning record of a bundle; empty if there is none.

    Raises:
        BundleError: it is not JSON, has another schema, or an invalid field.
    """
    path = folder / NAME
    if not path.is_file():
        return TuningRecord(SCHEMA, {})
    return schema.read(
        TuningRecord, path, SCHEMA, largest=_LARGEST, advice="delete it, and tune again"
    )


def keep(folder: Path, name: str, entry: TuningEntry) -> None:
    """Add an entry to the record of a bundle, replacing one with the same key.

    Raises:
        BundleError: the existing record is invalid.
        OSError: the bundle is not writable.
    """
    record = read(folder)
    changed = dataclasses.replace(record, entries=record.entries | {name: entry})
    with atomic_file(folder / NAME) as temporary:
        text = json.dumps(dataclasses.asdict(changed), indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")


def find(folder: Path, name: str) -> Tuning:
    """Return the tuning of a bundle under a key; a damaged record is reported and ignored."""
    try:
        entry = read(folder).entries.get(name)
    except (BundleError, OSError) as error:
        _log.warning("%s; ignoring the tuning record", error)
        return Tuning()
    return Tuning() if entry is None else entry.tuning
