"""The tables of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_export.report.chart import decibel, percent
from sr_export.report.markup import Markup, join, tag
from sr_export.report.pictures import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sr_deploy.bundle.manifest import Manifest, Precision, Quality, Quantization, Step, Variant

_COLUMNS = (
    "Against FP32",
    "SSIM",
    "Largest difference",
    "Change against originals",
    "Size",
)
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"


def table(manifest: Manifest, sizes: Mapping[str, int]) -> Markup:
    """Make the table of what each precision costs, with those that were refused."""
    rows = []
    for precision in PRECISIONS:
        variants = [each for each in manifest.variants if each.precision == precision]
        if variants:
            rows.append(_offered(precision, variants, sizes))
        elif precision in manifest.refused:
            rows.append(_refused(precision, manifest.refused[precision]))
    head = tag("tr", *(tag("th", each, scope="col") for each in ("Precision", *_COLUMNS)))
    figures = tag("table", tag("thead", head), tag("tbody", *rows), class_="wide figures")
    return tag(
        "section",
        tag("h2", "What each precision costs"),
        tag("p", _caption(manifest)),
        figures if rows[1:] else "",
    )


def steps(found: Quantization) -> Markup:
    """Make the table of the placements that were tried, in order."""
    head = tag(
        "tr",
        *(tag("th", each, scope="col") for each in ("Step", "Against FP32", "In INT8")),
        tag("th", "Kept in half precision", scope="col", class_="note"),
    )
    rows = []
    before: Step | None = None
    for i, step in enumerate(found.steps, start=1):
        rows.append(
            tag(
                "tr",
                tag("th", i, scope="row"),
                tag("td", decibel(step.psnr)),
                tag("td", percent(step.share)),
                tag("td", _kept(step, before), class_="note"),
            )
        )
        before = step
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="wide steps")


def _caption(manifest: Manifest) -> str:
    measured = [each.quality for each in manifest.variants if each.quality]
    if not measured:
        return "FP32 is the network as it was trained. This bundle has no other precision."
    count = max(each.images for each in measured)
    images = f"{count} images that nothing was tuned on" if count > 1 else "one image"
    words = f"FP32 is the network as it was trained. The others are compared with it on {images}: "
    words += "the figures are the worst of any image"
    if any(each.loss is not None for each in measured):
        words += ", but for the change against the originals, which is that of all together"
    return words + "."


def _offered(precision: Precision, variants: list[Variant], sizes: Mapping[str, int]) -> Markup:
    quality = next((each.quality for each in variants if each.quality), None)
    values = _values(quality) if quality else [NOTHING] * (len(_COLUMNS) - 1)
    if precision == "fp32":
        values[0] = "the measure"
    values.append(_size(sizes.get(variants[0].file)))
    cells = [
        tag("td", value, data_label=name, class_=_class(name, value))
        for name, value in zip(_COLUMNS, values, strict=True)
    ]
    return tag("tr", tag("th", precision.upper(), scope="row"), *cells)


def _class(column: str, value: str) -> str | None:
    if value == NOTHING:
        return "nothing"
    return "strong" if column == _COLUMNS[0] else None


def _refused(precision: Precision, reason: str) -> Markup:
    note = join(tag("b", "Not offered: "), reason)
    return tag(
        "tr",
        tag("th", precision.upper(), scope="row"),
        tag("td", note, colspan=len(_COLUMNS), class_="note"),
        class_="refused",
    )


def _values(quality: Quality) -> list[str]:
    levels = "level" if quality.largest_difference == 1 else "levels"
    return [
        decibel(quality.psnr),
        f"{quality.ssim:.4f}",
        f"{quality.largest_difference} {levels} of 255",
        NOTHING if quality.loss is None else change(-quality.loss),
    ]


def change(decibels: float) -> str:
    """Write a change in decibels with its sign; what rounds to nothing has none."""
    rounded = round(decibels, 2)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else ""
    return f"{sign}{abs(rounded):.2f} dB"


def _size(size: int | None) -> str:
    if size is None:
        return NOTHING
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def _kept(step: Step, before: Step | None) -> str:
    """Say which layers are in half precision: after the first step, what is new about them."""
    fitting = "; weights fitted" if step.fitted and not (before and before.fitted) else ""
    return _layers(step, before) + fitting


def _layers(step: Step, before: Step | None) -> str:
    if before is None or not before.restored:
        return ", ".join(step.restored) or "nothing"
    added = [f"+ {each}" for each in step.restored if each not in before.restored]
    removed = [f"{MINUS} {each}" for each in before.restored if each not in step.restored]
    return ", ".join(added + removed) or "the same"
