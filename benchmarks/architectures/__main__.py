"""Which architectures export: each in small with all channels and scales, and as it is by default.

    python benchmarks/architectures                 the small ones, some hours on one core
    python benchmarks/architectures --default       as large as their classes make them: hours more
    python benchmarks/architectures --only SPAN HAT again
    python benchmarks/architectures --page          write docs/architectures.md from the records

The weights are random, also those that training starts at zero: a network whose branches count
nothing proves nothing. So this says whether a graph can be exported and equals its network, not how
good the network is. Each has a process of its own, and the record is written after each: an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from architectures import cells, page, process
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from architectures.cells import Cell

_SECONDS = 1800
_SECONDS_BY_DEFAULT = 3600


def main() -> int:
    """Export what was asked for and write the page."""
    parser = argparse.ArgumentParser(
        "architectures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--default", action="store_true", help="as large as they are by default")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these architectures, again")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.page:
        chosen = cells.default() if arguments.default else cells.small()
        record = page.DEFAULT if arguments.default else page.SMALL
        _export_all(chosen, record, arguments.only)
    text = page.text(page.read(page.SMALL), page.read(page.DEFAULT))
    page.PAGE.write_text(text, encoding="utf-8")
    return 0


def _export_all(chosen: list[Cell], record: Path, only: list[str] | None) -> None:
    rows = page.read(record)
    for number, cell in enumerate(chosen, 1):
        if cell.key in rows if only is None else cell.name not in only:
            continue
        started = time.monotonic()
        row = process.export(cell, _SECONDS if cell.small else _SECONDS_BY_DEFAULT)
        rows[cell.key] = row
        with atomic_file(record) as path:
            path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
        seconds = time.monotonic() - started
        went = row.get("error", "exported")
        print(f"[{number}/{len(chosen)}] {cell.key}: {went} ({seconds:.0f} s)", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
