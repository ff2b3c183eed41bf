"""How fast contenders are, side by side: interleaved, warmed up, each in a process of its own."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sr_bench import quality, scores
from sr_bench.facts import size_text
from sr_bench.processes import Process
from sr_bench.timings import Bout, Fidelity, Row, Timing
from sr_deploy.errors import BackendError, OutOfMemoryError, SrDeployError
from sr_export.quality import psnr, y_ssim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sr_bench.facts import Size
    from sr_bench.jobs import Job
    from sr_bench.scores import Score
    from sr_bench.timings import Form, SpeedOptions, Work
    from sr_deploy.console import Progress
    from sr_deploy.manifest import Model

# Beside the frames: an interpreter with a runtime, and the network's weights. What runtimes hold
# over the exporter's figure is 0.5 to 2.1 times (see the backends); PyTorch up to 2.2.
_PROCESS_BYTES = 600 << 20
_FACTOR = 2.2
_SHARE_OF_FREE = 0.8
# Forms beside the first are warm already but for what they add.
_FURTHER_WARM_UP = 0.3
_SSIM_SIDE = 11


@dataclass(frozen=True)
class Plan:
    """What is measured of one network at one size.

    Attributes:
        jobs: The baseline first.
        size: Width and height of the frames.
        batch: Frames of a call.
        forms: Beside "upscale".
        pythons: Interpreters by the name of a backend or "torch".
        pairs: Images with ground truth, or none.
        scale: Of the network.
        work: What a call has to do.
    """

    jobs: Sequence[Job]
    size: Size
    batch: int = 1
    forms: Sequence[Form] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[quality.Pair] = ()
    scale: int = 1
    work: Work | None = None


def measure(plan: Plan, options: SpeedOptions, progress: Progress) -> Bout:
    """Measure contenders at one size. `progress` is stepped once for each of them and round.

    Raises:
        SrDeployError: none of the contenders could be measured; the text says why the first.
    """
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        entries: list[_Entry] = []
        for job in plan.jobs:
            progress.stage(f"{size_text(plan.size)}: warming up {job.contender}")
            try:
                entry = stack.enter_context(contextlib.closing(_Entry(job, plan, options)))
            except SrDeployError as error:
                if len(plan.jobs) == 1:
                    raise
                missing[str(job.contender)] = str(error)
            else:
                entries.append(entry)
        if not entries:
            raise BackendError("; ".join(missing.values()))
        for _ in range(options.rounds):
            for entry in entries:
                entry.take_turns(options)
                progress.step(f"{size_text(plan.size)} {entry.process.job.contender}")
        rows = tuple(entry.row(entries[0].output, plan, options) for entry in entries)
    return Bout(plan.size, plan.batch, rows, plan.work, missing)


def heats(jobs: Sequence[Job], model: Model, size: Size, batch: int, free: int) -> list[list[Job]]:
    """Divide jobs into groups whose processes fit into memory together, each with the baseline.

    Args:
        jobs: the baseline first.
        model: of the bundle.
        size: width and height.
        batch: frames of a call.
        free: bytes of memory.

    Raises:
        OutOfMemoryError: not even two fit.
    """
    frame_bytes = math.prod(size) * model.bytes_per_pixel * batch
    each = _PROCESS_BYTES + int(_FACTOR * frame_bytes) + 4 * model.parameters
    together = int(_SHARE_OF_FREE * free) // each
    if together >= len(jobs):
        return [list(jobs)]
    if together < 2:
        raise OutOfMemoryError(
            f"two contenders side by side at {size_text(size, batch)} need about "
            f"{2 * each >> 20} MiB of memory; {free >> 20} MiB are free: choose smaller --sizes"
        )
    others = jobs[1:]
    # As many in each group as in the others, so that no contender is alone with the baseline.
    count = math.ceil(len(others) / (together - 1))
    return [[jobs[0], *others[first::count]] for first in range(count)]


class _Entry:
    """A contender in a bout: its process, and what was measured so far."""

    def __init__(self, job: Job, plan: Plan, options: SpeedOptions) -> None:
        contender = job.contender
        name = "torch" if contender.runtime == "torch" else contender.backend
        self._elsewhere = plan.pythons.get(name)
        self.process = Process(job, self._elsewhere)
        try:
            self.output, self._told = self.process.prepare(
                plan.size, plan.batch, options.warm_up_seconds
            )
            warm_up = _FURTHER_WARM_UP * options.warm_up_seconds
            further = [form for form in plan.forms if self.process.add(form, warm_up)]
        except BaseException:
            self.process.close()
            raise
        self._rounds: dict[Form, list[tuple[float, ...]]] = {"upscale": []}
        self._joules: dict[Form, list[float]] = {"upscale": []}
        for form in further:
            self._rounds[form], self._joules[form] = [], []

    def take_turns(self, options: SpeedOptions) -> None:
        """Measure each form once."""
        for form, rounds in self._rounds.items():
            time.sleep(options.rest_seconds)
            samples, joules = self.process.measure(form, options.turn_seconds)
            rounds.append(samples)
            if joules is not None:
                self._joules[form].append(joules)

    def row(self, expected: NDArray[np.uint8], plan: Plan, options: SpeedOptions) -> Row:
        """Return what was measured, together with what takes no turns."""
        return Row(
            contender=self.process.job.contender,
            timings=tuple(
                Timing(
                    form,
                    tuple(rounds),
                    tuple(self._joules[form]) or None,
                    self.process.stages(form, options.turn_seconds),
                )
                for form, rounds in self._rounds.items()
            ),
            fidelity=_fidelity(expected, self.output),
            ran=self.process.ran,
            versions=self.process.versions if self._elsewhere else {},
            start_seconds=round(self.process.start_seconds, 3),
            first_ms=round(self._told["first_ms"], 3),
            peak_memory=self._told["peak_memory"],
            device_memory=self._told["device_memory"],
            truth=self._truth(plan),
        )

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def _truth(self, plan: Plan) -> Score | None:
        """Return how close the contender comes to the ground truth."""
        if not plan.pairs:
            return None
        found = []
        for pair in plan.pairs:
            low, truth = quality.load(pair, plan.scale)
            found.append(quality.score(truth, self.process.upscale(low), plan.scale))
        return scores.mean(found)


def _fidelity(expected: NDArray[np.uint8], found: NDArray[np.uint8]) -> Fidelity:
    """Compare two outputs (N, H, W, C)."""
    largest = int(np.abs(found.astype(int) - expected).max())
    decibels = psnr(expected, found)
    first = expected[0], found[0]
    fits = expected.shape[3] == 3 and min(expected.shape[1:3]) >= _SSIM_SIDE
    return Fidelity(
        largest,
        decibels if math.isfinite(decibels) else None,
        y_ssim(*first, 0) if fits else None,
    )
