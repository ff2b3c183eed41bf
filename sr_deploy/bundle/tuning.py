"""The tuning record of a bundle: what `sr-bench --tune` found fastest, device by device.

It is a file of its own, `tuning.json`, that bundles travel with or without. An entry holds for the
processor or GPU, the backend with its version, and the precision that it was found with; others
are not looked at.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sr_deploy import machine
from sr_deploy.bundle import schema as strict
from sr_deploy.errors import BundleError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
NAME = "tuning.json"
_LARGEST = 1 << 20
_MOST = {"batch": 1 << 12, "lanes": 1 << 8, "threads": 1 << 12}
_LONGEST_SIDE = 1 << 16

_log = logging.getLogger(__name__)

Goal = Literal["throughput", "latency"]


@dataclass(frozen=True)
class Tuning:
    """How to run a network; what is None is left to the engine.

    Attributes:
        tile: Height and width of the tiles.
        batch: Tiles that go through the network at once, where a frame is cut.
        lanes: Frames that are computed at once.
        threads: Of computation, for all lanes together.
    """

    tile: tuple[int, int] | None = None
    batch: int = 1
    lanes: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        checked = [(name, getattr(self, name), most) for name, most in _MOST.items()]
        checked += [("tile", side, _LONGEST_SIDE) for side in self.tile or ()]
        for name, value, most in checked:
            if value is not None and not 1 <= value <= most:
                raise BundleError(f"{name} must be from 1 to {most}, found {value}")


@dataclass(frozen=True)
class TuningEntry:
    """What was found for one device, and how."""

    tuning: Tuning
    goal: Goal
    """Most frames per second, or the least time of one."""
    size: tuple[int, int]
    """Width and height of the frames that it was found with."""
    date: str
    gains: dict[str, float] = field(default_factory=dict)
    """How many times faster each choice made it; those that gained nothing are 1."""


@dataclass(frozen=True)
class TuningRecord:
    """All of `tuning.json`."""

    schema: int
    entries: dict[str, TuningEntry]
    """By what `key` returns."""


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
    """Read and check the record of a bundle; one that is not there is empty.

    Raises:
        BundleError: it is not JSON, of another schema, or a field does not fit.
    """
    path = folder / NAME
    if not path.is_file():
        return TuningRecord(SCHEMA, {})
    return strict.read(
        TuningRecord, path, SCHEMA, largest=_LARGEST, advice="delete it, and tune again"
    )


def keep(folder: Path, name: str, entry: TuningEntry) -> None:
    """Add an entry to the record of a bundle, or put it in the place of the one of that key.

    Raises:
        BundleError: the record that is there does not hold.
        OSError: the bundle cannot be written to.
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
