"""The image around 0: the same network, and in INT8 all of a frame's 256 levels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sr_export import photos
from sr_export.checkpoint.int8_record import IMAGE_THRESHOLD
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.metrics import psnr
from sr_export.quantize import centered_input, placement
from sr_export.quantize.quantizer import Quantizer
from tests.sr_export.quantize.nets import Net

# Of odd sides, with black and white at the borders.
IMAGE = photos.as_float(photos.batch(1, 41, 53, 3))
IMAGE[..., 0] = 0
IMAGE[..., -1] = 1


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("side", [1, 3, 9])
def test_computes_the_same(side: int) -> None:
    model = Net().conv(8, side=side).prelu().conv(3).model()
    found, images = centered_input.center(model, placement.layers(model))
    assert _operators(found)[:3] == (
        ["Sub", "Pad", "Conv"] if side > 1 else ["Sub", "Conv", "PRelu"]
    )
    assert {each.input for each in placement.layers(found)} >= images
    # Sums are of other numbers.
    np.testing.assert_allclose(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), atol=1e-5)


def test_a_bias_that_was_not_there() -> None:
    net = Net().add("Conv", np.ones((4, 3, 3, 3), np.float32), pads=[1, 0, 1, 2])
    model = net.model()
    found, _ = centered_input.center(model, placement.layers(model))
    np.testing.assert_allclose(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), atol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(Net().add("Mul", np.float32(2)).conv(3), id="normalised before"),
        pytest.param(Net().transposed(3), id="transposed"),
        pytest.param(
            Net().add("Conv", np.ones((3, 3, 3, 3), np.float32), auto_pad="SAME_UPPER"),
            id="pads by itself",
        ),
        pytest.param(Net().conv(3, group=3), id="stays out of INT8"),
    ],
)
def test_others_are_left_alone(net: Net) -> None:
    model = net.model()
    found, images = centered_input.center(model, placement.layers(model))
    assert _operators(found) == _operators(model)
    assert not images


def test_all_levels_of_a_frame_are_kept() -> None:
    """Quantised and back, every value that a frame can have is the nearest to itself."""
    levels = np.arange(256, dtype=np.float32) / 255 - np.float32(128 / 255)
    scale = placement.scale_of(np.float32(IMAGE_THRESHOLD))
    quantised = np.clip(np.rint(levels / scale), -128, 127)
    np.testing.assert_array_equal(quantised, np.arange(-128, 128))
    np.testing.assert_allclose(quantised * scale, levels, atol=1e-5)


def test_nothing_is_lost() -> None:
    """Weights on their levels, and frames of 8 bits: INT8 computes what FP32 does."""
    levels = np.random.default_rng(0).integers(-126, 127, (8, 3, 3, 3)).astype(np.float32)
    levels[:, 0, 0, 0] = 127  # so that the levels are these
    model = Net().add("Conv", levels * np.float32(2.0**-9), pads=[1] * 4).model()
    quantizer = Quantizer(model, list(photos.batch(2, 48, 48, 3)), "percentile", lambda _: None)
    found = quantizer.quantize(quantizer.layers, fitted=False)
    # The step of the image is as half precision holds it; on 127 levels it would be 50 dB.
    assert psnr(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), 1.0) > 90
