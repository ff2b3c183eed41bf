"""How fast contenders are, side by side: interleaved, warmed up, each in a process of its own."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sr_bench import quality
from sr_bench.processes import WorkerProcess
from sr_bench.records import Deviation, Measurement, Run, Timing, mean, size_text
from sr_deploy import machine
from sr_deploy.errors import BackendError, OutOfMemoryError, SrDeployError
from sr_export.metrics import psnr, y_ssim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sr_bench.jobs import WorkerSpec
    from sr_bench.records import Mode, Score, Size, SpeedOptions, Workload
    from sr_deploy.bundle.manifest import Model
    from sr_deploy.cli.console import Progress

# Beside the frames: an interpreter with a runtime, and the network's weights. What runtimes hold
# over the exporter's figure is 0.3 to 2.1 times (see the backends); PyTorch up to 2.2.
_PROCESS_BYTES = 600 << 20
_FACTOR = 2.2
# Of the free memory, for what contenders take once they are warm, and for others.
_RESERVE = 0.2
# Forms beside the first are warm already but for what they add.
_FURTHER_WARM_UP = 0.3
_SSIM_SIDE = 11


@dataclass(frozen=True)
class SizePlan:
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
        needs: Bytes of memory that a contender may take; see `needed`.
    """

    jobs: Sequence[WorkerSpec]
    size: Size
    batch: int = 1
    forms: Sequence[Mode] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[quality.ImagePair] = ()
    scale: int = 1
    work: Workload | None = None
    needs: int = 0


def needed(model: Model, size: Size, batch: int) -> int:
    """Return the bytes of memory that any contender's process may take."""
    frame_bytes = math.prod(size) * model.bytes_per_pixel * batch
    return _PROCESS_BYTES + int(_FACTOR * frame_bytes) + 4 * model.parameters


def measure(plan: SizePlan, options: SpeedOptions, progress: Progress) -> list[Run]:
    """Measure contenders at one size, in as few groups as memory takes, each with the baseline.

    `progress` is stepped once for each contender and round.

    Raises:
        OutOfMemoryError: not even two contenders fit into memory together.
        SrDeployError: none of the contenders could be measured; the text says why the first.
    """
    baseline, *waiting = plan.jobs
    bouts: list[Run] = []
    while waiting or not bouts:
        bout = _bout(plan, [baseline, *waiting], options, progress, again=bool(bouts))
        waiting = waiting[len(bout.rows) + len(bout.missing) - 1 :]
        bouts.append(bout)
    return bouts


def _bout(
    plan: SizePlan,
    jobs: Sequence[WorkerSpec],
    options: SpeedOptions,
    progress: Progress,
    *,
    again: bool,
) -> Run:
    """Measure as many contenders as memory takes; `again`: the first has been counted before."""
    with contextlib.ExitStack() as stack:
        entries, missing = _opened(stack, plan, jobs, options, progress)
        for _ in range(options.rounds):
            for entry in entries:
                entry.take_turns(options)
                job = entry.process.job
                if not (again and job is jobs[0]):
                    progress.step(f"{size_text(plan.size)} {job.contender}")
        rows = tuple(entry.row(entries[0].output, plan, options) for entry in entries)
    return Run(plan.size, plan.batch, rows, plan.work, missing)


def _opened(
    stack: contextlib.ExitStack,
    plan: SizePlan,
    jobs: Sequence[WorkerSpec],
    options: SpeedOptions,
    progress: Progress,
) -> tuple[list[_Entry], dict[str, str]]:
    """Open contenders until memory is short; return them, and why some of them cannot be."""
    free = machine.free_memory()
    entries: list[_Entry] = []
    missing: dict[str, str] = {}
    for number, job in enumerate(jobs):
        # What the others turned out to take, since that is often half of what they may.
        if entries and machine.free_memory() - plan.needs < _RESERVE * free:
            if number > 1:
                break
            raise OutOfMemoryError(
                f"two contenders side by side at {size_text(plan.size, plan.batch)} need up to "
                f"{2 * plan.needs >> 20} MiB of memory; {free >> 20} MiB are free: choose smaller "
                "--sizes"
            )
        progress.stage(f"{size_text(plan.size)}: warming up {job.contender}")
        try:
            entry = stack.enter_context(contextlib.closing(_Entry(job, plan, options)))
        except SrDeployError as error:
            if len(jobs) == 1:
                raise
            missing[str(job.contender)] = str(error)
        else:
            entries.append(entry)
    if not entries:
        raise BackendError("; ".join(missing.values()))
    return entries, missing


class _Entry:
    """A contender in a bout: its process, and what was measured so far."""

    def __init__(self, job: WorkerSpec, plan: SizePlan, options: SpeedOptions) -> None:
        contender = job.contender
        name = "torch" if contender.runtime == "torch" else contender.backend
        self._elsewhere = plan.pythons.get(name)
        self.process = WorkerProcess(job, self._elsewhere)
        try:
            self.output, self._told = self.process.prepare(
                plan.size, plan.batch, options.warm_up_seconds
            )
            warm_up = _FURTHER_WARM_UP * options.warm_up_seconds
            further = [form for form in plan.forms if self.process.add(form, warm_up)]
        except BaseException:
            self.process.close()
            raise
        self._rounds: dict[Mode, list[tuple[float, ...]]] = {"upscale": []}
        self._joules: dict[Mode, list[float]] = {"upscale": []}
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

    def row(
        self, expected: NDArray[np.uint8], plan: SizePlan, options: SpeedOptions
    ) -> Measurement:
        """Return what was measured, together with what takes no turns."""
        return Measurement(
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

    def _truth(self, plan: SizePlan) -> Score | None:
        """Return how close the contender comes to the ground truth."""
        if not plan.pairs:
            return None
        found = []
        for pair in plan.pairs:
            low, truth = quality.load(pair, plan.scale)
            found.append(quality.score(truth, self.process.upscale(low), plan.scale))
        return mean(found)


def _fidelity(expected: NDArray[np.uint8], found: NDArray[np.uint8]) -> Deviation:
    """Compare two outputs (N, H, W, C)."""
    largest = int(np.abs(found.astype(int) - expected).max())
    decibels = psnr(expected, found)
    first = expected[0], found[0]
    fits = expected.shape[3] == 3 and min(expected.shape[1:3]) >= _SSIM_SIDE
    return Deviation(
        largest,
        decibels if math.isfinite(decibels) else None,
        y_ssim(*first, 0) if fits else None,
    )
