"""Speed of several configurations at one size: interleaved, warmed up, each in its own process."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

import numpy as np

from sr_bench import quality
from sr_bench.estimate import Probe
from sr_bench.process import WorkerProcess
from sr_bench.records import BenchRun, Deviation, Measurement, Timing, mean, size_text
from sr_deploy import machine
from sr_deploy.errors import BackendError, OutOfMemoryError, SrDeployError
from sr_export.metrics import psnr, y_ssim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sr_bench.configurations import SizePlan, WorkerSpec
    from sr_bench.estimate import Schedule
    from sr_bench.records import Mode, Score, Size, SpeedOptions
    from sr_deploy.bundle.manifest import Model

# Besides the frames: an interpreter with a runtime, and the weights of the network. Runtimes need
# 0.3 to 2.1 times the exporter's figure (see the backends); PyTorch up to 2.2 times.
_PROCESS_BYTES = 600 << 20
_FACTOR = 2.2
# Share of the free memory that is kept for growth during the warm-up, and for other programs.
_RESERVE = 0.2
# Further modes are mostly warm already.
_FURTHER_WARM_UP = 0.3
_MIN_SSIM_SIDE = 11


def needed_memory(model: Model, size: Size, batch: int) -> int:
    """Return the bytes of memory that the process of any configuration may take."""
    frame_bytes = math.prod(size) * model.bytes_per_pixel * batch
    return _PROCESS_BYTES + int(_FACTOR * frame_bytes) + 4 * model.parameters


def measure(
    plan: SizePlan, options: SpeedOptions, schedule: Schedule, ceiling_seconds: float = 0.0
) -> list[BenchRun]:
    """Measure at one size, in as few runs as memory allows, each with the baseline.

    The first run of a benchmark announces its time.

    Raises:
        OutOfMemoryError: Memory does not suffice for two configurations.
        SrDeployError: No configuration could be measured; the reason is that of the first.
    """
    baseline, *waiting = plan.specs
    runs: list[BenchRun] = []
    while waiting or not runs:
        run = _run(plan, [baseline, *waiting], options, schedule, ceiling_seconds)
        waiting = waiting[len(run.rows) + len(run.missing) - 1 :]
        runs.append(run)
    return runs


def _run(
    plan: SizePlan,
    specs: Sequence[WorkerSpec],
    options: SpeedOptions,
    schedule: Schedule,
    ceiling_seconds: float,
) -> BenchRun:
    """Measure as many of the configurations as memory allows."""
    size = size_text(plan.size, plan.batch)
    with contextlib.ExitStack() as stack:
        participants, missing = _opened(stack, plan, specs, schedule)
        schedule.announce([each.probe for each in participants], ceiling_seconds)
        for each in tuple(participants):
            schedule.show(f"{size}: warming up {each.name}")
            try:
                each.warm_up(plan, options)
            except SrDeployError as error:
                if len(specs) == 1:
                    raise
                missing[each.name] = str(error)
                participants.remove(each)
        if not participants:
            raise BackendError("; ".join(missing.values()))
        for number in range(options.rounds):
            for each in participants:
                schedule.show(f"{size}: round {number + 1}/{options.rounds}, {each.name}")
                each.measure(options)
        baseline = participants[0].output
        rows = tuple(each.measurement(baseline, plan, options) for each in participants)
    return BenchRun(plan.size, plan.batch, rows, plan.work, missing)


def _opened(
    stack: contextlib.ExitStack, plan: SizePlan, specs: Sequence[WorkerSpec], schedule: Schedule
) -> tuple[list[_Participant], dict[str, str]]:
    """Open configurations until memory is short; return them, and the reasons of failures."""
    free = machine.free_memory()
    size = size_text(plan.size, plan.batch)
    participants: list[_Participant] = []
    missing: dict[str, str] = {}
    for number, spec in enumerate(specs):
        # The free memory counts, since processes often take half of what they may.
        if participants and machine.free_memory() - plan.needs < _RESERVE * free:
            if number > 1:
                break
            raise OutOfMemoryError(
                f"two configurations at {size} need up to {2 * plan.needs >> 20} MiB of memory; "
                f"{free >> 20} MiB are free: use smaller --sizes"
            )
        schedule.show(f"{size}: starting {spec.configuration}")
        try:
            participant = _Participant(spec, plan)
        except SrDeployError as error:
            if len(specs) == 1:
                raise
            missing[str(spec.configuration)] = str(error)
        else:
            stack.callback(participant.process.close)
            participants.append(participant)
    if not participants:
        raise BackendError("; ".join(missing.values()))
    return participants, missing


class _Participant:
    """A configuration in a run: its process, and its samples so far."""

    def __init__(self, spec: WorkerSpec, plan: SizePlan) -> None:
        configuration = spec.configuration
        self.name = str(configuration)
        runtime = "torch" if configuration.runtime == "torch" else configuration.backend
        self._python = plan.pythons.get(runtime)
        start = time.perf_counter()
        self.process = WorkerProcess(spec, self._python)
        try:
            self.output = self.process.prepare(plan.size, plan.batch)
        except BaseException:
            self.process.close()
            raise
        pixels = math.prod(plan.size) * plan.batch
        self.probe = Probe(time.perf_counter() - start, self.process.call_ms, pixels)
        self._memory: tuple[int | None, int | None] = (None, None)
        self._rounds: dict[Mode, list[tuple[float, ...]]] = {"upscale": []}
        self._joules: dict[Mode, list[float]] = {"upscale": []}

    def warm_up(self, plan: SizePlan, options: SpeedOptions) -> None:
        """Warm up all modes that the configuration supports."""
        self._memory = self.process.warm_up(options.warm_up_seconds)
        for mode in plan.modes:
            if self.process.add(mode, _FURTHER_WARM_UP * options.warm_up_seconds):
                self._rounds[mode], self._joules[mode] = [], []

    def measure(self, options: SpeedOptions) -> None:
        """Measure one round of each mode."""
        for mode, rounds in self._rounds.items():
            time.sleep(options.rest_seconds)
            samples, joules = self.process.measure(mode, options.turn_seconds)
            rounds.append(samples)
            if joules is not None:
                self._joules[mode].append(joules)

    def measurement(
        self, baseline: NDArray[np.uint8], plan: SizePlan, options: SpeedOptions
    ) -> Measurement:
        """Return the samples, with everything that is measured outside the rounds."""
        return Measurement(
            contender=self.process.spec.configuration,
            timings=tuple(
                Timing(
                    mode,
                    tuple(rounds),
                    tuple(self._joules[mode]) or None,
                    self.process.stages(mode, options.turn_seconds),
                )
                for mode, rounds in self._rounds.items()
            ),
            fidelity=_deviation(baseline, self.output),
            ran=self.process.resolved,
            versions=self.process.versions if self._python else {},
            start_seconds=round(self.process.start_seconds, 3),
            first_ms=round(self.process.first_ms, 3),
            peak_memory=self._memory[0],
            device_memory=self._memory[1],
            truth=self._truth(plan),
        )

    def _truth(self, plan: SizePlan) -> Score | None:
        """Return the mean score against ground truth."""
        scores = []
        for pair in plan.pairs:
            low, truth = quality.load(pair, plan.scale)
            scores.append(quality.score(truth, self.process.upscale(low), plan.scale))
        return mean(scores) if scores else None


def _deviation(baseline: NDArray[np.uint8], output: NDArray[np.uint8]) -> Deviation:
    """Compare two outputs (N, H, W, C)."""
    decibels = psnr(baseline, output)
    fits = baseline.shape[3] == 3 and min(baseline.shape[1:3]) >= _MIN_SSIM_SIDE
    return Deviation(
        int(np.abs(output.astype(int) - baseline).max()),
        decibels if math.isfinite(decibels) else None,
        y_ssim(baseline[0], output[0], 0) if fits else None,
    )
