"""Tables of the small networks: a line for each architecture and for each kind of failure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from architectures.networks import GRAY, RGB

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from architectures.cells import Cell
    from architectures.exporting import ExportResult

    Rows = Mapping[Cell, ExportResult]

HEAD = """\
| architecture | channels | scales | exported | largest error | FP16 | INT8 | in tiles | OpenVINO \
| ONNX Runtime |
|---|---|---|---|---|---|---|---|---|---|"""
FAILURES_HEAD = """\
| networks | failure | reason |
|---|---|---|"""


@dataclass(frozen=True)
class Architecture:
    """The networks of one architecture with their results."""

    name: str
    tried: Rows

    @property
    def _held(self) -> Rows:
        return {cell: row for cell, row in self.tried.items() if "error" not in row}

    def line(self) -> str:
        """Return the line of the table."""
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
            self._merged(lambda row: run_result(row["runs"]["openvino"])),
            self._merged(lambda row: run_result(row["runs"]["onnxruntime"])),
        ]
        return f"| {' | '.join(columns)} |"

    def failures(self) -> Iterator[str]:
        """Yield a line for each kind of failure."""
        found: dict[tuple[str, str], dict[Cell, str]] = {}
        for cell, row in self.tried.items():
            for what, reason in _failures(row):
                # Failures that differ only in figures are the same kind.
                found.setdefault((what, re.sub(r"\d+", "0", reason)), {})[cell] = reason
        for (what, _), cells in found.items():
            everywhere = len(cells) == len(self.tried)
            name = self.name if everywhere else f"{self.name} {self._labels(cells)}"
            yield f"| {name} | {what} | {next(iter(cells.values()))} |"

    def _merged(self, text: Callable[[ExportResult], str]) -> str:
        """Return the most frequent text, then the networks with another text."""
        groups: dict[str, list[Cell]] = {}
        for cell, row in self._held.items():
            groups.setdefault(text(row), []).append(cell)
        most, *others = sorted(groups, key=lambda each: -len(groups[each])) or ["-"]
        return "; ".join([most, *(f"{self._labels(groups[each])}: {each}" for each in others)])

    def _decibels(self, precision: str) -> str:
        """Return the lowest PSNR of the networks that offer a precision, and those that do not."""
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
        """Return a short description of a set of networks."""
        for channels, name in ((GRAY, "gray"), (RGB, "RGB")):
            if set(cells) == {cell for cell in self.tried if cell.channels == channels}:
                return name
        names: list[str] = []
        for cell in sorted(cells, key=lambda each: (each.scale, -each.channels)):
            alike = {each for each in self.tried if each.scale == cell.scale}
            colors = "" if alike <= set(cells) else " gray" if cell.channels == GRAY else " RGB"
            names.append(f"x{cell.scale}{colors}")
        return ", ".join(dict.fromkeys(names))


def run_result(run: str) -> str:
    """Return the result of a run in short: messages of backends are cut at the first colon."""
    ran = run == "yes" or run.startswith("differs")
    return run if ran else f"no: {run.partition(': ')[0]}"


def largest_error(error: float | None) -> str:
    """Return an error; with default weights, some networks output only black."""
    if error is None:
        return "-"
    return f"{error:.0e}" if error else "all black"


def _failures(row: ExportResult) -> Iterator[tuple[str, str]]:
    """Yield each failure of a network: what failed, and the reason."""
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
