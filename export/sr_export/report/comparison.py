"""The pictures of the page: versions of an image over one another, and where they differ most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sr_export.metrics import psnr
from sr_export.report.chart import decibel
from sr_export.report.figures import NOTHING, SPACE, TIMES
from sr_export.report.markup import Markup, tag
from sr_export.report.pictures import (
    PRECISIONS,
    CropWindow,
    Scene,
    amplified,
    as_png,
    as_thumbnail,
    bicubic,
    difference,
    strongest,
    telling,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision

_CROP = 192
_SHOWN = 576
"""How large a crop is shown, in pixels of the page."""
_WORST = 48
_THUMBNAIL = 240
_MOST_TEXT = 1_700_000
"""Where the comparisons end, in characters; the rest of the page is small beside them."""


def comparisons(scenes: Sequence[Scene], refused: Collection[str]) -> Markup:
    """Show every version of the scenes, those first that differ most from FP32."""
    if not scenes:
        return Markup()
    shown: list[Markup] = []
    for scene in sorted(scenes, key=Scene.closeness):
        shown.append(_comparison(scene, refused))
        if shown[1:] and sum(map(len, shown)) > _MOST_TEXT:
            shown.pop()
            break
    parts = "the part of an image that the network changes most beside bicubic interpolation"
    words = (
        f"Each shows {parts}, enlarged without smoothing. Drag the divider, or use the arrow keys."
    )
    if len(shown) < len(scenes):
        words += f" These are the {len(shown)} of {len(scenes)} images that differ most from FP32."
    return tag("section", tag("h2", "See for yourself"), tag("p", words), *shown)


def worst_places(scenes: Sequence[Scene], refused: Collection[str]) -> Markup:
    """Show for each precision where it differs most from FP32."""
    others = [each for each in PRECISIONS[1:] if any(each in scene.outputs for scene in scenes)]
    if not others:
        return Markup()
    parts = [_worst_place(each, scenes, refused) for each in others]
    words = "Of all images, the square in which a precision is farthest from FP32, magnified."
    return tag("section", tag("h2", "Where they differ most"), tag("p", words), *parts)


def _comparison(scene: Scene, refused: Collection[str]) -> Markup:
    window = telling(scene, _CROP)
    versions = _versions(scene, refused)
    zoom = max(1, _SHOWN // max(window.height, window.width))
    size = {"width": window.width * zoom, "height": window.height * zoom}
    layers = [
        tag(
            "figure",
            tag("img", src=as_png(window.of(image)), alt=f"{scene.name}: {name}", **size),
            tag("figcaption", name),
            class_="layer",
            data_picture=name,
        )
        for name, image in versions.items()
    ]
    best = _shown_first(scene, refused)
    controls = [_select("Left", versions, "Bicubic"), _select("Right", versions, best)]
    divider = tag(
        "input", type="range", min=0, max=100, step="any", value=50, class_="divider",
        aria_label="Divider between left and right", hidden=True,
    )  # fmt: skip
    stack = tag("div", *layers, divider, tag("span", class_="handle", hidden=True), class_="layers")
    return tag(
        "article",
        tag("div", tag("div", *controls, class_="controls", hidden=True), stack),
        _about(scene, window, versions),
        class_="scene",
    )


def _versions(scene: Scene, refused: Collection[str]) -> Mapping[str, NDArray[np.uint8]]:
    """Return all pictures of a scene by the names that they are shown under."""
    versions = {"Bicubic": bicubic(scene)}
    for precision in scene.precisions:
        versions[_label(precision, refused)] = scene.outputs[precision]
    if scene.truth is not None:
        versions["Original"] = scene.truth
    return versions


def _label(precision: Precision, refused: Collection[str]) -> str:
    return f"{precision.upper()} (refused)" if precision in refused else precision.upper()


def _shown_first(scene: Scene, refused: Collection[str]) -> str:
    """Return the name of the precision that is farthest from FP32 and still offered."""
    return [each.upper() for each in scene.precisions if each not in refused][-1]


def _select(label: str, names: Collection[str], chosen: str) -> Markup:
    options = [tag("option", name, selected=name == chosen) for name in names]
    return tag("label", label, tag("select", *options))


def _about(scene: Scene, window: CropWindow, versions: Mapping[str, NDArray[np.uint8]]) -> Markup:
    """Say which image it is, where in it the crop lies, and how far its versions are apart."""
    (height, width), (low_height, low_width) = scene.fp32.shape[:2], scene.low.shape[:2]
    by = f"{SPACE}{TIMES}{SPACE}"
    size = f"{low_width}{by}{low_height} pixels, enlarged to {width}{by}{height}"
    return tag(
        "div",
        tag("div", tag("h3", scene.name, dir="auto"), tag("p", size)),
        _map(scene, window),
        _closeness(scene, versions),
        class_="about",
    )


def _map(scene: Scene, window: CropWindow) -> Markup:
    """Draw the image small, with a frame around the part that is shown."""
    height, width = scene.fp32.shape[:2]
    shrink = _THUMBNAIL / max(height, width)
    frame = {"x": window.left, "y": window.top, "width": window.width, "height": window.height}
    return tag(
        "svg",
        tag("title", "The part that is shown"),
        tag("image", href=as_thumbnail(scene.fp32, _THUMBNAIL), width=width, height=height),
        tag("rect", **frame),
        tag("rect", **frame),
        viewBox=f"0 0 {width} {height}",
        width=round(width * shrink),
        height=round(height * shrink),
        class_="where",
        role="img",
    )


def _closeness(scene: Scene, versions: Mapping[str, NDArray[np.uint8]]) -> Markup:
    """Make the table of how far the versions are from FP32 and from the original."""
    columns = {"from FP32": scene.fp32}
    if scene.truth is not None:
        columns["from the original"] = scene.truth
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(_distance(image, each) for each in columns.values()),
        )
        for name, image in versions.items()
        if image is not scene.truth
    ]
    heads = [tag("th", name, scope="col") for name in ("PSNR", *columns)]
    return tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))


def _distance(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> Markup:
    if image is other:
        return tag("td", NOTHING)
    found = psnr(other, image)
    return tag("td", decibel(found if np.isfinite(found) else None))


def _worst_place(precision: Precision, scenes: Sequence[Scene], refused: Collection[str]) -> Markup:
    title = tag("h3", _label(precision, refused))
    candidates = []
    for scene in scenes:
        if precision in scene.outputs:
            levels = difference(scene.fp32, scene.outputs[precision])
            squares = np.square(levels, dtype=np.float64).sum(axis=2)
            candidates.append((*strongest(squares, _WORST), scene, levels))
    window, energy, scene, levels = max(candidates, key=lambda each: each[1])
    if energy == 0:
        return tag("div", title, tag("p", "Every value equals FP32's."), class_="worst")
    largest = int(window.of(levels).max())
    magnified, gain = amplified(window.of(levels))
    pictures = {
        "FP32": window.of(scene.fp32),
        precision.upper(): window.of(scene.outputs[precision]),
        f"Difference, {gain} times as large" if gain > 1 else "Difference": magnified,
    }
    figures = [
        tag(
            "figure",
            tag("img", src=as_png(image), alt=name, width=window.width, height=window.height),
            tag("figcaption", name),
        )
        for name, image in pictures.items()
    ]
    place = f"at {window.left} from the left and {window.top} from the top"
    words = f"In {scene.name}, {place}: up to {largest} of 255 levels apart. Black is equal."
    return tag("div", title, tag("p", words), tag("div", *figures, class_="trio"), class_="worst")
