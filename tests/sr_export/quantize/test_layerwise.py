"""A network run from layer to layer: the same values as if it ran as a whole."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sr_export import photos
from sr_export.graph import onnx_graph
from sr_export.quantize import layerwise as stages
from sr_export.quantize import placement
from sr_export.quantize.activations import watched
from sr_export.quantize.layerwise import LayerwiseRun
from tests.sr_export.quantize.nets import Net

TILES = list(photos.batch(3, 24, 24, 3))


def _dense() -> onnx.ModelProto:
    """Skips and concatenations, so that values wait for several layers."""
    net = Net().conv(8).prelu()
    first = net.value
    net.conv(8).prelu().join("Concat", first, axis=1)
    net._width = 16
    net.conv(8).join("Add", first)
    return net.transposed(8).conv(3).model()


def _stages(
    model: onnx.ModelProto,
) -> tuple[LayerwiseRun, tuple[placement.Layer, ...], dict[str, float]]:
    layers = placement.layers(model)
    thresholds = {each.input: 1.0 for each in layers}
    return LayerwiseRun(onnx_graph.copied(model), layers, thresholds, TILES), layers, thresholds


def test_every_layer_gets_what_it_gets_in_the_whole_network() -> None:
    model = _dense()
    run, layers, thresholds = _stages(model)
    assert len(layers) == 5
    for i, layer in enumerate(layers):
        run.run_to(layer.name, {})
        in_int8 = placement.quantize(model, layers[:i], thresholds)
        whole = zip(
            watched(model, [layer.input], TILES),
            watched(in_int8, [layer.input], TILES),
            strict=True,
        )
        for found, ((exact,), (quantised,)) in zip(run.values(layer.input), whole, strict=True):
            # Other fusions add up in another order, which may move a value to the next level.
            np.testing.assert_allclose(found[0], exact, atol=1e-5)
            assert np.abs(found[1] - quantised).mean() < 1e-4
            assert i == 0 or np.abs(found[1] - found[0]).mean() > 1e-3


def test_fitted_weights_are_used() -> None:
    model = _dense()
    run, layers, _ = _stages(model)
    (weights,) = (
        each for each in onnx_graph.copied(model).graph.initializer if each.dims[:2] == [8, 3]
    )
    shape = tuple(weights.dims)
    nothing = placement.FittedWeights(
        np.zeros(shape, np.float32), np.full(8, 0.01, np.float32), np.zeros(8, np.float32)
    )
    run.run_to(layers[1].name, {layers[0].name: nothing})
    for exact, quantised in run.values(layers[1].input):
        assert np.abs(exact).max() > 0
        assert np.abs(quantised).max() == 0


def test_fewer_tiles_go_on_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    run, layers, _ = _stages(_dense())
    assert len(run) == 3
    monkeypatch.setattr(stages, "_HELD_BYTES", 1)
    run.run_to(layers[1].name, {})
    assert len(run) == len(list(run.values(layers[1].input))) == 1


def test_sizes_that_the_image_tells_go_on() -> None:
    """As SAFMN has them: what is resized lies behind a layer, and its size is told before."""
    net = Net().conv(8)
    first = net.value
    size = net.add("Shape").value
    net.back_to(first, 8).conv(8).add("Resize", None, None, mode="nearest")
    net._nodes[-1].input.append(size)
    model = net.conv(3).model()
    layers = placement.layers(model)
    tiles = list(photos.batch(2, 32, 40, 3))
    thresholds = {each.input: 4.0 for each in layers}
    stages = LayerwiseRun(onnx_graph.copied(model), layers, thresholds, tiles)
    for each in layers:
        stages.run_to(each.name, {})
    assert [one.shape for one, _ in stages.values(layers[-1].input)] == [(1, 8, 32, 40)] * 2
