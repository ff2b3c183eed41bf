"""Networks on other pixel values are converted to RGB in [0, 1]; the ranges are inferred."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import Strategy, export
from sr_export.models.ranges import Ranges
from sr_export.models.recognize import recognize
from sr_export.models.restoration import infer_ranges
from sr_export.pipeline import _torch_runner
from tests.sr_export.networks import Convolutions, network

CASES = [
    Ranges(input=(-1, 1), output=(-1, 1)),
    Ranges(input=(0, 255), output=(0, 255)),
    Ranges(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), output=(-1, 1)),
    Ranges(bgr=True),
    Ranges(input=(0, 255), mean=(103.5, 116.3, 123.7), bgr=True),
]


def test_graph_and_function_agree() -> None:
    torch.manual_seed(0)
    module = Convolutions()
    model = export(network(module), Strategy(1, None))
    image = np.random.default_rng(0).random((2, 3, 8, 9), np.float32)
    for ranges in CASES:
        expected = ranges.around(_torch_runner(module))(image)
        found = OnnxRunner(ranges.put_into(model))(image)
        # float32 at the height of 255
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=str(ranges))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_ranges_of_a_trained_network_are_inferred(
    low: float, high: float, shipped_checkpoint: Path
) -> None:
    weights = torch.load(shipped_checkpoint, weights_only=True)["params_ema"]
    trained = _torch_runner(recognize([weights]).module)
    span = np.float32(high - low)

    def ranged(image: np.ndarray) -> np.ndarray:
        return trained((image - np.float32(low)) / span) * span + np.float32(low)

    found = infer_ranges(ranged, 3, 2, (64, 64))
    assert (found.input, found.output) == ((low, high), (low, high))


def test_bgr_reverses_the_channels_at_both_ends() -> None:
    def red_only(image: np.ndarray) -> np.ndarray:
        return image * np.float32([1, 0, 0]).reshape(1, 3, 1, 1)

    image = np.ones((1, 3, 1, 1), np.float32)
    found = Ranges(bgr=True).around(red_only)(image)
    np.testing.assert_array_equal(found.ravel(), [0, 0, 1])


def test_untrained_networks_keep_the_unit_range() -> None:
    torch.manual_seed(0)
    assert infer_ranges(_torch_runner(Convolutions()), 3, 2, (64, 64)).plain


def test_outputs_that_fill_the_range_of_tanh_come_from_tanh() -> None:
    """A translator restores no photos, so only the values of its output show the range."""

    def inverted(image: np.ndarray, strength: float = 1.0) -> np.ndarray:
        return (strength * np.tanh(-4 * image[..., ::-1])).astype(np.float32)

    found = infer_ranges(inverted, 3, 1, (64, 64))
    assert (found.input, found.output) == ((-1, 1), (-1, 1))
    assert infer_ranges(
        lambda image: inverted(image, 0.5), 3, 1, (64, 64)
    ).plain  # never near -1 and 1
    assert infer_ranges(lambda image: inverted(image, 2.0), 3, 1, (64, 64)).plain
