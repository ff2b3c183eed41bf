"""The simulated INT8 arithmetic is the exporter's, and training ends in the exported network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from examples.training import quantization
from examples.training.networks import Compact, RrdbNet, SrResNet
from examples.training.trainer import Trainer
from sr_deploy.bundle.manifest import Manifest
from sr_deploy.errors import InvalidInputError
from sr_export import photos, pipeline
from sr_export.checkpoint.int8_record import Trained
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models.ranges import Ranges
from sr_export.options import Options
from sr_export.quantize import acceptance, calibration_data, placement, variants
from tests.examples.training.configs import config

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "compact": lambda: Compact(2, features=8, blocks=1),
    "srresnet": lambda: SrResNet(2, features=8, blocks=1),
    "rrdb": lambda: RrdbNet(2, features=8, blocks=1),
}


@pytest.fixture(scope="module", autouse=True)
def _little_calibration_data() -> Iterator[None]:
    """Calibrate on 24 tiles of 32x32 pixels: enough for networks with a few dozen channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_data, "_TILES", 24)
        patch.setattr(calibration_data, "_TILE_SIDE", 32)
        yield


def _network(name: str) -> nn.Module:
    """A small network that upscales, with BatchNorm statistics and blocks as after training."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.005, 0.02)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.01)
    return network.eval()


_PREPARED: dict[str, tuple[nn.Module, dict[str, Trained]]] = {}


def _prepared(name: str) -> tuple[nn.Module, dict[str, Trained]]:
    """Return a copy of the network after `prepare`, which takes seconds, and its INT8 layers."""
    if name not in _PREPARED:
        network = _network(name)
        _PREPARED[name] = network, quantization.prepare(network, channels=3)
    network, layers = _PREPARED[name]
    return copy.deepcopy(network), dict(layers)


def _trained(layer: nn.Module, name: str = "weight", axis: int = 0) -> dict[str, Trained]:
    """INT8 parameters for inputs up to 1, with the exporter's own weight levels."""
    weight = dict(layer.named_parameters())[name].detach().numpy()
    scales = torch.from_numpy(placement.weight_scales(weight, axis))
    return {name: Trained(1.0, axis, scales)}


def _export(folder: Path, content: dict[str, object]) -> Manifest:
    path = folder / "network.pth"
    torch.save(content, path)
    options = Options(
        checkpoint=str(path),
        name="network",
        ranges=Ranges(),  # random weights do not restore photos, so ranges cannot be inferred
        precisions=("fp32", "int8"),
        budgets={"int8": 5.0},
    )
    return pipeline.build(options, folder, lambda _: None)


def _frames(network: nn.Module, frames: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        output = network(torch.from_numpy(photos.as_float(frames)))
    return (output.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy().astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_exported_network_computes_what_was_simulated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, layers = _prepared(name)
    frames = photos.batch(2, 40, 48, 3)
    convolutions = sum(isinstance(each, nn.Conv2d) for each in network.modules())
    assert len(layers) == convolutions
    # Not the calibrated thresholds and optimized weights: a second calibration would show.
    layers = {
        key: each if each.centred else replace(each, threshold=0.4 * each.threshold)
        for key, each in layers.items()
    }
    assert sum(each.centred for each in layers.values()) == 1
    with torch.no_grad():
        for key, each in layers.items():
            network.get_parameter(key).add_(0.4 * each.broadcast(4))
    with quantization.SimulatedInt8(network, layers):
        expected = _frames(network, frames)

    def calibrate(*_: object) -> None:
        raise AssertionError("INT8 is calibrated")

    monkeypatch.setattr(variants, "Quantizer", calibrate)
    monkeypatch.setattr(acceptance, "MOST_LOST", 100.0)  # low thresholds cost quality
    record = quantization.record(layers)
    written = _export(tmp_path, {"params_ema": network.state_dict(), quantization.KEY: record})

    assert written.int8 is not None
    assert written.int8.method == "trained"
    (step,) = written.int8.steps
    assert (step.restored, step.fitted, written.int8.layers) == ((), False, convolutions)
    assert step.share > 0.9  # everything but PReLU
    int8 = OnnxRunner(onnx.load(tmp_path / "int8.onnx"))(frames)
    difference = np.abs(expected - int8)
    # The graph computes other layers in half precision, so a value between two levels may be
    # rounded to the other one: this changes the output by one level of 255, or by two.
    assert difference.max() <= 2
    assert difference.mean() < 0.2
    # Without the simulation, the difference is much larger.
    assert np.abs(_frames(network, frames) - int8).mean() > 10 * difference.mean()


@pytest.mark.slow
def test_training_starts_with_optimized_rounding() -> None:
    """Optimized weights with their bias correction are closer to FP32 than rounded weights."""
    original = _network("srresnet")
    frames = photos.batch(2, 40, 48, 3)
    exact = _frames(original, frames)
    network, layers = _prepared("srresnet")
    quantization.fold_norms(original, channels=3)
    with quantization.SimulatedInt8(network, layers):
        optimized_error = np.square(_frames(network, frames) - exact).mean()
    with quantization.SimulatedInt8(original, layers):
        rounded_error = np.square(_frames(original, frames) - exact).mean()
    assert optimized_error < 0.7 * rounded_error


@pytest.mark.slow
def test_training_starts_with_equalized_channels_and_a_centered_image() -> None:
    """The exporter equalizes before calibration, so one large channel does not hurt the others."""
    network = _network("compact")
    with torch.no_grad():
        for name, factor in (("body.0.weight", 100.0), ("body.0.bias", 100.0)):
            network.get_parameter(name)[1] *= factor
        network.get_parameter("body.2.weight")[:, 1] /= 100
    frames = photos.batch(2, 40, 48, 3)
    exact = copy.deepcopy(network)
    layers = quantization.prepare(network, channels=3)
    largest, typical = (
        network.get_parameter("body.0.weight").abs().amax((1, 2, 3)).sort().values[[-1, 3]]
    )
    assert largest < 10 * typical
    with quantization.SimulatedInt8(network, layers):
        assert np.abs(_frames(network, frames) - _frames(exact, frames)).mean() < 0.5


@pytest.mark.slow
def test_concatenated_tensors_share_their_threshold() -> None:
    _, layers = _prepared("rrdb")
    dense = [each.threshold for name, each in layers.items() if ".rdb1.conv" in name]
    assert len(dense) == 5
    assert len(set(dense)) == 1


def test_gradients_reach_every_weight() -> None:
    network = Compact(2, features=8, blocks=1)
    layers: dict[str, Trained] = {}
    for number in range(0, len(network.body), 2):
        layers |= _trained(network, f"body.{number}.weight")
    low = torch.rand(1, 3, 12, 12)
    with quantization.SimulatedInt8(network, layers):
        output = network(low)
    output.square().mean().backward()
    assert all(bool(each.grad.any()) for each in network.parameters())
    assert not torch.equal(output, network(low))


def test_other_layers_stay_exact() -> None:
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)
    low = torch.rand(1, 3, 12, 12)
    layers = {"0.weight": _trained(first)["weight"]}
    with quantization.SimulatedInt8(nn.Sequential(first, second), layers):
        middle = first(low)
        assert torch.equal(second(middle), torch.conv2d(middle, second.weight, second.bias))
    assert not torch.equal(middle, first(low))


def test_weights_have_the_exporters_levels() -> None:
    layer = nn.Conv2d(5, 6, 3)
    (trained,) = _trained(layer).values()
    rounded = quantization.round_to_levels(layer.weight, trained.broadcast(4))
    torch.testing.assert_close(rounded, trained.on_levels(layer.weight))
    levels = (rounded / trained.broadcast(4)).detach().numpy()
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)  # float32 rounding
    assert np.abs(levels).max() < 127.01
    once = trained.on_levels(layer.weight)
    assert torch.equal(trained.on_levels(once), once)


def test_weights_beyond_the_levels_are_clipped_and_have_no_gradient() -> None:
    weight = torch.tensor([[[[0.5]]], [[[200.0]]]], requires_grad=True)
    rounded = quantization.round_to_levels(weight, torch.ones(2, 1, 1, 1))
    assert rounded.flatten().tolist() == [0.0, 127.0]
    rounded.sum().backward()  # type: ignore[no-untyped-call]  # torch has no annotation
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [1.0, 0.0]


def test_a_transposed_convolution_is_simulated() -> None:
    layer = nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
    value = torch.rand(1, 4, 8, 8)
    layers = _trained(layer, axis=1)
    scale = float(placement.scale_of(np.float32(1.0)))
    with torch.no_grad():
        with quantization.SimulatedInt8(layer, layers):
            simulated = layer(value)
        rounded = torch.round(value / scale) * scale
        weight = layers["weight"].on_levels(layer.weight)
        expected = torch.conv_transpose2d(rounded, weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(simulated, expected)


def test_autocast_does_not_round_again() -> None:
    layer = nn.Conv2d(3, 4, 3)
    value = torch.rand(1, 3, 8, 8)
    with quantization.SimulatedInt8(layer, _trained(layer)):
        expected = layer(value)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(value), expected)


def test_folded_norms_compute_the_same_and_stay_in_eval_mode() -> None:
    network = _network("srresnet")
    low = torch.rand(2, 3, 16, 16)
    names = list(network.state_dict())
    with torch.no_grad():
        expected = network(low)
        quantization.fold_norms(network, 3)
        # Float32 rounding, in another order.
        torch.testing.assert_close(network(low), expected, rtol=0, atol=1e-5)
        network.train()
        torch.testing.assert_close(network(low), expected, rtol=0, atol=1e-5)
    assert list(network.state_dict()) == names
    norm = next(each for each in network.modules() if isinstance(each, nn.BatchNorm2d))
    assert torch.equal(norm.running_var + norm.eps, torch.ones_like(norm.running_var))


def test_a_norm_without_a_convolution_is_an_error() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(InvalidInputError, match="BatchNorm"):
        quantization.fold_norms(network, 3)


@pytest.mark.slow
def test_the_trainer_reproduces_fp32_and_resumes(tmp_path: Path) -> None:
    network = _network("compact")
    path = tmp_path / "trained.pth"
    torch.save({"params": network.state_dict()}, path)
    training = config(int8=str(path))
    lows = [torch.rand(2, 3, 12, 12, generator=torch.manual_seed(step)) for step in range(6)]
    unused = torch.zeros(2, 3, 24, 24)  # the network itself is the teacher

    whole = Trainer(training, torch.device("cpu"))
    losses = [whole.train_step(low, unused)["pixels"] for low in lows[:3]]
    with torch.no_grad(), whole.as_exported(whole.generator):
        error = (whole.generator(lows[0]) - network(lows[0])).abs().mean()
    assert max(*losses, float(error)) < 0.02  # a few levels of 255
    state = copy.deepcopy(whole.state())
    record = state[quantization.KEY]
    assert quantization.read(record, state["generator"]).keys() == record.keys()
    assert whole.weights()[quantization.KEY].keys() == record.keys()

    resumed = Trainer(training, torch.device("cpu"))
    resumed.restore(state)
    for low in lows[3:]:
        assert whole.train_step(low, unused) == resumed.train_step(low, unused)
    for name, weight in whole.average.state_dict().items():
        assert torch.equal(weight, resumed.average.state_dict()[name]), name


def test_parameters_of_another_network_are_an_error() -> None:
    layer = nn.Conv2d(3, 3, 3)
    (trained,) = _trained(layer).values()
    with pytest.raises(InvalidInputError, match=r"'conv.weight'"):
        quantization.SimulatedInt8(layer, {"conv.weight": trained})
