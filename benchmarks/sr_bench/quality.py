"""How good the pictures are, by the protocol of the field's tables.

PSNR, SSIM and MSE of the Y channel and of RGB, as many border pixels left out as the scale, output
rounded to 8 bits. Beside the network stand the rows that it has to beat: nearest, bilinear and
bicubic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from PIL import Image

from sr_bench.records import Method, Score
from sr_deploy import images
from sr_deploy.bundle.manifest import Precision
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_export.metrics import luma, psnr, ssim
from sr_export.report import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_bench.records import Configuration

    Pixels = NDArray[np.uint8]
    Upscale = Callable[[Pixels], NDArray[Any]]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SSIM_WINDOW = 11


@dataclass(frozen=True)
class ImagePair:
    """Where an image and its small version are; without the latter it is made."""

    truth: Path
    low: Path | None


def pairs(ground_truth: Path, low_resolution: Path | None, scale: int) -> list[ImagePair]:
    """Return the images of a folder, each with its low-resolution file.

    That is the file of the same name, or of the same name with the scale: `babyx2.png` for
    `baby.png` at scale 2.

    Raises:
        NotFoundError: a folder, or a low-resolution file, is not there.
        InvalidInputError: there are no images.
    """
    truths = _images(ground_truth)
    if low_resolution is None:
        return [ImagePair(truth, None) for truth in truths]
    by_stem = {path.stem: path for path in _images(low_resolution)}
    found = []
    for truth in truths:
        names = (truth.stem, f"{truth.stem}x{scale}")
        low = next((by_stem[name] for name in names if name in by_stem), None)
        if low is None:
            raise NotFoundError(
                f"{low_resolution}: no low-resolution file for {truth.name}; "
                f"it must be called {names[0]} or {names[1]}, with any image suffix"
            )
        found.append(ImagePair(truth, low))
    return found


def measure(
    networks: Mapping[Configuration, Upscale],
    chosen: list[ImagePair],
    scale: int,
    name: str,
    step: Callable[[str], None],
    scenes: list[Scene] | None = None,
) -> tuple[Method, ...]:
    """Score the usual filters and a network in one precision or several.

    Args:
        networks: each takes H,W,3 uint8 and gives the same, `scale` times as large.
        chosen: the images, from `pairs`.
        scale: of the network.
        name: what the network is called.
        step: called with an image's name when it is done.
        scenes: where to put the images and their results, for a page; None: nowhere. Then one of
            the networks must compute in FP32.

    Raises:
        InvalidInputError: an image is not 8-bit gray or RGB, too small, or of the wrong size.
    """
    filters: dict[str, dict[str, Score]] = {each: {} for each in FILTERS}
    scores: dict[Configuration, dict[str, Score]] = {each: {} for each in networks}
    distances: dict[Configuration, dict[str, float | None]] = {each: {} for each in networks}
    exact = next((each for each in networks if each.precision == "fp32"), None)
    for pair in chosen:
        image = pair.truth.name
        low, truth = load(pair, scale)
        size = (truth.shape[1], truth.shape[0])
        for each, kernel in FILTERS.items():
            filters[each][image] = score(truth, resize(low, size, kernel), scale)
        outputs = {each: upscale(low) for each, upscale in networks.items()}
        for contender, output in outputs.items():
            scores[contender][image] = score(truth, output, scale)
            if exact is not None:
                distances[contender][image] = _finite(psnr(outputs[exact], output))
        if scenes is not None:
            scenes.append(_scene(image, low, outputs, truth))
        step(image)
    single = len(networks) == 1
    return (
        *(Method(each, found) for each, found in filters.items()),
        *(
            Method(
                name if single else f"{name} {contender.precision.upper()}",
                found,
                contender,
                None if exact in (None, contender) else distances[contender],
            )
            for contender, found in scores.items()
        ),
    )


def _scene(
    name: str, low: Pixels, outputs: Mapping[Configuration, NDArray[Any]], truth: Pixels
) -> Scene:
    """Return what a page shows of an image; one of the networks computes in FP32."""
    shown: dict[Precision, Pixels] = {
        precision: output
        for contender, output in outputs.items()
        for precision in get_args(Precision)
        if precision == contender.precision
    }
    return Scene(name, low, shown, truth)


def resize(image: Pixels, size: tuple[int, int], kernel: Image.Resampling) -> Pixels:
    """Resize H,W,C to (width, height); when it shrinks, antialiased, as MATLAB's imresize.

    Pillow rounds 8-bit images after each direction; float planes are rounded once, at the end.
    """
    planes = [Image.fromarray(image[..., i].astype(np.float32)) for i in range(image.shape[2])]
    resized = np.stack([np.asarray(plane.resize(size, kernel)) for plane in planes], axis=2)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if images.could_be_image(path))
    if not found:
        raise InvalidInputError(f"{folder}: holds no images")
    return found


def load(pair: ImagePair, scale: int) -> tuple[Pixels, Pixels]:
    """Return the low-resolution image and the ground truth, cropped to a multiple of the scale."""
    truth = _rgb(pair.truth)
    height, width = (side // scale for side in truth.shape[:2])
    if scale * (min(height, width) - 2) < _SSIM_WINDOW:
        raise InvalidInputError(
            f"{pair.truth}: {_size(truth)} is too small for SSIM, which needs "
            f"{_SSIM_WINDOW + 2 * scale} pixels a side at scale {scale}"
        )
    truth = truth[: height * scale, : width * scale]
    if pair.low is None:
        return resize(truth, (width, height), FILTERS["bicubic"]), truth
    low = _rgb(pair.low)
    if low.shape[:2] != (height, width):
        raise InvalidInputError(
            f"{pair.low}: {_size(low)}, but {width}x{height} is {pair.truth.name} "
            f"at 1/{scale} of its size; is this the folder for scale {scale}?"
        )
    return low, truth


def _rgb(path: Path) -> Pixels:
    pixels: NDArray[Any] = images.read(path).pixels
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.uint8 or channels not in (1, 3):
        raise InvalidInputError(
            f"{path}: {channels} channels of {pixels.dtype}; the protocol is for 8-bit gray or RGB"
        )
    return pixels if channels == 3 else np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def _size(image: Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def score(truth: Pixels, candidate: NDArray[Any], scale: int) -> Score:
    """Compare an RGB image with the ground truth, H,W,3 uint8 both."""
    height, width = truth.shape[:2]
    inner = np.s_[scale : height - scale, scale : width - scale]
    truth, candidate = truth[inner], candidate[inner]
    y_truth, y_candidate = luma(truth), luma(candidate)
    return Score(
        psnr=_finite(psnr(y_truth, y_candidate)),
        ssim=ssim(y_truth, y_candidate),
        mse=_mse(y_truth, y_candidate),
        rgb_psnr=_finite(psnr(truth, candidate)),
        rgb_ssim=float(np.mean([ssim(truth[..., i], candidate[..., i]) for i in range(3)])),
        rgb_mse=_mse(truth, candidate),
    )


def _mse(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.mean(np.square(np.subtract(a, b, dtype=np.float64))))


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None
