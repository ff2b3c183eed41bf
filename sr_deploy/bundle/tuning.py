"""The tuning record of a bundle: what `sr-bench --tune` found fastest, device by device.

It is a file of its own, `tuning.json`, that bundles travel with or without. An entry holds for the
processor or GPU, the backend with its version, and the precision that it was found with; others
are not looked at.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sr_deploy import backends, machine
from sr_deploy.bundle import schema as strict
from sr_deploy.errors import BundleError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

    from sr_deploy.tiling.limits import TileLimits
    from sr_deploy.tiling.planner import TilePlan

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

    def plan(
        self,
        limits: TileLimits,
        height: int,
        width: int,
        allowed: int,
        tile: tuple[int, int] | None,
    ) -> TilePlan:
        """Cut a frame: by the user's tile, else by the tuned one where memory allows that.

        Args:
            limits: Of the network.
            height: Of the frame.
            width: Of the frame.
            allowed: How many pixels may go through the network at once.
            tile: The user's; None: the user leaves it to us.
        """
        if tile is None and self.tile is not None and math.prod(self.tile) <= allowed:
            tile = self.tile
        plan = limits.plan(height, width, allowed, tile)
        if limits.model.fixed_batch is not None or limits.most is not None:
            return plan  # the network, or what was built of it, says how many
        batch = min(self.batch, len(plan), allowed // plan.tile_pixels)
        return dataclasses.replace(plan, batch=max(1, batch))


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
    """Return what an entry is kept under: all that it depends on, in words.

    Args:
        backend: Its name.
        precision: Of 8-bit frames.
        device: As the user named it; None: the backend's default.
    """
    try:
        version = importlib.metadata.version(backends.REGISTRY[backend].package)
    except (KeyError, importlib.metadata.PackageNotFoundError):
        version = "of an unknown version"
    place = f"{machine.processor()}, {machine.cores()} cores"
    return f"{place}; {backend} {version} on {device or 'its default'}; {precision}"


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


def found(folder: Path, backend: str, precision: str, device: str | None = None) -> Tuning:
    """Return how to run a network here; a record that does not hold is told, and ignored."""
    try:
        entries = read(folder).entries
    except (BundleError, OSError) as error:
        _log.warning("%s; going on without it", error)
        return Tuning()
    if not entries:
        return Tuning()
    entry = entries.get(key(backend, precision, device))
    return Tuning() if entry is None else entry.tuning
