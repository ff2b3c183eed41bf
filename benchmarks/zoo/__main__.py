"""Export real checkpoints of public origins and compare the bundles with the origins' own code.

    python benchmarks/zoo --origins DIR                all files of the catalogue
    python benchmarks/zoo --origins DIR --only carn    entries whose names contain this, again
    python benchmarks/zoo --page                       write docs/zoo.md from the record

DIR/OWNER/NAME has the repository's files, such as a clone. The files are not part of this project.
An origin's code runs in a process of its own, as does each export; the record is written after each
entry, and an interrupted run continues where it stopped. Each file is exported without an option,
then, where that is not right, with the options
of the catalogue, `--expect` and one image of the origin.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo import catalogue, page, process

if TYPE_CHECKING:
    from zoo.catalogue import Entry


def main() -> int:
    """Run the chosen entries and write the record and the page."""
    parser = argparse.ArgumentParser(
        "zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--origins", type=Path, metavar="DIR", help="folder of the repositories")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="repeat entries with these names")
    parser.add_argument("--page", action="store_true", help="write the page without exporting")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter with PyTorch, Keras 3, ONNX Runtime"
    )
    parser.add_argument(
        "--tensorflow", metavar="PYTHON", default=sys.executable, help="one with TensorFlow 2.15"
    )
    arguments = parser.parse_args()
    if not arguments.page:
        if arguments.origins is None:
            parser.error("--origins DIR is needed: the folder with the origins' repositories")
        pythons = dict.fromkeys(("torch", "keras3", "onnx"), arguments.python)
        pythons["keras"] = arguments.tensorflow
        _run(arguments.origins.resolve(), arguments.only, pythons)
    page.PAGE.write_text(page.text(page.read()), encoding="utf-8")
    return 0


def _run(origins: Path, only: list[str] | None, pythons: dict[str, str]) -> None:
    rows = page.read()
    exporter = process.Exporter()
    chosen = [
        entry
        for entry in catalogue.entries()
        if (entry.name not in rows if only is None else any(part in entry.name for part in only))
    ]
    for number, entry in enumerate(chosen, 1):
        started = time.monotonic()
        rows[entry.name] = _row(entry, origins, pythons, exporter)
        page.write(rows)
        verdict = page.verdict(rows[entry.name].get("plain", {}))
        seconds = time.monotonic() - started
        print(f"{number}/{len(chosen)} {entry.name}: {verdict}, {seconds:.0f} s", flush=True)
    exporter.close()


def _row(
    entry: Entry, origins: Path, pythons: dict[str, str], exporter: process.Exporter
) -> page.Row:
    row: page.Row = {"family": entry.family, "task": entry.task, "sha256": entry.sha256}
    row["commit"] = process.commit()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        error = process.reference(entry, origins, folder, pythons)
        if error:
            return row | {"origin_error": error}
        file = entry.file(origins)
        row["plain"] = exporter.export(file, [], folder)
        if page.verdict(row["plain"]) != "right":
            given = [*entry.chosen_options(origins), "--expect", *process.pair(folder)]
            row["expect"] = exporter.export(file, given, folder)
    return row


if __name__ == "__main__":
    raise SystemExit(main())
