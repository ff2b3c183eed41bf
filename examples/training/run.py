"""One training from its start, or from where it was stopped, to its end."""

from __future__ import annotations

import contextlib
import csv
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from examples.training.crops import batches
from examples.training.exam import save_samples
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.training.crops import Crops
    from examples.training.exam import Exam
    from examples.training.learner import Learner
    from examples.training.recipes import Plan

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
SAMPLES = "samples"
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Pace:
    """How the machine is used, which changes nothing in what is learnt."""

    workers: int
    exam_steps: int


class Run:
    """A training and its folder: a checkpoint, a log, sample pictures, and the network at the end.

    Args:
        plan: what is trained.
        folder: to write into; a checkpoint that lies there is gone on with.

    Raises:
        InvalidInputError: the checkpoint there is of another plan, or damaged.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._history: list[dict[str, float]] = []
        self._seconds = 0.0
        self._state: dict[str, Any] | None = None
        path = folder / CHECKPOINT
        if path.exists():
            self._state = saved(path)
            if changes := plan.changes(self._state["plan"]):
                raise InvalidInputError(
                    f"{path}: of a training in which {'; '.join(sorted(changes))}. Go on with the "
                    "same options, or choose another --output"
                )

    def train(self, learner: Learner, crops: Crops, exam: Exam, pace: Pace) -> bool:
        """Trains to the end; returns False where a signal came first, with all of it saved."""
        if self._state:
            learner.restore(self._state)
            self._history, self._seconds = self._state["history"], self._state["seconds"]
            console.say(f"going on after step {learner.step}")
        (self._folder / SAMPLES).mkdir(parents=True, exist_ok=True)
        recipe, steps = self._plan.recipe, self._plan.steps
        last_saved = time.monotonic()
        started = last_saved - self._seconds
        row = batches(crops, learner.step, steps, recipe.batch, pace.workers)
        with stopped_by_signals() as stop, console.Progress(steps - learner.step, "steps") as bar:
            for low, high in row:
                losses = learner.learn(low, high)
                bar.step(words(losses))
                now = time.monotonic()
                self._seconds = now - started
                examined = learner.step % pace.exam_steps == 0 or learner.step == steps
                if examined:
                    self._examine(learner, exam, losses)
                if examined or stop.is_set() or now - last_saved > SAVE_SECONDS:
                    self._save(learner)
                    last_saved = now
                if stop.is_set():
                    return False
        return True

    def network(self, learner: Learner) -> Path:
        """Writes the averaged weights alone, for others; returns where."""
        path = self._folder / f"{self._folder.name}.pth"
        with atomic_file(path) as temporary:
            torch.save(learner.export(), temporary)
        return path

    def _examine(self, learner: Learner, exam: Exam, losses: dict[str, float]) -> None:
        with learner.computing(learner.average):
            result = exam.take(learner.average)
        console.say(
            f"step {learner.step}/{self._plan.steps}  {console.clock(self._seconds)}  "
            f"{words(losses)}  {result.psnr:.2f} dB  SSIM {result.ssim:.4f}"
        )
        save_samples(self._folder / SAMPLES / f"{learner.step:07}.png", result.samples)
        figures = {"psnr": result.psnr, "ssim": result.ssim}
        self._history.append(
            {"step": learner.step, "seconds": round(self._seconds), **losses, **figures}
        )

    def _save(self, learner: Learner) -> None:
        """Writes the checkpoint, then the log, each whole or not at all."""
        state = learner.state() | {
            "plan": self._plan.state(),
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


def words(losses: dict[str, float]) -> str:
    """Returns losses as text."""
    return "  ".join(f"{name} {loss:.5f}" for name, loss in losses.items())


def saved(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint of ours: tensors and plain containers.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever zip and pickle raise
        raise InvalidInputError(f"{path}: cannot be read ({console.describe(error)})") from error
    needed = {"plan", "history", "seconds", "step", "generator", "generator_ema"}
    if not isinstance(state, dict) or needed - state.keys():
        raise InvalidInputError(f"{path}: no checkpoint of this trainer; choose another --output")
    return state


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Lends an event that Ctrl-C or a polite kill sets: a step is finished, and all is saved."""
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
