"""The networks, their optimisers and averages: all that training changes, a step at a time."""

from __future__ import annotations

import contextlib
import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.training import discriminators, quantisation
from examples.training.adversarial import ADVERSARIAL
from examples.training.networks import NETWORKS
from examples.training.perceptual import Perceptual
from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.checkpoint.load import Weights, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from examples.training.recipes import Plan
    from sr_export.checkpoint.int8_record import Trained

WARMUP_STEPS = 200
CHARBONNIER_TIP = 1e-3
# Seeds of neighbouring trainings must not meet after some steps.
SEED_DISTANCE = 1 << 32


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Returns L1 with a round tip, which settles where L1 keeps on jumping."""
    return (output - target).square().add(CHARBONNIER_TIP**2).sqrt().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
}
"""Of the pixels."""


class Learner:
    """What is trained.

    Args:
        plan: what, and how.
        device: where.

    Attributes:
        generator: as the last step left it.
        average: the moving average of its weights, which is the one to use.
        step: how many steps are done.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._device = device
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16)
        self._pixels = LOSSES[plan.loss]
        torch.manual_seed(plan.seed)
        self.generator = self._on_device(network(plan))
        self._teacher: nn.Module | None = None
        self._trained: dict[str, Trained] = {}
        if plan.int8:
            self._teacher = copy.deepcopy(self.generator).eval()
            self._trained = quantisation.prepare(self.generator, plan.channels)
        self.average = copy.deepcopy(self.generator).eval()
        self._optimiser = adam(self.generator)
        self._discriminator: nn.Module | None = None
        self._perceptual: Perceptual | None = None
        if contest := plan.recipe.contest:
            built = discriminators.build(contest.discriminator, plan.channels)
            self._discriminator = self._on_device(built)
            self._critic = adam(self._discriminator)
            self._adversarial = ADVERSARIAL[contest.kind]
            if plan.vgg:
                self._perceptual = Perceptual(Path(plan.vgg)).to(device)
        self.step = 0

    @property
    def stage(self) -> str:
        """Which half this is, for people."""
        recipe = self._plan.recipe
        return "contest" if recipe.contest and self.step >= recipe.steps else "pixels"

    def learn(self, low: Tensor, high: Tensor) -> dict[str, float]:
        """Does one step and returns the losses, by name.

        Args:
            low: N x C x H x W.
            high: what it was, N x C x (scale H) x (scale W).
        """
        # By the step, not by what was drawn before: a training that is resumed draws the same.
        torch.manual_seed(self._plan.seed * SEED_DISTANCE + self.step)
        low, high = low.to(self._device), high.to(self._device)
        self._set_rates()
        learn = self._learn_pixels if self.stage == "pixels" else self._learn_contest
        losses = learn(low, high)
        self.step += 1
        # Early on, an average of the first steps would hang on to what was random.
        follow(
            self.average,
            self.generator,
            min(self._plan.recipe.average, self.step / (self.step + 9)),
        )
        return {name: loss.item() for name, loss in losses.items()}

    def computing(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Returns a context in which a network computes as it will when it is exported."""
        if not self._trained:
            return contextlib.nullcontext()
        return quantisation.Int8(network, self._trained)

    def export(self) -> dict[str, Any]:
        """Returns what sr-export needs."""
        return {"params_ema": self.average.state_dict(), **self._int8()}

    def _int8(self) -> dict[str, Any]:
        return {quantisation.KEY: quantisation.record(self._trained)} if self._trained else {}

    def state(self) -> dict[str, Any]:
        """Returns all of it as tensors and plain containers."""
        state: dict[str, Any] = {
            "step": self.step,
            "generator": self.generator.state_dict(),
            "generator_ema": self.average.state_dict(),
            "optimizer_generator": self._optimiser.state_dict(),
            **self._int8(),
        }
        if self._discriminator:
            state["discriminator"] = self._discriminator.state_dict()
            state["optimizer_discriminator"] = self._critic.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state of the same plan."""
        self.step = state["step"]
        record = state.get(quantisation.KEY)
        self._trained = {} if record is None else quantisation.read(record, state["generator"])
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["generator_ema"])
        self._optimiser.load_state_dict(state["optimizer_generator"])
        if self._discriminator:
            self._discriminator.load_state_dict(state["discriminator"])
            self._critic.load_state_dict(state["optimizer_discriminator"])

    def _learn_pixels(self, low: Tensor, high: Tensor) -> dict[str, Tensor]:
        if self._teacher is not None:
            # In float32: bfloat16's own error is about as large as that of INT8.
            with torch.no_grad():
                high = self._teacher(low)
        with self._autocast, self.computing(self.generator):
            output = self.generator(low)
        loss = self._pixels(output.float(), high)
        descend(self._optimiser, loss)
        return {"pixels": loss}

    def _learn_contest(self, low: Tensor, high: Tensor) -> dict[str, Tensor]:
        """Sharpens the discriminator, then teaches the generator with it."""
        assert self._discriminator is not None
        assert self._plan.recipe.contest is not None
        with self._autocast:
            output = self.generator(low)
            judged = self._adversarial.of_discriminator(self._discriminator, high, output.detach())
        descend(self._critic, judged)

        output = output.float()
        share = self._plan.recipe.contest.pixels if self._perceptual else 1.0
        losses = {"pixels": share * self._pixels(output, high)}
        self._discriminator.requires_grad_(requires_grad=False)
        with self._autocast:
            teased = self._adversarial.of_generator(self._discriminator, high, output)
            losses["adversarial"] = self._plan.recipe.contest.weight * teased
            if self._perceptual:
                losses["perceptual"] = self._perceptual(output, high)
        descend(self._optimiser, torch.stack([loss.float() for loss in losses.values()]).sum())
        self._discriminator.requires_grad_(requires_grad=True)
        return losses | {"discriminator": judged}

    def _set_rates(self) -> None:
        """Lets the rate rise, then fall as a cosine to nothing, in each half anew."""
        recipe, step = self._plan.recipe, self.step
        rate, steps = recipe.rate, recipe.steps
        if self.stage == "contest":
            assert recipe.contest is not None
            rate, steps, step = recipe.contest.rate, recipe.contest.steps, step - recipe.steps
            for group in self._critic.param_groups:
                group["lr"] = warmed(recipe.contest.rate, step, steps)
        for group in self._optimiser.param_groups:
            group["lr"] = warmed(rate, step, steps)

    def _on_device(self, module: nn.Module) -> nn.Module:
        # NHWC, which the fast kernels of processors and GPUs are made for.
        return module.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def network(plan: Plan) -> nn.Module:
    """Builds the network, with new weights or those to start from.

    Raises:
        InvalidInputError: it cannot be built of that size.
        NotFoundError, CheckpointError: there is nothing to start from, or of another network.
    """
    name = plan.recipe.network
    try:
        built = NETWORKS[name](plan.scale, plan.channels, **plan.size)
    except TypeError as error:
        raise InvalidInputError(f"{name} has no {str(error).rpartition(' ')[2]} to set") from error
    if start := plan.int8 or plan.start:
        content = read(Path(start))
        if not isinstance(content, Weights):
            raise CheckpointError(f"{start}: a program, not weights to start from")
        try:
            built.load_state_dict(content.tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split()[:40])
            raise CheckpointError(f"{start}: not of this {name} ({reason} ...)") from error
    return built


def adam(module: nn.Module) -> torch.optim.Adam:
    """Returns the optimiser of a network; its rate is set at each step."""
    return torch.optim.Adam(module.parameters())


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Takes one step down a loss."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def warmed(rate: float, step: int, steps: int) -> float:
    """Returns the learning rate of a step: a short rise, then half a cosine to zero."""
    rise = max(1, min(WARMUP_STEPS, steps // 10))
    return rate * min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / steps))


def follow(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the exponential average of the weights and statistics one step towards the model."""
    current = model.state_dict()
    for name, average in mean.state_dict().items():
        if average.is_floating_point():
            average.lerp_(current[name], 1.0 - decay)
        else:
            average.copy_(current[name])  # BatchNorm's count of batches
