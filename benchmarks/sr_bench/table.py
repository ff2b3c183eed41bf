"""Tables as plain text for terminals and as Markdown for documents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column is aligned to the left, the others to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Return aligned columns."""
        return "\n".join("  ".join(cells).rstrip() for cells in self._aligned())

    def markdown(self) -> str:
        """Return a Markdown table that reads well unrendered, too."""
        header, *rows = self._aligned()
        first, *others = map(len, header)
        rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])

    def without_empty(self, nothing: str) -> Table:
        """Leave out the columns whose every cell is `nothing`."""
        columns = [
            column
            for column in zip(self.header, *self.rows, strict=True)
            if any(cell != nothing for cell in column[1:])
        ]
        header, *rows = zip(*columns, strict=True)
        return Table(header, tuple(rows))

    def _aligned(self) -> list[list[str]]:
        lines = [self.header, *self.rows]
        # Markdown's rule needs two characters for an alignment.
        widths = [max(2, *map(len, column)) for column in zip(*lines, strict=True)]
        return [
            [
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            for cells in lines
        ]
