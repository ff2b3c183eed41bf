"""The small networks as tables: a line for each architecture, and one for each way to fail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from architectures.networks import GRAY, RGB

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from architectures.cells import Cell
    from architectures.exporting import Row

    Rows = Mapping[Cell, Row]

HEAD = """\
| architecture | channels | scales | exported | largest error | FP16 | INT8 | in tiles | OpenVINO \
| ONNX Runtime |
|---|---|---|---|---|---|---|---|---|---|"""
FAILURES_HEAD = """\
| networks | what | why |
|---|---|---|"""


@dataclass(frozen=True)
class Architecture:
    """One architecture's networks that were tried, and what came of each."""

    name: str
    tried: Rows

    @property
    def _held(self) -> Rows:
        return {cell: row for cell, row in self.tried.items() if "error" not in row}

    def line(self) -> str:
        """Return its line of the table."""
        held = self._held
        channels = sorted({cell.channels for cell in self.tried}, reverse=True)
        scales = sorted({cell.scale for cell in self.tried})
        columns = [
            self.name,
            ", ".join(map(str, channels)),
            ", ".join(map(str, scales)),
            "all" if len(held) == len(self.tried) else f"{len(held)} of {len(self.tried)}",
            largest_error(max((row["worst_error"] for row in held.values()), default=None)),
            self._decibels("fp16"),
            self._decibels("int8"),
            self._merged(lambda row: row["tiles"]),
            self._merged(lambda row: went(row["runs"]["openvino"])),
            self._merged(lambda row: went(row["runs"]["onnxruntime"])),
        ]
        return f"| {' | '.join(columns)} |"

    def failures(self) -> Iterator[str]:
        """Yield a line for each way in which some of the networks failed."""
        found: dict[tuple[str, str], dict[Cell, str]] = {}
        for cell, row in self.tried.items():
            for what, reason in _failures(row):
                # Those that differ in figures only are one.
                found.setdefault((what, re.sub(r"\d+", "0", reason)), {})[cell] = reason
        for (what, _), cells in found.items():
            everywhere = len(cells) == len(self.tried)
            name = self.name if everywhere else f"{self.name} {self._labels(cells)}"
            yield f"| {name} | {what} | {next(iter(cells.values()))} |"

    def _merged(self, text: Callable[[Row], str]) -> str:
        """Return what most networks have, and which of them have something else."""
        groups: dict[str, list[Cell]] = {}
        for cell, row in self._held.items():
            groups.setdefault(text(row), []).append(cell)
        most, *others = sorted(groups, key=lambda each: -len(groups[each])) or ["-"]
        return "; ".join([most, *(f"{self._labels(groups[each])}: {each}" for each in others)])

    def _decibels(self, precision: str) -> str:
        """Return the least decibels of those that are offered, and which are not."""
        found = {cell: row["precisions"][precision] for cell, row in self._held.items()}
        refused = [cell for cell, each in found.items() if isinstance(each, str)]
        if len(refused) == len(found):
            return "no" if refused else "-"
        numbers = [each for each in found.values() if isinstance(each, float)]
        text = f"{min(numbers):.0f} dB" if numbers else "equal"
        if precision == "int8":
            shares = (row["share"] for cell, row in self._held.items() if cell not in refused)
            text += f" ({min(shares):.0%})"
        return f"{text}; {self._labels(refused)}: no" if refused else text

    def _labels(self, cells: Collection[Cell]) -> str:
        """Return in a few words which of the networks these are."""
        for channels, name in ((GRAY, "gray"), (RGB, "RGB")):
            if set(cells) == {cell for cell in self.tried if cell.channels == channels}:
                return name
        names: list[str] = []
        for cell in sorted(cells, key=lambda each: (each.scale, -each.channels)):
            alike = {each for each in self.tried if each.scale == cell.scale}
            colours = "" if alike <= set(cells) else " gray" if cell.channels == GRAY else " RGB"
            names.append(f"x{cell.scale}{colours}")
        return ", ".join(dict.fromkeys(names))


def went(run: str) -> str:
    """Return how a run went in a few words: what a backend says goes on after its first colon."""
    well = run == "yes" or run.startswith("differs")
    return run if well else f"no: {run.partition(': ')[0]}"


def largest_error(error: float | None) -> str:
    """Return an error in words; default weights may give black whatever goes in."""
    if error is None:
        return "-"
    return f"{error:.0e}" if error else "all black"


def _failures(row: Row) -> Iterator[tuple[str, str]]:
    """Yield what of a network failed, and why."""
    if "error" in row:
        yield "export", row["error"]
        return
    for precision, found in row["precisions"].items():
        if isinstance(found, str):
            yield precision.upper(), found
    if row["tiles"].startswith("differs"):
        yield "tiles", row["tiles"]
    for backend, text in row["runs"].items():
        if text != "yes":
            yield backend, text
