"""The simulation is the exporter's placement, and what it trained is exported as it was trained."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from examples.training import quantisation
from examples.training.learner import Learner
from examples.training.networks import Compact, RrdbNet, SrResNet
from sr_deploy.bundle.manifest import Manifest
from sr_deploy.errors import InvalidInputError
from sr_export import photos, pipeline
from sr_export.checkpoint.int8_record import Trained
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models.ranges import Ranges
from sr_export.options import Options
from sr_export.quantize import acceptance, placement, variants
from tests.examples.training.plans import plan

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "compact": lambda: Compact(2, features=8, blocks=2),
    "srresnet": lambda: SrResNet(2, features=8, blocks=1),
    "rrdb": lambda: RrdbNet(2, features=8, blocks=1),
}


def _network(name: str) -> nn.Module:
    """A small network that enlarges, with statistics and blocks as training leaves them."""
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


def _trained(layer: nn.Module, name: str = "weight", axis: int = 0) -> dict[str, Trained]:
    """INT8 for inputs up to 1, with the exporter's own levels of weights."""
    weight = dict(layer.named_parameters())[name].detach().numpy()
    scales = torch.from_numpy(placement.weight_scales(weight, axis))
    return {name: Trained(1.0, axis, scales)}


def _export(folder: Path, content: dict[str, object]) -> Manifest:
    path = folder / "network.pth"
    torch.save(content, path)
    options = Options(
        checkpoint=str(path),
        name="network",
        ranges=Ranges(),  # weights this random restore no photos, by which it would be found out
        precisions=("fp32", "int8"),
        budgets={"int8": 5.0},
    )
    return pipeline.build(options, folder, lambda _: None)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_simulated_is_what_is_exported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network(name)
    frames = photos.batch(2, 40, 48, 3)
    found = quantisation.prepare(network, channels=3)
    convolutions = sum(isinstance(each, nn.Conv2d) for each in network.modules())
    assert len(found) == convolutions
    # Elsewhere than calibration and rounding would have them, so that doing so anew would show.
    found = {
        key: each if each.centred else replace(each, threshold=0.4 * each.threshold)
        for key, each in found.items()
    }
    assert sum(each.centred for each in found.values()) == 1
    with torch.no_grad():
        for key, each in found.items():
            network.get_parameter(key).add_(0.4 * each.broadcast(4))
    with quantisation.Int8(network, found):
        expected = _frames(network, frames)

    def calibrating(*_: object) -> None:
        raise AssertionError("INT8 is calibrated")

    monkeypatch.setattr(variants, "Quantiser", calibrating)
    monkeypatch.setattr(acceptance, "MOST_LOST", 100.0)  # what is clipped so early is lost
    record = quantisation.record(found)
    written = _export(tmp_path, {"params_ema": network.state_dict(), quantisation.KEY: record})

    assert written.int8 is not None
    assert written.int8.method == "trained"
    (step,) = written.int8.steps
    assert (step.restored, step.fitted, written.int8.layers) == ((), False, convolutions)
    assert step.share > 0.9  # all that is not PReLU
    int8 = OnnxRunner(onnx.load(tmp_path / "int8.onnx"))(frames)
    difference = np.abs(expected - int8)
    # The graph computes the rest in half precision, and what lies between two levels may move over
    # that border: by one level of 255, or two where several meet.
    assert difference.max() <= 2
    assert difference.mean() < 0.2
    # Without the simulation, it is not nearly so.
    assert np.abs(_frames(network, frames) - int8).mean() > 10 * difference.mean()


def _frames(network: nn.Module, frames: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        output = network(torch.from_numpy(photos.as_float(frames)))
    return (output.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy().astype(int)


def test_a_training_begins_where_the_exporter_ends() -> None:
    """Fitted weights, with the bias that goes with them, come nearer to FP32 than rounded ones."""
    network = _network("srresnet")
    frames = photos.batch(2, 40, 48, 3)
    exact = _frames(network, frames)
    rounded = copy.deepcopy(network)
    found = quantisation.prepare(network, channels=3)
    quantisation.reduce_norms(rounded, channels=3)
    with quantisation.Int8(network, found):
        fitted_error = np.square(_frames(network, frames) - exact).mean()
    with quantisation.Int8(rounded, found):
        rounded_error = np.square(_frames(rounded, frames) - exact).mean()
    assert fitted_error < 0.7 * rounded_error


def test_a_training_begins_with_channels_of_like_ranges_and_all_levels_of_the_image() -> None:
    """What the exporter does before it calibrates: one wild channel leaves the others their own."""
    network = _network("compact")
    with torch.no_grad():
        for name, factor in (("body.0.weight", 100.0), ("body.0.bias", 100.0)):
            network.get_parameter(name)[1] *= factor
        network.get_parameter("body.2.weight")[:, 1] /= 100
    frames = photos.batch(2, 40, 48, 3)
    exact = copy.deepcopy(network)
    found = quantisation.prepare(network, channels=3)
    wild, usual = (
        network.get_parameter("body.0.weight").abs().amax((1, 2, 3)).sort().values[[-1, 3]]
    )
    assert wild < 10 * usual
    with quantisation.Int8(network, found):
        assert np.abs(_frames(network, frames) - _frames(exact, frames)).mean() < 0.5


def test_values_that_are_joined_are_clipped_alike() -> None:
    found = quantisation.prepare(_network("rrdb"), channels=3)
    dense = [each.threshold for name, each in found.items() if ".rdb1.conv" in name]
    assert len(dense) == 5
    assert len(set(dense)) == 1


def test_gradients_reach_every_weight() -> None:
    network = Compact(2, features=8, blocks=1)
    found: dict[str, Trained] = {}
    for number in range(0, len(network.body), 2):
        found |= _trained(network, f"body.{number}.weight")
    low = torch.rand(1, 3, 12, 12)
    with quantisation.Int8(network, found):
        output = network(low)
    output.square().mean().backward()
    assert all(bool(each.grad.any()) for each in network.parameters())
    assert not torch.equal(output, network(low))


def test_what_is_not_named_stays_exact() -> None:
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)
    low = torch.rand(1, 3, 12, 12)
    with quantisation.Int8(nn.Sequential(first, second), {"0.weight": _trained(first)["weight"]}):
        middle = first(low)
        assert torch.equal(second(middle), torch.conv2d(middle, second.weight, second.bias))
    assert not torch.equal(middle, first(low))


def test_weights_have_the_exporters_levels() -> None:
    layer = nn.Conv2d(5, 6, 3)
    (found,) = _trained(layer).values()
    held = quantisation.on_levels(layer.weight, found.broadcast(4))
    torch.testing.assert_close(held, found.on_levels(layer.weight))
    levels = (held / found.broadcast(4)).detach().numpy()
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)  # float32's own rounding
    assert np.abs(levels).max() < 127.01
    assert torch.equal(
        found.on_levels(found.on_levels(layer.weight)), found.on_levels(layer.weight)
    )


def test_what_lies_beyond_the_levels_is_held_and_learns_nothing() -> None:
    weight = torch.tensor([[[[0.5]]], [[[200.0]]]], requires_grad=True)
    held = quantisation.on_levels(weight, torch.ones(2, 1, 1, 1))
    assert held.flatten().tolist() == [0.0, 127.0]
    held.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [1.0, 0.0]


def test_a_transposed_convolution_is_simulated() -> None:
    layer = nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
    value = torch.rand(1, 4, 8, 8)
    found = _trained(layer, axis=1)
    scale = float(placement.scale_of(np.float32(1.0)))
    with torch.no_grad():
        with quantisation.Int8(layer, found):
            simulated = layer(value)
        rounded = torch.round(value / scale) * scale
        weight = found["weight"].on_levels(layer.weight)
        expected = torch.conv_transpose2d(rounded, weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(simulated, expected)


def test_autocast_does_not_round_once_more() -> None:
    layer = nn.Conv2d(3, 4, 3)
    value = torch.rand(1, 3, 8, 8)
    with quantisation.Int8(layer, _trained(layer)):
        expected = layer(value)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(value), expected)


def test_reduced_norms_compute_the_same_and_stay_put() -> None:
    network = _network("srresnet")
    low = torch.rand(2, 3, 16, 16)
    names = list(network.state_dict())
    with torch.no_grad():
        expected = network(low)
        quantisation.reduce_norms(network, 3)
        # Float32's rounding, in another order.
        torch.testing.assert_close(network(low), expected, rtol=0, atol=1e-5)
        network.train()
        torch.testing.assert_close(network(low), expected, rtol=0, atol=1e-5)
    assert list(network.state_dict()) == names
    norm = next(each for each in network.modules() if isinstance(each, nn.BatchNorm2d))
    assert torch.equal(norm.running_var + norm.eps, torch.ones_like(norm.running_var))


def test_norms_elsewhere_are_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(InvalidInputError, match="does not follow a convolution"):
        quantisation.reduce_norms(network, 3)


def test_the_trainer_teaches_what_fp32_gives_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    network = _network("compact")
    path = tmp_path / "trained.pth"
    torch.save({"params": network.state_dict()}, path)
    made = plan(int8=str(path), size={"features": 8, "blocks": 2})
    lows = [torch.rand(2, 3, 12, 12, generator=torch.manual_seed(step)) for step in range(6)]
    truth = torch.zeros(2, 3, 24, 24)  # of no interest: the network itself is what is learnt from

    whole = Learner(made, torch.device("cpu"))
    losses = [whole.learn(low, truth)["pixels"] for low in lows[:3]]
    with torch.no_grad(), whole.computing(whole.generator):
        apart = (whole.generator(lows[0]) - network(lows[0])).abs().mean()
    assert max(*losses, float(apart)) < 0.02  # a few levels of 255
    state = copy.deepcopy(whole.state())
    assert quantisation.read(state, state["generator"]).keys() == state[quantisation.KEY].keys()
    assert whole.export()[quantisation.KEY].keys() == state[quantisation.KEY].keys()

    resumed = Learner(made, torch.device("cpu"))
    resumed.restore(state)
    for low in lows[3:]:
        assert whole.learn(low, truth) == resumed.learn(low, truth)
    for name, weight in whole.average.state_dict().items():
        assert torch.equal(weight, resumed.average.state_dict()[name]), name


def test_weights_of_another_network_are_refused() -> None:
    layer = nn.Conv2d(3, 3, 3)
    (found,) = _trained(layer).values()
    with pytest.raises(InvalidInputError, match=r"'conv.weight' is to be in INT8"):
        quantisation.Int8(layer, {"conv.weight": found})
