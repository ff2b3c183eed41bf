"""The images of a page: versions to compare, and the largest differences.

`templates/images.html` lays them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sr_export.metrics import psnr
from sr_export.report.chart import NOTHING, decibels
from sr_export.report.pictures import (
    CropWindow,
    amplified,
    as_png,
    as_thumbnail,
    bicubic,
    difference,
    largest_square,
    most_changed,
)
from sr_export.scene import PRECISIONS, Scene

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision

TIMES = "\N{MULTIPLICATION SIGN}"
_BY = f"\N{NO-BREAK SPACE}{TIMES}\N{NO-BREAK SPACE}"
_CROP_SIDE = 192
_SHOWN_SIDE = 576
_WORST_SIDE = 48
_THUMBNAIL_SIDE = 240
_MAX_BYTES = 1_700_000
"""Limit of the images to compare; the rest of the page is small."""


@dataclass(frozen=True)
class Comparison:
    """The versions of a part of one image.

    Attributes:
        name: Name of the image.
        images: Data URIs by version.
        right: The version that is shown first at the right: the least precise one offered.
        window: The part.
        shown_size: Width and height on the page.
        thumbnail: Data URI of the whole image.
        full_size: Width and height of the whole image.
        low_size: Size of the input, for people.
        size: Size of the output, for people.
        has_original: Whether distances from the original are known.
        distances: PSNR from FP32 and the original, by version.
    """

    name: str
    images: Mapping[str, str]
    right: str
    window: CropWindow
    shown_size: tuple[int, int]
    thumbnail: str
    full_size: tuple[int, int]
    low_size: str
    size: str
    has_original: bool
    distances: Mapping[str, list[str]]


@dataclass(frozen=True)
class WorstPlace:
    """The largest difference of one precision from FP32.

    Attributes:
        label: The precision.
        scene: Name of the image.
        window: The part of the image.
        largest: Largest difference in levels.
        images: Data URIs by version; empty: no difference anywhere.
    """

    label: str
    scene: str
    window: CropWindow
    largest: int
    images: Mapping[str, str]


def comparisons(scenes: Sequence[Scene], refused: Collection[str]) -> list[Comparison]:
    """Return the scenes that differ most from FP32, as many as the size of a page allows."""
    shown: list[Comparison] = []
    size = 0
    for scene in sorted(scenes, key=Scene.closeness):
        each = _comparison(scene, refused)
        size += len(each.thumbnail) + sum(map(len, each.images.values()))
        if shown and size > _MAX_BYTES:
            break
        shown.append(each)
    return shown


def worst_places(scenes: Sequence[Scene], refused: Collection[str]) -> list[WorstPlace]:
    """Return the largest difference from FP32 of each other precision."""
    others = [each for each in PRECISIONS[1:] if any(each in scene.outputs for scene in scenes)]
    return [_worst_place(each, scenes, refused) for each in others]


def _comparison(scene: Scene, refused: Collection[str]) -> Comparison:
    versions = {"Bicubic": bicubic(scene)}
    versions |= {_label(each, refused): scene.outputs[each] for each in scene.precisions}
    if scene.truth is not None:
        versions["Original"] = scene.truth
    references = [scene.fp32] if scene.truth is None else [scene.fp32, scene.truth]
    window = most_changed(scene, _CROP_SIDE)
    zoom = max(1, _SHOWN_SIDE // max(window.height, window.width))
    (height, width), (low_height, low_width) = scene.fp32.shape[:2], scene.low.shape[:2]
    return Comparison(
        name=scene.name,
        images={name: as_png(window.crop(image)) for name, image in versions.items()},
        right=[each.upper() for each in scene.precisions if each not in refused][-1],
        window=window,
        shown_size=(window.width * zoom, window.height * zoom),
        thumbnail=as_thumbnail(scene.fp32, _THUMBNAIL_SIDE),
        full_size=(width, height),
        low_size=f"{low_width}{_BY}{low_height}",
        size=f"{width}{_BY}{height}",
        has_original=scene.truth is not None,
        distances={
            name: [_distance(image, each) for each in references]
            for name, image in versions.items()
            if image is not scene.truth
        },
    )


def _label(precision: Precision, refused: Collection[str]) -> str:
    return f"{precision.upper()} (refused)" if precision in refused else precision.upper()


def _distance(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> str:
    if image is reference:
        return NOTHING
    found = psnr(reference, image)
    return decibels(found if np.isfinite(found) else None)


def _worst_place(
    precision: Precision, scenes: Sequence[Scene], refused: Collection[str]
) -> WorstPlace:
    candidates = []
    for scene in scenes:
        if precision in scene.outputs:
            levels = difference(scene.fp32, scene.outputs[precision])
            squares = np.square(levels, dtype=np.float64).sum(axis=2)
            candidates.append((*largest_square(squares, _WORST_SIDE), scene, levels))
    window, energy, scene, levels = max(candidates, key=lambda each: each[1])
    magnified, gain = amplified(window.crop(levels))
    images = {
        "FP32": window.crop(scene.fp32),
        precision.upper(): window.crop(scene.outputs[precision]),
        f"Difference, {gain} times as large" if gain > 1 else "Difference": magnified,
    }
    return WorstPlace(
        label=_label(precision, refused),
        scene=scene.name,
        window=window,
        largest=int(window.crop(levels).max()),
        images={name: as_png(image) for name, image in images.items()} if energy else {},
    )
