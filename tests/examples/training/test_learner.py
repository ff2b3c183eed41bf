"""What a step does to the networks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.training.adversarial import ADVERSARIAL
from examples.training.learner import LOSSES, Learner, follow, network, warmed
from examples.training.recipes import RECIPES, Plan
from sr_deploy.errors import CheckpointError, InvalidInputError
from tests.examples.training.plans import contest, plan

CPU = torch.device("cpu")


def learner(wanted: Plan) -> Learner:
    return Learner(wanted, CPU)


def pair(number: int = 0, scale: int = 2, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth pictures, which can be learnt."""
    random = torch.Generator().manual_seed(number)
    low = torch.rand(2, channels, 8, 8, generator=random)
    high = torch.nn.functional.interpolate(low, scale_factor=float(scale), mode="bilinear")
    return low, high


@pytest.mark.parametrize("name", ["espcn", "compact", "srresnet", "rrdb"])
def test_it_learns(name: str) -> None:
    taught = learner(plan(name, recipe=replace(RECIPES[name], steps=400, rate=2e-3)))
    losses = [taught.learn(*pair())["pixels"] for _ in range(120)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_average_goes_slowly() -> None:
    taught = learner(plan())
    for number in range(6):
        taught.learn(*pair(number))
    new, mean = taught.generator.state_dict(), taught.average.state_dict()
    fresh = learner(plan()).generator.state_dict()
    name = "body.0.weight"
    far, near = (new[name] - fresh[name]).norm(), (mean[name] - fresh[name]).norm()
    assert 0 < near < far


def test_following_counts_batches_and_averages_statistics() -> None:
    mean, model = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    model.running_mean.fill_(1.0)
    model.num_batches_tracked.fill_(7)
    follow(mean, model, 0.75)
    assert mean.running_mean.item() == 0.25
    assert mean.num_batches_tracked.item() == 7


def weight(taught: Learner) -> Tensor:
    """The discriminator's last, which learns first; of its bias, half the kinds take no notice."""
    return list(taught.state()["discriminator"].values())[-2]


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_contest_changes_both_networks_in_its_half_only(kind: str) -> None:
    taught = learner(plan("srresnet", contest(kind)))
    before = weight(taught).clone()
    for number in range(6):
        assert set(taught.learn(*pair(number))) == {"pixels"}
    assert torch.equal(weight(taught), before)
    assert taught.stage == "contest"
    generator = [each.clone() for each in taught.generator.parameters()]
    losses = taught.learn(*pair(7))
    assert set(losses) == {"pixels", "adversarial", "discriminator"}
    assert all(math.isfinite(value) for value in losses.values())
    assert not torch.equal(weight(taught), before)
    changed = [
        not torch.equal(a, b) for a, b in zip(generator, taught.generator.parameters(), strict=True)
    ]
    assert all(changed)


def test_the_adversarial_loss_reaches_the_generator() -> None:
    """A much heavier one leads it elsewhere; the same one to the same."""
    ends = []
    for weight in (1e-2, 1e-2, 10.0):
        taught = learner(plan(contest=contest().__class__("hinge", "patch", 4, 1e-3, weight)))
        for number in range(8):
            taught.learn(*pair(number))
        ends.append(taught.generator.state_dict()["body.0.weight"].clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("wanted", [plan(), plan("srresnet", contest("wgan-gp"))])
def test_a_restored_training_ends_with_the_same_weights(wanted: Plan) -> None:
    whole, first = learner(wanted), learner(wanted)
    for number in range(wanted.steps):
        whole.learn(*pair(number))
    stopped = wanted.steps - 3
    for number in range(stopped):
        first.learn(*pair(number))
    torch.manual_seed(99)  # whatever the next process has drawn before
    second = learner(wanted)
    second.restore(first.state())
    for number in range(stopped, wanted.steps):
        second.learn(*pair(number))
    assert second.step == wanted.steps
    for kind in ("generator", "generator_ema", "discriminator"):
        ours, theirs = second.state().get(kind, {}), whole.state().get(kind, {})
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_pixels_are_least_where_all_is_right(loss: str) -> None:
    image = torch.rand(1, 3, 4, 4)
    right, wrong = LOSSES[loss](image, image), LOSSES[loss](image + 0.5, image)
    assert right < 2e-3  # the round tip of Charbonnier is 1e-3 high
    assert wrong > 0.2


def test_bfloat16_keeps_weights_in_float32() -> None:
    taught = learner(plan(bfloat16=True))
    taught.learn(*pair())
    assert {each.dtype for each in taught.generator.parameters()} == {torch.float32}


def test_the_rate_rises_then_falls_to_nothing() -> None:
    for steps, rise in ((10_000, 200), (1000, 100), (5, 1)):
        rates = [warmed(1.0, step, steps) for step in range(steps)]
        assert rates[0] == pytest.approx(1 / rise)
        assert max(rates) == rates[rise - 1]
        assert rates[rise - 1 :] == sorted(rates[rise - 1 :], reverse=True)
        assert rates[-1] < 0.1


def test_a_size_that_a_network_has_not() -> None:
    with pytest.raises(InvalidInputError, match="espcn has no 'blocks' to set"):
        network(plan("espcn", size={"blocks": 3}))


def test_weights_to_start_from(tmp_path: Path) -> None:
    path = tmp_path / "before.pth"
    trained = network(plan(seed=5))
    torch.save({"params_ema": trained.state_dict()}, path)
    started = learner(plan(start=str(path)))
    assert torch.equal(next(started.generator.parameters()), next(trained.parameters()))
    with pytest.raises(CheckpointError, match="not of this compact"):
        learner(plan(start=str(path), size={"features": 16, "blocks": 1}))
