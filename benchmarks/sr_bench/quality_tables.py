"""Records of quality as tables."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from sr_bench.speed_tables import NOTHING
from sr_bench.speed_words import about_setting
from sr_bench.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sr_bench.scores import Method, QualityRecord, Score

_WIDTH = 100


def markdown(record: QualityRecord) -> str:
    """Return a record's table for documents, and below it what it was measured on."""
    networks = record.networks()
    if len(networks) > 1:
        table = precision_table(record)
    else:
        bicubic = [each for each in record.methods if each.name == "bicubic"]
        table = quality_table([*bicubic, *networks])
    below = textwrap.fill(f"{about(record)} {about_setting(record.setting)}", _WIDTH)
    return f"{table.markdown()}\n\n{below}"


def text(record: QualityRecord) -> str:
    """Return a record for the terminal."""
    tables = [quality_table(record.methods)]
    if any(each.mean().mse is not None for each in record.methods):
        tables.append(detail_table(record.methods))
    if len(record.networks()) > 1:
        tables.append(precision_table(record))
    return "\n\n".join([*(each.text() for each in tables), textwrap.fill(about(record), _WIDTH)])


def quality_table(methods: Iterable[Method]) -> Table:
    """Return PSNR and SSIM: a row for each image, the mean last, a column for each method."""
    methods = tuple(methods)
    means = ("mean", *(_score(each.mean()) for each in methods))
    rows = [
        (name.rpartition(".")[0], *(_score(each.scores[name]) for each in methods))
        for name in methods[0].scores
    ]
    return Table(("image", *(each.name for each in methods)), (*rows, means))


def detail_table(methods: Iterable[Method]) -> Table:
    """Return all figures of each method, the mean over the images."""
    rows = []
    for each in methods:
        mean = each.mean()
        figures = (
            (mean.psnr, 2), (mean.ssim, 4), (mean.mse, 2),
            (mean.rgb_psnr, 2), (mean.rgb_ssim, 4), (mean.rgb_mse, 2),
        )  # fmt: skip
        rows.append((each.name, *(_figure(value, digits) for value, digits in figures)))
    header = ("mean", "Y PSNR", "SSIM", "MSE", "RGB PSNR", "SSIM", "MSE")
    return Table(header, tuple(rows))


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


def about(record: QualityRecord) -> str:
    """Say what was measured, and how."""
    subject, networks = record.subject, record.networks()
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
        f"PSNR in dB / SSIM of the Y channel on {record.images}, {subject.scale} border "
        f"pixels left out; low resolution {low}. {subject.name} is {subject.checkpoint} "
        f"({subject.architecture} x{subject.scale}), run by {runners}.{against}"
    )


def _score(score: Score) -> str:
    psnr = "equal" if score.psnr is None else f"{score.psnr:.2f}"
    return f"{psnr} / {score.ssim:.4f}"


def _figure(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"


def _change(decibels: float | None, exact: float | None) -> str:
    return "" if decibels is None or exact is None else f"{decibels - exact:+.2f} dB"
