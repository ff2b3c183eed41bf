"""Training steps: what they change, learning rates, averaging, and restoring a state."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.training.config import RECIPES, TrainingConfig
from examples.training.gan import ADVERSARIAL_LOSSES
from examples.training.trainer import Trainer, build_network, learning_rate, update_average
from sr_deploy.errors import CheckpointError, InvalidInputError
from tests.examples.training.configs import adversarial, config


def _trainer(training: TrainingConfig) -> Trainer:
    return Trainer(training, torch.device("cpu"))


def _batch(number: int = 0, scale: int = 2, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth images, which can be learned quickly."""
    random = torch.Generator().manual_seed(number)
    low = torch.rand(2, channels, 8, 8, generator=random)
    high = torch.nn.functional.interpolate(low, scale_factor=float(scale), mode="bilinear")
    return low, high


@pytest.mark.parametrize("name", ["espcn", "compact", "srresnet", "rrdb"])
def test_the_loss_decreases(name: str) -> None:
    trainer = _trainer(config(name, recipe=replace(RECIPES[name], steps=400, rate=2e-3)))
    losses = [trainer.train_step(*_batch())["pixels"] for _ in range(120)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_average_follows_slowly() -> None:
    trainer = _trainer(config())
    for number in range(6):
        trainer.train_step(*_batch(number))
    name = "body.0.weight"
    start = _trainer(config()).generator.state_dict()[name]
    moved = (trainer.generator.state_dict()[name] - start).norm()
    average_moved = (trainer.average.state_dict()[name] - start).norm()
    assert 0 < average_moved < moved


def test_averaging_copies_counters_and_averages_statistics() -> None:
    average, network = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    network.running_mean.fill_(1.0)
    network.num_batches_tracked.fill_(7)
    update_average(average, network, 0.75)
    assert average.running_mean.item() == 0.25
    assert average.num_batches_tracked.item() == 7


def _discriminator_weight(trainer: Trainer) -> Tensor:
    """The weight of the last layer; half of the losses do not depend on its bias."""
    return list(trainer.state()["discriminator"].values())[-2]


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_the_adversarial_stage_trains_both_networks(kind: str) -> None:
    trainer = _trainer(config("srresnet", adversarial(kind)))
    before = _discriminator_weight(trainer).clone()
    for number in range(6):
        assert set(trainer.train_step(*_batch(number))) == {"pixels"}
    assert torch.equal(_discriminator_weight(trainer), before)
    assert trainer.adversarial
    weights = [each.clone() for each in trainer.generator.parameters()]
    losses = trainer.train_step(*_batch(7))
    assert set(losses) == {"pixels", "adversarial", "discriminator"}
    assert all(math.isfinite(value) for value in losses.values())
    assert not torch.equal(_discriminator_weight(trainer), before)
    pairs = zip(weights, trainer.generator.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs)


def test_the_adversarial_loss_reaches_the_generator() -> None:
    """A much larger weight of the loss gives other weights; the same one gives the same."""
    ends = []
    for loss_weight in (1e-2, 1e-2, 10.0):
        recipe = replace(adversarial("hinge"), weight=loss_weight)
        trainer = _trainer(config(adversarial=recipe))
        for number in range(8):
            trainer.train_step(*_batch(number))
        ends.append(trainer.generator.state_dict()["body.0.weight"].clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("training", [config(), config("srresnet", adversarial("wgan-gp"))])
def test_a_restored_training_ends_with_the_same_weights(training: TrainingConfig) -> None:
    whole, first = _trainer(training), _trainer(training)
    for number in range(training.steps):
        whole.train_step(*_batch(number))
    stop = training.steps - 3
    for number in range(stop):
        first.train_step(*_batch(number))
    torch.manual_seed(99)  # another process has drawn other random numbers
    second = _trainer(training)
    second.restore(first.state())
    for number in range(stop, training.steps):
        second.train_step(*_batch(number))
    assert second.step == training.steps
    for kind in ("generator", "generator_ema", "discriminator"):
        resumed, expected = second.state().get(kind, {}), whole.state().get(kind, {})
        assert resumed.keys() == expected.keys()
        assert all(torch.equal(resumed[name], expected[name]) for name in resumed)


def test_bfloat16_keeps_float32_weights() -> None:
    trainer = _trainer(config(bfloat16=True))
    trainer.train_step(*_batch())
    assert {each.dtype for each in trainer.generator.parameters()} == {torch.float32}


def test_the_learning_rate_warms_up_and_decays() -> None:
    for steps, warmup in ((10_000, 200), (1000, 100), (5, 1)):
        rates = [learning_rate(1.0, step, steps) for step in range(steps)]
        assert rates[0] == pytest.approx(1 / warmup)
        assert max(rates) == rates[warmup - 1]
        assert rates[warmup - 1 :] == sorted(rates[warmup - 1 :], reverse=True)
        assert rates[-1] < 0.1


def test_an_option_that_the_network_does_not_have() -> None:
    with pytest.raises(InvalidInputError, match=r"blocks.*espcn"):
        build_network(config("espcn", size={"blocks": 3}))


def test_initial_weights(tmp_path: Path) -> None:
    path = tmp_path / "before.pth"
    network = build_network(config(seed=5))
    torch.save({"params_ema": network.state_dict()}, path)
    trainer = _trainer(config(start=str(path)))
    assert torch.equal(next(trainer.generator.parameters()), next(network.parameters()))
    with pytest.raises(CheckpointError, match=r"before\.pth.*compact"):
        _trainer(config(start=str(path), size={"features": 16, "blocks": 1}))
