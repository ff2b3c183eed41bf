"""The networks with their optimizers: one training step, and the state to save and restore."""

from __future__ import annotations

import contextlib
import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from examples.training import gan, quantization
from examples.training.losses import PIXEL_LOSSES, PerceptualLoss
from examples.training.networks import NETWORKS
from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.checkpoint.load import Weights, read

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from examples.training.config import TrainingConfig
    from sr_export.checkpoint.int8_record import Trained

WARMUP_STEPS = 200
# Distance between the seeds of two trainings, so that their steps never share a seed.
SEED_STRIDE = 1 << 32


class Trainer:
    """Trains a network step by step.

    Args:
        config: The training's configuration.
        device: Where to train.

    Attributes:
        generator: The network after the last step.
        average: The same network with averaged weights (EMA), which is the result.
        step: Number of completed steps.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16)
        self._pixel_loss = PIXEL_LOSSES[config.loss]
        torch.manual_seed(config.seed)
        self.generator = self._to_device(build_network(config))
        self._teacher: nn.Module | None = None
        self._int8_layers: dict[str, Trained] = {}
        if config.int8:
            self._teacher = copy.deepcopy(self.generator).eval()
            self._int8_layers = quantization.prepare(self.generator, config.channels)
        self.average = copy.deepcopy(self.generator).eval()
        self._optimizer = torch.optim.Adam(self.generator.parameters())
        self._discriminator: nn.Module | None = None
        self._perceptual: PerceptualLoss | None = None
        if recipe := config.recipe.adversarial:
            built = gan.build_discriminator(recipe.discriminator, config.channels)
            self._discriminator = self._to_device(built)
            self._discriminator_optimizer = torch.optim.Adam(self._discriminator.parameters())
            self._adversarial_loss = gan.ADVERSARIAL_LOSSES[recipe.kind]
            if config.vgg:
                self._perceptual = PerceptualLoss(Path(config.vgg)).to(device)
        self.step = 0

    @property
    def adversarial(self) -> bool:
        """Whether the next step belongs to the adversarial stage."""
        recipe = self._config.recipe
        return recipe.adversarial is not None and self.step >= recipe.steps

    def train_step(self, low: Tensor, high: Tensor) -> dict[str, float]:
        """Train on one batch and return the losses by name.

        Args:
            low: N x C x H x W.
            high: The target, N x C x (scale H) x (scale W).
        """
        # The seed depends on the step alone, so a resumed training draws the same numbers.
        torch.manual_seed(self._config.seed * SEED_STRIDE + self.step)
        low, high = low.to(self._device), high.to(self._device)
        self._set_learning_rates()
        train = self._adversarial_step if self.adversarial else self._pixel_step
        losses = train(low, high)
        self.step += 1
        # A smaller decay in the first steps: the average would keep the random initialization.
        decay = min(self._config.recipe.average, self.step / (self.step + 9))
        update_average(self.average, self.generator, decay)
        return {name: loss.item() for name, loss in losses.items()}

    def as_exported(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which a network computes as it will after export."""
        if not self._int8_layers:
            return contextlib.nullcontext()
        return quantization.SimulatedInt8(network, self._int8_layers)

    def weights(self) -> dict[str, Any]:
        """Return the averaged weights alone, as sr-export reads them."""
        return {"params_ema": self.average.state_dict(), **self._int8_record()}

    def _int8_record(self) -> dict[str, Any]:
        layers = self._int8_layers
        return {quantization.KEY: quantization.record(layers)} if layers else {}

    def state(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain containers."""
        state: dict[str, Any] = {
            "step": self.step,
            "generator": self.generator.state_dict(),
            "generator_ema": self.average.state_dict(),
            "optimizer_generator": self._optimizer.state_dict(),
            **self._int8_record(),
        }
        if self._discriminator:
            state["discriminator"] = self._discriminator.state_dict()
            state["optimizer_discriminator"] = self._discriminator_optimizer.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Load a state of the same configuration."""
        self.step = state["step"]
        record = state.get(quantization.KEY)
        self._int8_layers = {} if record is None else quantization.read(record, state["generator"])
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["generator_ema"])
        self._optimizer.load_state_dict(state["optimizer_generator"])
        if self._discriminator:
            self._discriminator.load_state_dict(state["discriminator"])
            self._discriminator_optimizer.load_state_dict(state["optimizer_discriminator"])

    def _pixel_step(self, low: Tensor, high: Tensor) -> dict[str, Tensor]:
        if self._teacher is not None:
            # In float32: the error of bfloat16 is about as large as that of INT8.
            with torch.no_grad():
                high = self._teacher(low)
        with self._autocast, self.as_exported(self.generator):
            output = self.generator(low)
        loss = self._pixel_loss(output.float(), high)
        minimize(self._optimizer, loss)
        return {"pixels": loss}

    def _adversarial_step(self, low: Tensor, high: Tensor) -> dict[str, Tensor]:
        """Train the discriminator, then the generator."""
        recipe = self._config.recipe.adversarial
        assert recipe is not None
        assert self._discriminator is not None
        adversarial = self._adversarial_loss
        with self._autocast:
            output = self.generator(low)
            own_loss = adversarial.of_discriminator(self._discriminator, high, output.detach())
        minimize(self._discriminator_optimizer, own_loss)

        output = output.float()
        weight = recipe.pixels if self._perceptual else 1.0
        losses = {"pixels": weight * self._pixel_loss(output, high)}
        self._discriminator.requires_grad_(requires_grad=False)
        with self._autocast:
            loss = adversarial.of_generator(self._discriminator, high, output)
            losses["adversarial"] = recipe.weight * loss
            if self._perceptual:
                losses["perceptual"] = self._perceptual(output, high)
        minimize(self._optimizer, torch.stack([loss.float() for loss in losses.values()]).sum())
        self._discriminator.requires_grad_(requires_grad=True)
        return losses | {"discriminator": own_loss}

    def _set_learning_rates(self) -> None:
        """Set the learning rates; each stage has its own schedule."""
        recipe, step = self._config.recipe, self.step
        optimizers, rate, steps = [self._optimizer], recipe.rate, recipe.steps
        if self.adversarial:
            assert recipe.adversarial is not None
            optimizers.append(self._discriminator_optimizer)
            rate, steps = recipe.adversarial.rate, recipe.adversarial.steps
            step -= recipe.steps
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rate, step, steps)

    def _to_device(self, module: nn.Module) -> nn.Module:
        # NHWC, for which CPUs and GPUs have the fastest kernels.
        return module.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks device with memory_format


def build_network(config: TrainingConfig) -> nn.Module:
    """Build the network with new weights, or with those of the checkpoint to start from.

    Raises:
        InvalidInputError: The network does not support one of the sizes.
        NotFoundError, CheckpointError: The checkpoint is missing or of another network.
    """
    name = config.recipe.network
    try:
        network = NETWORKS[name](config.scale, config.channels, **config.size)
    except TypeError as error:
        option = str(error).rpartition(" ")[2].strip("'")
        raise InvalidInputError(f"--{option} is not an option of {name}") from error
    if start := config.int8 or config.start:
        content = read(Path(start))
        if not isinstance(content, Weights):
            raise CheckpointError(f"{start}: a whole program; expected a state dict of {name}")
        try:
            network.load_state_dict(content.tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split()[:40])
            raise CheckpointError(
                f"{start}: does not fit {name} with these options ({reason} ...)"
            ) from error
    return network


def minimize(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one optimizer step."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
    optimizer.step()


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Return the learning rate of a step: a short linear warm-up, then cosine decay to zero."""
    warmup = max(1, min(WARMUP_STEPS, steps // 10))
    return peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update the exponential moving average of weights and buffers."""
    current = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1.0 - decay)
        else:
            value.copy_(current[name])  # BatchNorm's number of batches
