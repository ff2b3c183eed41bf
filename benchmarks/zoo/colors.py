"""What scripts do around a network: enlarge, convert colors, scale values, add the input, round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Studio range YCbCr of MATLAB, for levels from 0 to 255
_STUDIO = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
) / np.array(255.0)
_STUDIO_OFFSET = np.array([16.0, 128.0, 128.0])
_FULL = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_FULL_OFFSET = np.array([0.0, 128.0, 128.0])


def run(
    image: np.ndarray, network: Callable[[np.ndarray], np.ndarray], spec: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the script makes of an RGB image: in levels, and rounded as it rounds."""
    color = spec.get("color", "rgb")
    if spec.get("gray_input") or color == "gray":
        image = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    method, factor = spec.get("enlarge", ["bicubic", 1])
    if factor > 1:
        height, width = image.shape[:2]
        size = (round(width * factor), round(height * factor))
        image = np.asarray(Image.fromarray(image).resize(size, _RESAMPLING[method]))
    planes = _planes(image.astype(np.float64), color)
    exact = _to_rgb(_levels(planes, network, spec), planes, color, spec)
    scripted = planes if color != "y" else _planes_of_pillow(image)
    if spec.get("floor"):
        levels = np.floor(_levels(scripted, network, spec))
        rounded = np.floor(_to_rgb(levels, scripted, color, spec))
    elif color == "y":
        levels = np.rint(_levels(scripted, network, spec))
        rounded = np.rint(_to_rgb(levels, scripted, color, spec))
    else:
        rounded = np.rint(exact)
    return np.float32(exact), np.clip(rounded, 0, 255).astype(np.uint8)


def _levels(
    planes: np.ndarray, network: Callable[[np.ndarray], np.ndarray], spec: dict[str, Any]
) -> np.ndarray:
    """Return the network's result for color planes, in levels of 0 to 255."""
    fed = planes[..., :1] if spec.get("color") in ("y", "y_studio", "gray") else planes
    low, high = spec.get("input", [0, 1])
    values = (fed / 255) * (high - low) + low
    if "mean" in spec:
        values = (values - np.array(spec["mean"])) / np.array(spec.get("std", 1.0))
    values = _padded(values, spec.get("pad", 0))
    tensor = np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)
    result = network(tensor)[0].transpose(1, 2, 0).astype(np.float64)
    if "residual" in spec:  # the script adds or subtracts what the network returns
        result = values + (result if spec["residual"] == "plus" else -result)
    if "mean" in spec and spec.get("restore_mean"):
        result = result * np.array(spec.get("std", 1.0)) + np.array(spec["mean"])
    low, high = spec.get("range", spec.get("input", [0, 1]))
    return np.clip((result - low) / (high - low) * 255, 0, 255)


def _planes(image: np.ndarray, color: str) -> np.ndarray:
    if color == "bgr":
        return image[..., ::-1]
    if color in ("y", "ycbcr"):
        return image @ _FULL.T + _FULL_OFFSET
    if color in ("y_studio", "ycbcr_studio"):
        return image @ _STUDIO.T + _STUDIO_OFFSET
    return image


def _planes_of_pillow(image: np.ndarray) -> np.ndarray:
    """Return YCbCr rounded to 8 bits, as scripts get it from Pillow or OpenCV."""
    return np.asarray(Image.fromarray(image).convert("YCbCr"), np.float64)


def _to_rgb(levels: np.ndarray, planes: np.ndarray, color: str, spec: dict[str, Any]) -> np.ndarray:
    if color == "bgr":
        return levels[..., ::-1]
    if color == "gray":
        return np.repeat(levels[..., :1], 3, 2)
    if color == "rgb":
        return levels
    if color in ("y", "y_studio"):
        levels = np.concatenate([levels, _chroma(planes, levels.shape, spec)], 2)
    full = color in ("y", "ycbcr")
    matrix, offset = (_FULL, _FULL_OFFSET) if full else (_STUDIO, _STUDIO_OFFSET)
    return np.clip((levels - offset) @ np.linalg.inv(matrix).T, 0, 255)


def _chroma(planes: np.ndarray, shape: tuple[int, ...], spec: dict[str, Any]) -> np.ndarray:
    """Return the color planes, enlarged to the network's output as the script enlarges them."""
    method = _RESAMPLING[spec.get("chroma", "bicubic")]
    crop = spec.get("crop", 0)
    if crop:
        planes = planes[crop:-crop, crop:-crop]
    size = (shape[1], shape[0])
    enlarged = [
        np.asarray(Image.fromarray(np.float32(planes[..., k])).resize(size, method)) for k in (1, 2)
    ]
    return np.stack(enlarged, 2).astype(np.float64)


def _padded(values: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(values, ((pad, pad), (pad, pad), (0, 0)), mode="edge") if pad else values
