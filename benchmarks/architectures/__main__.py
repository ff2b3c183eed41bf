"""Export every architecture: small networks with all channels and scales, and default networks.

    python benchmarks/architectures                 small networks, some hours on one core
    python benchmarks/architectures --default       default arguments: more hours
    python benchmarks/architectures --only SPAN HAT repeat these
    python benchmarks/architectures --page          write docs/architectures.md from the records
    python benchmarks/architectures --rtx           build portable plans of the small networks

All weights are random, including those that training initializes to zero: a network whose branches
have no effect proves nothing. The result shows whether the exported graph equals its network, not
image quality. Each network has its own process, and the record is written after each: an
interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from architectures import cells, exporting, page, process, rtx, rtx_page
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from architectures.cells import Cell

_SECONDS = 1800
_DEFAULT_SECONDS = 3600


def main() -> int:
    """Export the requested networks and write the page."""
    parser = argparse.ArgumentParser(
        "architectures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--default", action="store_true", help="networks with default arguments")
    parser.add_argument(
        "--rtx", action="store_true", help="portable TensorRT plans; needs TensorRT for RTX, no GPU"
    )
    parser.add_argument(
        "--all", action="store_true", help="with --rtx: all scales and gray, not one of each kind"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="repeat these architectures")
    parser.add_argument("--page", action="store_true", help="write the page without exporting")
    arguments = parser.parse_args()
    if arguments.rtx:
        return _build_plans(arguments)
    if not arguments.page:
        chosen = cells.default() if arguments.default else cells.small()
        record = page.DEFAULT if arguments.default else page.SMALL
        _export_all(chosen, record, arguments.only)
    text = page.text(page.read(page.SMALL), page.read(page.DEFAULT))
    page.PAGE.write_text(text, encoding="utf-8")
    return 0


def _build_plans(arguments: argparse.Namespace) -> int:
    """Build portable plans, and write their page."""
    if not arguments.page:
        small = cells.small()
        first = {cell.name: cell for cell in reversed(small)}
        chosen = small if arguments.all else sorted(first.values(), key=lambda each: each.key)
        _export_all(chosen, rtx_page.RECORD, arguments.only, rtx.build_plans)
    rtx_page.PAGE.write_text(rtx_page.text(rtx_page.read(rtx_page.RECORD)), encoding="utf-8")
    return 0


def _export_all(
    chosen: list[Cell],
    record: Path,
    only: list[str] | None,
    how: Callable[[Cell], Any] = exporting.export,
) -> None:
    rows: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    for number, cell in enumerate(chosen, 1):
        if cell.key in rows if only is None else cell.name not in only:
            continue
        started = time.monotonic()
        row = process.export(cell, _SECONDS if cell.small else _DEFAULT_SECONDS, how)
        rows[cell.key] = row
        with atomic_file(record) as path:
            path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
        seconds = time.monotonic() - started
        went = row.get("error", "exported")
        print(f"[{number}/{len(chosen)}] {cell.key}: {went} ({seconds:.0f} s)", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
