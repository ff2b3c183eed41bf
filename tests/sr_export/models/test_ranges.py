"""Networks on other pixel values are converted to RGB in [0, 1]; the ranges are inferred."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_export import photos
from sr_export.graph import pixel_values
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import Strategy, export
from sr_export.models.network import with_ranges
from sr_export.models.ranges import OPENCV, SIGNED, Ranges, enlarged
from sr_export.models.readings import NetworkProbe, decide
from sr_export.models.recognize import recognize
from sr_export.pipeline import _torch_runner
from tests.sr_export.networks import Convolutions, network

CASES = [
    Ranges(input=(-1, 1), output=(-1, 1)),
    Ranges(input=(0, 255), output=(0, 255)),
    Ranges(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), output=(-1, 1)),
    Ranges(color="bgr"),
    Ranges(input=(0, 255), mean=(103.5, 116.3, 123.7), color="bgr"),
    Ranges(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), denormalize=True),
    Ranges(color="ycbcr"),
    Ranges(color="ycbcr-video", input=(-1, 1)),
    Ranges(enlarge=3),
]


def test_graph_and_function_agree() -> None:
    torch.manual_seed(0)
    module = Convolutions()
    model = export(network(module), Strategy(1, None))
    image = np.random.default_rng(0).random((2, 3, 8, 9), np.float32)
    for ranges in CASES:
        expected = ranges.around(_torch_runner(module))(image)
        found = OnnxRunner(pixel_values.put_into(model, ranges))(image)
        # float32 at the height of 255
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=str(ranges))


class _Flat(torch.nn.Module):
    """Preserves the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.conv(image)
        return output


@pytest.mark.parametrize(
    "ranges",
    [
        Ranges(residual="add"),
        Ranges(residual="subtract", input=(-1, 1), output=(-1, 1)),
        Ranges(enlarge=2, residual="add"),
        Ranges(enlarge=2, cubic=OPENCV, color="ycbcr", residual="add"),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_graph_function_and_module_agree(ranges: Ranges, channels: Literal[1, 3]) -> None:
    torch.manual_seed(0)
    module = _Flat(channels).eval()
    found = replace(network(module), scale=1, channels=channels)
    model = pixel_values.put_into(export(found, Strategy(1, None)), ranges)
    planes = ranges.image_channels(channels)
    image = np.random.default_rng(0).random((2, planes, 8, 9), np.float32)
    expected = ranges.around(_torch_runner(module), channels)(image)
    assert expected.shape == (2, planes, 8 * ranges.enlarge, 9 * ranges.enlarge)
    np.testing.assert_allclose(OnnxRunner(model)(image), expected, atol=1e-4)
    with torch.inference_mode():
        result = with_ranges(module, ranges)(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_images_are_enlarged_as_by_pillow(factor: int) -> None:
    (photo,) = photos.as_float(photos.batch(1, 24, 30, 1))
    size = (30 * factor, 24 * factor)
    expected = Image.fromarray(photo[0]).resize(size, Image.Resampling.BICUBIC)
    inside = np.s_[2 * factor : -2 * factor, 2 * factor : -2 * factor]
    found = enlarged(photo[None], factor)[0, 0]
    np.testing.assert_allclose(found[inside], np.asarray(expected)[inside], atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_images_are_enlarged_as_by_opencv(factor: int) -> None:
    photo = photos.as_float(photos.batch(1, 24, 30, 3))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(photo), scale_factor=factor, mode="bicubic", align_corners=False
    )
    found = enlarged(photo, factor, OPENCV)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_luma_is_that_of_pillow() -> None:
    (photo,) = photos.batch(1, 16, 16, 3)
    expected = np.asarray(Image.fromarray(photo).convert("YCbCr"))
    seen = []

    def identity(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return image

    result = Ranges(color="ycbcr").around(identity)(photos.as_float(photo[None]))
    np.testing.assert_allclose(seen[0][0] * 255, expected.transpose(2, 0, 1), atol=1)
    np.testing.assert_allclose(result, photos.as_float(photo[None]), atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_ranges_of_a_trained_network_are_inferred(
    low: float, high: float, shipped_checkpoint: Path
) -> None:
    weights = torch.load(shipped_checkpoint, weights_only=True)["params_ema"]
    trained = _torch_runner(recognize([weights]).module)
    span = np.float32(high - low)

    def ranged(image: np.ndarray) -> np.ndarray:
        return trained((image - np.float32(low)) / span) * span + np.float32(low)

    found = decide(NetworkProbe(ranged, 3, 2, (64, 64))).ranges
    assert (found.input, found.output) == ((low, high), (low, high))


def test_bgr_reverses_the_channels_at_both_ends() -> None:
    def red_only(image: np.ndarray) -> np.ndarray:
        return image * np.float32([1, 0, 0]).reshape(1, 3, 1, 1)

    image = np.ones((1, 3, 1, 1), np.float32)
    found = Ranges(color="bgr").around(red_only)(image)
    np.testing.assert_array_equal(found.ravel(), [0, 0, 1])


def test_untrained_networks_restore_nothing() -> None:
    torch.manual_seed(0)
    found = decide(NetworkProbe(_torch_runner(Convolutions()), 3, 2, (64, 64)))
    assert found.ranges.plain
    assert not found.restores
    assert found.assumed


def test_outputs_that_fill_the_range_of_tanh_come_from_tanh() -> None:
    """A translator restores no photos, so only the values of its output show the range."""

    def inverted(image: np.ndarray, strength: float = 1.0) -> np.ndarray:
        return (strength * np.tanh(-4 * image[..., ::-1])).astype(np.float32)

    found = decide(NetworkProbe(inverted, 3, 1, (64, 64)))
    assert (found.ranges.input, found.ranges.output) == ((-1, 1), (-1, 1))
    assert found.assumed
    for strength in (0.5, 2.0):  # never near -1 and 1, or beyond
        other = functools.partial(inverted, strength=strength)
        assert decide(NetworkProbe(other, 3, 1, (64, 64))).ranges.plain


def test_the_colors_of_a_gray_network_are_assumed_with_all_of_its_options() -> None:
    """Weights do not tell whether a program upscales each channel, or Y alone."""

    def signed(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return (image * 2 - 1).repeat(2, axis=2).repeat(2, axis=3)

    found = decide(NetworkProbe(signed, 1, 2, (64, 64)))
    assert found.ranges.output == SIGNED
    assert any("--output-range -1 1 --color ycbcr" in text for text in found.assumed)
