"""Records as tables: in the terminal, and between the markers of the documents.

A document asks for the table of `benchmarks/results/NAME.json` with two markers, each on a line
of its own; what is between them is ours to write:

    <!-- table:NAME -->
    <!-- /table -->
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from sr_bench import records
from sr_bench.records import QualityRecord, SpeedRecord
from sr_bench.table import Table
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sr_bench.records import Method, Record, Score, Setting, Timing

RESULTS = "benchmarks/results"
_WIDTH = 100
_ABOUT_STRONG = (
    " The channels_last rows run with an allocator that keeps freed memory (glibc's tunables), "
    "which stock PyTorch does not."
)
_BLOCK = re.compile(r"(?ms)^<!-- table:([\w-]+) -->$(.*?)^<!-- /table -->$")
_MARKER = re.compile(r"(?m)^<!-- (table:\S+|/table) -->$")


def documents(root: Path) -> list[Path]:
    """Return the documents of a checkout that may hold tables.

    Raises:
        NotFoundError: it has no README.md.
    """
    readme = root / "README.md"
    if not readme.is_file():
        raise NotFoundError(f"{root}: has no README.md; run it in a checkout, or name one")
    return [readme, *sorted((root / "docs").glob("*.md"))]


def outdated(root: Path) -> dict[Path, str]:
    """Return the documents whose tables differ from the records, with what they should be.

    Raises:
        NotFoundError: a record that a document asks for is not there.
        BundleError: a record does not hold.
        InvalidInputError: a marker has no counterpart.
    """
    changed = {}
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        filled = fill(text, root / RESULTS, path)
        if filled != text:
            changed[path] = filled
    return changed


def fill(text: str, results: Path, where: Path) -> str:
    """Return a document with its tables made from the records."""
    markers = len(_MARKER.findall(text))
    blocks = _BLOCK.findall(text)
    if markers != 2 * len(blocks):
        raise InvalidInputError(
            f"{where}: a table marker has no counterpart; each <!-- table:NAME --> needs its own "
            "<!-- /table -->, both on lines of their own"
        )

    def filled(block: re.Match[str]) -> str:
        table = markdown(records.read(results / f"{block[1]}.json"))
        return f"<!-- table:{block[1]} -->\n{table}\n<!-- /table -->"

    return _BLOCK.sub(filled, text)


def update(changed: dict[Path, str]) -> None:
    """Write documents."""
    for path, text in changed.items():
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def markdown(record: Record) -> str:
    """Return a record's table for documents, and below it what it was measured on."""
    if isinstance(record, QualityRecord):
        networks = record.networks()
        if len(networks) > 1:
            table = precision_table(record)
        else:
            bicubic = [each for each in record.methods if each.name == "bicubic"]
            table = quality_table([*bicubic, *networks])
        about = _about_quality(record)
    else:
        table, about = ratio_table(record), _about_speed(record)
    about = textwrap.fill(f"{about} {_about_setting(record.setting)}", _WIDTH)
    return f"{table.markdown()}\n\n{about}"


def text(record: Record) -> str:
    """Return a record for the terminal."""
    if isinstance(record, QualityRecord):
        tables, about = [quality_table(record.methods)], _about_quality(record)
        if len(record.networks()) > 1:
            tables.append(precision_table(record))
    else:
        tables = [timing_table(size, timings) for size, timings in record.by_size().items()]
        about = _about_speed(record)
    return "\n\n".join([*(each.text() for each in tables), textwrap.fill(about, _WIDTH)])


def quality_table(methods: Iterable[Method]) -> Table:
    """Return PSNR and SSIM: a row for each image, the mean last, a column for each method."""
    methods = tuple(methods)
    means = ("mean", *(_score(each.mean()) for each in methods))
    rows = [
        (name.rpartition(".")[0], *(_score(each.scores[name]) for each in methods))
        for name in methods[0].scores
    ]
    return Table(("image", *(each.name for each in methods)), (*rows, means))


def precision_table(record: QualityRecord) -> Table:
    """Return what each precision of a bundle costs."""
    networks = record.networks()
    exact = networks[0].mean().psnr
    rows = []
    for each in networks:
        mean = each.mean()
        if each is networks[0] or each.against_fp32 is None:
            rows.append((each.name, _score(mean), "", "", ""))
        else:
            change = _change(mean.psnr, exact)
            here, stated = (_decibels(value) for value in (each.worst_against_fp32(), each.stated))
            rows.append((each.name, _score(mean), change, here, stated))
    header = ("", "PSNR / SSIM", "change", "against FP32", "at export")
    return Table(header, tuple(rows))


def timing_table(size: tuple[int, int], timings: list[Timing]) -> Table:
    """Return times and ratios at one size."""
    header = (_size(size), "median", "p90", "min", "times faster", "middle half", "differs by")
    rows = []
    for each in timings:
        ratio = each.against(timings[0])
        times = (f"{each.percentile(percent):.2f} ms" for percent in (50, 90, 0))
        spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
        rows.append(
            (str(each.contender), *times, f"{ratio.median:.2f}", spread, _levels(each.difference))
        )
    return Table(header, tuple(rows))


def ratio_table(record: SpeedRecord) -> Table:
    """Return how many times faster than the baseline each contender is, at each size."""
    sizes = record.by_size()
    rows = []
    for at, first in enumerate(next(iter(sizes.values()))):
        of_sizes = [timings[at] for timings in sizes.values()]
        ratios = [
            f"{each.against(timings[0]).median:.2f}"
            for each, timings in zip(of_sizes, sizes.values(), strict=True)
        ]
        difference = max(each.difference for each in of_sizes)
        rows.append((str(first.contender), *ratios, _levels(difference)))
    return Table(("", *map(_size, sizes), "differs by"), tuple(rows))


def _about_quality(record: QualityRecord) -> str:
    networks = record.networks()
    runners = ", ".join(str(each.contender) for each in networks)
    against = (
        " The last columns are the PSNR between the frames of a precision and those of FP32, RGB, "
        "of the image where they differ most: here, and on the photos that the exporter keeps for "
        "it, by which it decides what to offer."
        if len(networks) > 1
        else ""
    )
    low = f"from {record.low_resolution}" if record.low_resolution else "by antialiased bicubic"
    return (
        f"PSNR in dB / SSIM of the Y channel on {record.images}, {record.subject.scale} border "
        f"pixels left out; low resolution {low}. {record.subject.name} is "
        f"{_about_subject(record)}, run by {runners}.{against}"
    )


def _about_speed(record: SpeedRecord) -> str:
    strong = any(each.contender.backend == "channels_last" for each in record.timings)
    return (
        f"Times faster than {record.timings[0].contender}; {_about_subject(record)}, "
        f"{record.options.threads} threads for all. Frame in to frame out (8-bit, height x width "
        "x channels), so that pre- and post-processing count for all; medians of "
        f"{record.options.rounds} interleaved rounds, each contender in a process of its own. "
        "The last column is the largest difference from the first row's output, in levels of 255."
        + (_ABOUT_STRONG if strong else "")
    )


def _about_subject(record: Record) -> str:
    subject = record.subject
    return f"{subject.checkpoint} ({subject.architecture} x{subject.scale})"


def _about_setting(setting: Setting) -> str:
    device = setting.device
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    commit = f", commit {setting.commit[:10]}" if setting.commit else ""
    changes = " with changes" if setting.dirty else ""
    return (
        f"Measured on {device.cpu}, {device.cores} cores ({', '.join(device.features)}); "
        f"{versions}; {setting.date[:10]}{commit}{changes}."
    )


def _score(score: Score) -> str:
    psnr = "equal" if score.psnr is None else f"{score.psnr:.2f}"
    return f"{psnr} / {score.ssim:.4f}"


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"


def _change(decibels: float | None, exact: float | None) -> str:
    return "" if decibels is None or exact is None else f"{decibels - exact:+.2f} dB"


def _levels(difference: int) -> str:
    return "1 level" if difference == 1 else f"{difference} levels"


def _size(size: tuple[int, int]) -> str:
    return "{}x{}".format(*size)
