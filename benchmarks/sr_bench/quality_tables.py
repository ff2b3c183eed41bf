"""Tables of quality records, for the terminal and for documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_bench.tables import NOTHING, Table, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sr_bench.records import Method, QualityRecord, Score

PRECISIONS_LEGEND = (
    "change: PSNR over that of FP32. vs FP32: PSNR between the frames of a precision and those of "
    "FP32, RGB, of the image that differs most; vs FP32 at export: the same on the exporter's "
    "held-out photos, which decide whether the bundle offers the precision."
)


def quality_text(record: QualityRecord) -> str:
    """Return a quality record for the terminal."""
    parts = [each.text() for each in tables(record)]
    legend = [PRECISIONS_LEGEND] if len(record.networks()) > 1 else []
    return "\n\n".join([*parts, wrapped(" ".join([about(record), *legend]))])


def tables(record: QualityRecord) -> list[Table]:
    """Return all tables of a record; older records have no means of MSE and RGB."""
    found = [quality_table(record.methods)]
    if any(each.mean().mse is not None for each in record.methods):
        found.append(detail_table(record.methods))
    if len(record.networks()) > 1:
        found.append(precision_table(record))
    return found


def quality_table(methods: Iterable[Method]) -> Table:
    """Return PSNR and SSIM: a row for each image and the mean, a column for each method."""
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
        cells = (NOTHING if value is None else f"{value:.{digits}f}" for value, digits in figures)
        rows.append((each.name, *cells))
    header = ("mean", "Y PSNR", "Y SSIM", "Y MSE", "RGB PSNR", "RGB SSIM", "RGB MSE")
    return Table(header, tuple(rows))


def precision_table(record: QualityRecord) -> Table:
    """Return the loss of each precision of a bundle."""
    networks = record.networks()
    exact = networks[0].mean().psnr
    rows = []
    for each in networks:
        mean = each.mean()
        if each is networks[0] or each.against_fp32 is None:
            rows.append((each.name, _score(mean), "", "", ""))
        else:
            known = mean.psnr is not None and exact is not None
            change = f"{mean.psnr - exact:+.2f} dB" if known else ""  # type: ignore[operator]
            here, stated = (_decibels(value) for value in (each.worst_against_fp32(), each.stated))
            rows.append((each.name, _score(mean), change, here, stated))
    header = ("", "PSNR / SSIM", "change", "vs FP32", "vs FP32 at export")
    return Table(header, tuple(rows))


def about(record: QualityRecord) -> str:
    """Return the protocol, the model and the configurations."""
    model = record.subject
    runners = ", ".join(str(each.contender) for each in record.networks())
    low = f"from {record.low_resolution}" if record.low_resolution else "by antialiased bicubic"
    return (
        f"PSNR in dB / SSIM of the Y channel on {record.images}, {model.scale} border pixels "
        f"excluded; low resolution {low}. {model.name} is {model}, run by {runners}."
    )


def _score(score: Score) -> str:
    return f"{'equal' if score.psnr is None else f'{score.psnr:.2f}'} / {score.ssim:.4f}"


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
