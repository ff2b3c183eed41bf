"""What tensors hold on real images: the largest value of each, and how often the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from sr_deploy.errors import ExportError
from sr_export import photos
from sr_export.quantize import activations
from sr_export.quantize.activations import BINS, Histogram, collect, largest
from tests.sr_export.quantize.nets import Net, compact


def _tiles(count: int = 5, side: int = 24, channels: int = 3) -> list[NDArray[np.uint8]]:
    return [photos.batch(1, side, side + 8, channels, first=i)[0] for i in range(count)]


def _silent(text: str) -> None:
    del text


def _values(
    model: onnx.ModelProto, tiles: list[NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    """Return all tensors, by onnx's own reference implementation."""
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    names = ["input", *(name for node in model.graph.node for name in node.output)]
    del inner.graph.output[:]
    inner.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    run = ReferenceEvaluator(inner)
    found = [run.run(None, {"input": photos.as_float(tile[None])}) for tile in tiles]
    return {
        name: np.stack(each) for name, each in zip(names, zip(*found, strict=True), strict=True)
    }


def _fixed(model: onnx.ModelProto, batch: int, height: int, width: int) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for axis, size in enumerate((batch, 3, height, width)):
        fixed.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    return fixed


def test_the_largest_value_of_every_tensor() -> None:
    model, tiles = compact(), _tiles(3)
    found = largest(model, tiles)
    values = _values(model, tiles)
    assert found.keys() == values.keys()
    for name, each in values.items():
        # Two implementations add up in different orders.
        assert found[name] == pytest.approx(float(np.abs(each).max()), rel=1e-4), name


def test_what_is_made_of_shapes_is_left_out() -> None:
    net = Net().conv(3)
    convolution = net.value
    net.add("Shape").add("Cast", to=TensorProto.FLOAT)
    net.add("Mul", np.full(4, 1e6, np.float32)).add("ReduceMax", keepdims=0)
    net.join("Min", convolution)
    assert largest(net.model(), _tiles(1)).keys() == {"input", convolution, "output"}


def test_an_overflow_is_infinite() -> None:
    net = Net().add("Mul", np.array(3e38, np.float32)).add("Mul", np.array(10, np.float32))
    net.join("Sub", net.value)  # inf - inf is no number
    found = largest(net.model(), _tiles(1))
    assert np.isfinite(found["mul_0"])
    assert found["mul_1"] == np.inf
    assert found["output"] == np.inf


@pytest.mark.parametrize("batch", [1, 2])
def test_networks_of_fixed_size_and_batch(batch: int) -> None:
    model, tiles = compact(), _tiles(3)
    fixed = _fixed(model, batch, 24, 32)
    free, bound = largest(model, tiles), largest(fixed, tiles)
    assert free == pytest.approx(bound, rel=1e-5)
    histograms = collect(fixed, ["conv_0"], tiles, bound, _silent)
    # An odd one is taken twice, where tiles go in pairs.
    values = {1: 3, 2: 4}[batch] * 16 * 24 * 32
    assert histograms["conv_0"].counts.sum() == values


def test_histograms_are_those_of_the_values() -> None:
    model, tiles = compact(), _tiles(2)
    tops = largest(model, tiles)
    names = ["input", "conv_0", "prelu_1", "output"]
    found = collect(model, names, tiles, tops, _silent)
    values = _values(model, tiles)
    assert list(found) == names
    for name, histogram in found.items():
        expected, _ = np.histogram(np.abs(values[name]), BINS, (0, tops[name]))
        assert histogram.counts.sum() == values[name].size
        # Values on the border of two bins may fall to either side: 1 % may.
        moved = np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max()
        assert moved <= 0.01 * values[name].size, name


def test_many_tensors_are_looked_at_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tiles = compact(), _tiles(2)
    tops = largest(model, tiles)
    names = ["conv_0", "prelu_1", "conv_2", "conv_4"]
    whole = collect(model, names, tiles, tops, _silent)
    size = 16 * 24 * 32 * 4
    for room, parts in ((size - 1, 4), (2 * size, 2), (3 * size, 2), (4 * size, 1)):
        monkeypatch.setattr(activations, "_GROUP_BYTES", room)
        told: list[str] = []
        grouped = collect(model, names, tiles, tops, told.append)
        assert len(told) == 2 * parts
        for name in names:
            assert np.array_equal(grouped[name].counts, whole[name].counts)


def test_progress_is_told() -> None:
    model, tiles = compact(), _tiles(3)
    told: list[str] = []
    collect(model, ["input"], tiles, largest(model, tiles), told.append)
    assert told == [f"calibrating: {i} of 3 tiles" for i in (1, 2, 3)]


def test_without_names_nothing_is_run() -> None:
    told: list[str] = []
    assert collect(compact(), [], _tiles(1), {}, told.append) == {}
    assert not told


def test_a_tensor_that_is_always_zero() -> None:
    net = Net().add("Mul", np.array(0, np.float32)).conv(3)
    model, tiles = net.model(), _tiles(1)
    tops = largest(model, tiles)
    assert tops["mul_0"] == 0
    histogram = collect(model, ["mul_0"], tiles, tops, _silent)["mul_0"]
    assert histogram.counts[0] == histogram.counts.sum() > 0
    assert [histogram.threshold(each) for each in ("percentile", "minmax", "mse")] == [0, 0, 0]


def test_values_next_to_nothing_are_counted_as_nothing() -> None:
    net = Net().add("Mul", np.array(1e-38, np.float32)).conv(3)
    model, tiles = net.model(), _tiles(1)
    histogram = collect(model, ["mul_0"], tiles, largest(model, tiles), _silent)["mul_0"]
    assert histogram.counts[0] == histogram.counts.sum() > 0


def test_infinite_tensors_cannot_be_calibrated() -> None:
    model = Net().add("Mul", np.array(3e38, np.float32)).conv(3, gain=1e6).model()
    tiles = _tiles(1)
    with pytest.raises(ExportError, match="'output'"):
        collect(model, ["output"], tiles, largest(model, tiles), _silent)


def test_what_onnx_runtime_refuses_is_our_error() -> None:
    with pytest.raises(ExportError):
        largest(_fixed(compact(), 1, 10, 10), _tiles(1))
    model = compact()
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(ExportError, match="Unheard"):
        largest(model, _tiles(1))


def _histogram(values: NDArray[np.float64]) -> Histogram:
    top = float(values.max())
    return Histogram(np.histogram(values, BINS, (0, top))[0].astype(np.int64), top)


def test_minmax_clips_nothing() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(10_000))
    assert _histogram(values).threshold("minmax") == values.max()


@pytest.mark.parametrize("outlier", [5.0, 20.0])
def test_the_percentile_leaves_out_the_rarest(outlier: float) -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(1_000_000))
    values[0] = outlier
    histogram = _histogram(values)
    found = histogram.threshold("percentile")
    # Ten of a million values may be above; those in the same bin as the tenth may be, too.
    expected = np.sort(values)[-11]
    assert expected <= found <= expected + 2 * outlier / BINS


def test_of_few_values_the_percentile_leaves_out_none() -> None:
    values = np.arange(1, 101, dtype=np.float64)
    assert _histogram(values).threshold("percentile") == 100


@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform"])
def test_mse_has_the_least_error_of_all_clippings(kind: str) -> None:
    random = np.random.default_rng(0)
    values = {
        "normal": np.abs(random.standard_normal(100_000)),
        "laplace": np.abs(random.laplace(size=100_000)),
        "uniform": random.random(100_000),
    }[kind]
    found = _histogram(values).threshold("mse")

    def error(threshold: float) -> float:
        level = threshold / 127
        restored = np.clip(np.rint(values / level), -127, 127) * level
        return float(np.mean((restored - values) ** 2))

    best = min(error(factor * values.max()) for factor in np.linspace(0.05, 1, 400))
    # The search goes in steps of 1/256 of the largest value, which blurs the minimum a little.
    assert error(found) <= 1.01 * best
    assert (found < 0.99 * values.max()) == (kind != "uniform")
