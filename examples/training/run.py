"""The training loop: from the start, or from the last checkpoint, to the end."""

from __future__ import annotations

import contextlib
import csv
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import torch

from examples.training.dataset import batches
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.training.config import TrainingConfig
    from examples.training.dataset import Crops
    from examples.training.trainer import Trainer
    from examples.training.validation import Validation

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
SAMPLES = "samples"
SAVE_SECONDS = 60.0


class TrainingRun:
    """A training and its folder: checkpoint, log, sample images and the final weights.

    Args:
        config: The training's configuration.
        folder: Output folder; a checkpoint in it is continued.

    Raises:
        InvalidInputError: The checkpoint has another configuration, or is damaged.
    """

    def __init__(self, config: TrainingConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._history: list[dict[str, float]] = []
        self._seconds = 0.0
        self._state: dict[str, Any] | None = None
        path = folder / CHECKPOINT
        if path.exists():
            self._state = _load_checkpoint(path)
            if differences := config.differences(self._state["plan"]):
                raise InvalidInputError(
                    f"{path}: started with other options ({'; '.join(differences)}). To continue "
                    "it, use the same options; to start anew, choose another --output"
                )

    def train(
        self,
        trainer: Trainer,
        crops: Crops,
        validation: Validation,
        *,
        workers: int,
        validation_steps: int,
    ) -> bool:
        """Train to the end; return False if a signal stopped it first, after saving everything.

        Args:
            trainer: Its state is replaced by the checkpoint's, if there is one.
            crops: Training data.
            validation: Scored every `validation_steps` steps, and after the last.
            workers: Processes that make crops.
            validation_steps: Does not influence the weights.
        """
        if self._state:
            trainer.restore(self._state)
            self._history, self._seconds = self._state["history"], self._state["seconds"]
            console.say(f"resuming after step {trainer.step}")
        (self._folder / SAMPLES).mkdir(parents=True, exist_ok=True)
        batch, steps = self._config.recipe.batch, self._config.steps
        saved = time.monotonic()
        started = saved - self._seconds
        remaining = batches(crops, trainer.step, steps, batch, workers)
        with _catch_signals() as stop, console.Progress(steps - trainer.step, "steps") as progress:
            for low, high in remaining:
                losses = trainer.train_step(low, high)
                progress.step(_format_losses(losses))
                now = time.monotonic()
                self._seconds = now - started
                validate = trainer.step % validation_steps == 0 or trainer.step == steps
                if validate:
                    self._validate(trainer, validation, losses)
                if validate or stop.is_set() or now - saved > SAVE_SECONDS:
                    self._save(trainer)
                    saved = now
                if stop.is_set():
                    return False
        return True

    def save_weights(self, trainer: Trainer) -> Path:
        """Write the averaged weights alone; return the file's path."""
        path = self._folder / f"{self._folder.name}.pth"
        with atomic_file(path) as temporary:
            torch.save(trainer.weights(), temporary)
        return path

    def _validate(self, trainer: Trainer, validation: Validation, losses: dict[str, float]) -> None:
        with trainer.as_exported(trainer.average):
            result = validation.score(trainer.average)
        console.say(
            f"step {trainer.step}/{self._config.steps}  {console.clock(self._seconds)}  "
            f"{_format_losses(losses)}  {result.psnr:.2f} dB  SSIM {result.ssim:.4f}"
        )
        result.save_samples(self._folder / SAMPLES / f"{trainer.step:07}.png")
        scores = {"psnr": result.psnr, "ssim": result.ssim}
        self._history.append(
            {"step": trainer.step, "seconds": round(self._seconds), **losses, **scores}
        )

    def _save(self, trainer: Trainer) -> None:
        """Write the checkpoint, then the log, each atomically."""
        state = trainer.state() | {
            "plan": self._config.state(),
            "history": self._history,
            "seconds": self._seconds,
        }
        with atomic_file(self._folder / CHECKPOINT) as path:
            torch.save(state, path)
        names = list(dict.fromkeys(name for row in self._history for name in row))
        with atomic_file(self._folder / LOG) as path, path.open("w", newline="") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(self._history)


def _format_losses(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {loss:.5f}" for name, loss in losses.items())


def _load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the tensors and plain containers of a checkpoint of this trainer."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever zipfile and pickle raise
        raise InvalidInputError(f"{path}: cannot be read ({console.describe(error)})") from error
    needed = {"plan", "history", "seconds", "step", "generator", "generator_ema"}
    if not isinstance(state, dict) or needed - state.keys():
        raise InvalidInputError(
            f"{path}: not a checkpoint of this trainer; choose another --output"
        )
    return state


@contextlib.contextmanager
def _catch_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, so that the current step ends and is saved."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda *_: stop.set()) for each in signals]
    try:
        yield stop
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
