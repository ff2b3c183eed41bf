"""The quality report of a bundle: `report.html`, one file without external resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_export.report.chart import NOTHING, decibels, percent, search_chart
from sr_export.report.comparison import TIMES, comparisons, worst_places
from sr_export.report.templating import render_page, static
from sr_export.scene import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sr_deploy.bundle.manifest import (
        Manifest,
        Method,
        Precision,
        Quality,
        Quantization,
        Step,
    )
    from sr_export.scene import Scene

_COLUMNS = ("vs FP32", "SSIM", "Largest difference", "Change vs originals", "Size")
_METHODS: dict[Method, str] = {
    "percentile": "percentiles",
    "minmax": "their minimum and maximum",
    "mse": "the least mean square error",
}
MINUS = "\N{MINUS SIGN}"


def page(
    manifest: Manifest, scenes: Sequence[Scene], sizes: Mapping[str, int] | None = None
) -> str:
    """Return the HTML.

    Args:
        manifest: The manifest of the bundle.
        scenes: Outputs for images that were not used for tuning. Those that differ most are
            shown, within about two megabytes.
        sizes: Bytes of the files of the bundle by name, if known.
    """
    model, search, refused = manifest.model, manifest.int8, manifest.refused
    facts = {
        "Network": f"{model.architecture} {TIMES}{model.scale}",
        "Channels": "RGB" if model.channels == 3 else "gray",
        "Parameters": f"{model.parameters:,}",
        "Work": f"{model.gflop_per_megapixel:,.0f} GFLOP per megapixel",
        "Exported": manifest.created[:10],
    }
    has_steps = search is not None and bool(search.steps)
    return render_page(
        "report.html",
        static("search.css"),
        title=f"{manifest.name}: quality report",
        overline="Quality report",
        heading=manifest.name,
        facts=facts,
        caption=_caption(manifest),
        columns=_COLUMNS,
        nothing=NOTHING,
        precisions=_precisions(manifest, sizes or {}),
        scenes=comparisons(scenes, refused),
        scene_count=len(scenes),
        places=worst_places(scenes, refused),
        steps=_steps(search) if search else [],
        explanation=_explanation(search) if search else "",
        chart=search_chart(search, taken="int8" not in refused) if search and has_steps else "",
        source=manifest.source,
        tools=", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
    )


def _caption(manifest: Manifest) -> str:
    measured = [each.quality for each in manifest.variants if each.quality]
    if not measured:
        return "FP32 is the network as trained. This bundle has no other precision."
    count = max(each.images for each in measured)
    images = f"{count} held-out images" if count > 1 else "one image"
    text = (
        "FP32 is the network as trained. The other precisions are compared with it on "
        f"{images}; the figures are the worst of all images"
    )
    if any(each.loss is not None for each in measured):
        text += ", except the change vs originals, which covers all images together"
    return text + "."


def _precisions(manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, list[str] | str]:
    """Return the cells of each precision, or the reason of its refusal."""
    rows: dict[str, list[str] | str] = {}
    for precision in PRECISIONS:
        variants = [each for each in manifest.variants if each.precision == precision]
        if variants:
            quality = next((each.quality for each in variants if each.quality), None)
            size = sizes.get(variants[0].file)
            rows[precision.upper()] = [*_cells(precision, quality), _size(size)]
        elif precision in manifest.refused:
            rows[precision.upper()] = manifest.refused[precision]
    return rows


def _cells(precision: Precision, quality: Quality | None) -> list[str]:
    if quality is None:
        first = "reference" if precision == "fp32" else NOTHING
        return [first, NOTHING, NOTHING, NOTHING]
    levels = "level" if quality.largest_difference == 1 else "levels"
    return [
        decibels(quality.psnr),
        f"{quality.ssim:.4f}",
        f"{quality.largest_difference} {levels} of 255",
        NOTHING if quality.loss is None else change(-quality.loss),
    ]


def change(value: float) -> str:
    """Return a change in decibels with its sign; none if it rounds to zero."""
    rounded = round(value, 2)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else ""
    return f"{sign}{abs(rounded):.2f} dB"


def _size(size: int | None) -> str:
    if size is None:
        return NOTHING
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def _explanation(search: Quantization) -> str:
    layers = f"{search.layers} layers" if search.layers != 1 else "One layer"
    if search.method == "trained":
        return (
            f"{layers} can compute in INT8. Their choice and the ranges of the activations come "
            "from the training, which simulated INT8; nothing was calibrated."
        )
    return (
        f"{layers} can compute in INT8. The most sensitive layers return to half precision until "
        f"the result is close enough to FP32. Calibrated on {search.calibration}; the ranges of "
        f"the activations are chosen by {_METHODS[search.method]}."
    )


def _steps(search: Quantization) -> list[tuple[str, str, str]]:
    """Return PSNR, share of INT8 and layers in half precision of each step."""
    before: list[Step | None] = [None, *search.steps]
    return [
        (decibels(step.psnr), percent(step.share), _layers(step, previous))
        for step, previous in zip(search.steps, before, strict=False)
    ]


def _layers(step: Step, before: Step | None) -> str:
    """Return the layers in half precision; after the first step, the changes only."""
    fitted = "; rounding optimized" if step.fitted and not (before and before.fitted) else ""
    if before is None or not before.restored:
        return (", ".join(step.restored) or "nothing") + fitted
    added = [f"+ {each}" for each in step.restored if each not in before.restored]
    removed = [f"{MINUS} {each}" for each in before.restored if each not in step.restored]
    return (", ".join(added + removed) or "the same") + fitted
