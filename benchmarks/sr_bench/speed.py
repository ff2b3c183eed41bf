"""`sr-bench BUNDLE`: the selection of configurations and sizes, and the speed record."""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_bench import ceilings, configurations, environment, measure, quality, record_files
from sr_bench.configurations import DEFAULT, SizePlan, WorkerSpec
from sr_bench.estimate import Schedule
from sr_bench.records import BenchRun, ModelBenchmark, SpeedRecord
from sr_deploy import _worker, backends, machine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.cli import console
from sr_deploy.errors import ExportError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sr_bench.records import Configuration, Mode, Size, SpeedOptions
    from sr_deploy.bundle.manifest import Model

FULL_SIZES: tuple[Size, ...] = ((256, 256), (480, 270))
# A quick run measures the first of these sizes at which a frame is not too much work.
_QUICK_SIZES: tuple[Size, ...] = ((480, 270), (256, 256), (128, 128))
_QUICK_GFLOP = 30.0
# A quarter of the free memory is the default budget of an engine; the rest is an interpreter.
_SHARE_OF_FREE = 4
_INTERPRETER_BYTES = 256 << 20


@dataclass(frozen=True)
class BenchRequest:
    """The requested measurements; None: the default of a quick or full run."""

    backends: Sequence[str] | None
    precisions: Sequence[str] | None
    sizes: Sequence[Size] | None
    batches: Sequence[int]
    modes: Sequence[Mode]
    """Modes besides "upscale"."""
    pythons: Mapping[str, str]
    ground_truth: Path | None
    low_resolution: Path | None
    with_ceilings: bool


@contextlib.contextmanager
def opened_targets(paths: Sequence[Path]) -> Iterator[list[tuple[Bundle, Path | None]]]:
    """Provide the bundles of bundles and checkpoints, each with its checkpoint if known.

    A checkpoint named together with its bundle belongs to that bundle. Checkpoints alone are
    exported to a temporary folder.

    Raises:
        NotFoundError: A path does not exist.
        BundleError: A folder is not a bundle.
        ExportError: A checkpoint cannot be exported.
        InvalidInputError: A checkpoint belongs to none of the bundles.
    """
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"{path}: no such bundle or checkpoint")
    bundles = [Bundle.open(path) for path in paths if path.is_dir()]
    for each in bundles:
        each.manifest.model.require_images()
    checkpoints = [path for path in paths if path.is_file()]
    with tempfile.TemporaryDirectory() as folder:
        if bundles:
            yield [(each, configurations.checkpoint_of(each, checkpoints)) for each in bundles]
        else:
            yield [(_exported(path, Path(folder)), path) for path in checkpoints]


def _exported(checkpoint: Path, folder: Path) -> Bundle:
    """Export a checkpoint in its own process, which returns its memory at the end."""
    target = folder / f"{checkpoint.stem}.srd"
    command = [sys.executable, "-m", "sr_export", str(checkpoint), "--output", str(target)]
    done = _worker.run(command)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ExportError(f"{checkpoint}: export failed: {last[0]}")
    bundle = Bundle.open(target)
    bundle.manifest.model.require_images()
    return bundle


def measure_models(
    targets: Sequence[tuple[Bundle, Path | None]], request: BenchRequest, options: SpeedOptions
) -> SpeedRecord:
    """Measure models one after the other; see `measure.measure`."""
    made_in = environment.current()
    free = machine.free_memory()
    plans = [
        (bundle, plan)
        for bundle, checkpoint in targets
        for plan in _plans(bundle, checkpoint, request, options, free)
    ]
    limits = []
    runs: list[tuple[Bundle, BenchRun]] = []
    count = max(len(plan.specs) for _, plan in plans)
    console.complain("sr-bench", f"starting {count} configurations, to estimate the time")
    with console.Progress() as progress:
        schedule = Schedule([plan for _, plan in plans], options, progress)

        def measure_ceilings() -> float:
            if not request.with_ceilings:
                return 0.0
            schedule.show("measuring the ceilings of the machine")
            start = time.monotonic()
            limits.append(ceilings.measured(options.device, options.threads))
            return time.monotonic() - start

        ceiling_seconds = measure_ceilings()
        for bundle, plan in plans:
            found = measure.measure(plan, options, schedule, ceiling_seconds)
            runs += ((bundle, each) for each in found)
        measure_ceilings()
    best = ceilings.joined(*limits)
    series = tuple(
        ModelBenchmark(
            made_in,
            environment.measured_model(bundle),
            options,
            tuple(run for _, run in group),
            best,
        )
        for bundle, group in itertools.groupby(runs, key=lambda pair: pair[0])
    )
    return SpeedRecord(record_files.SCHEMA, "speed", series)


def _plans(
    bundle: Bundle,
    checkpoint: Path | None,
    request: BenchRequest,
    options: SpeedOptions,
    free: int,
) -> Iterator[SizePlan]:
    model = bundle.manifest.model
    selected = select(
        bundle, request, options.device, with_torch=checkpoint is not None, quick=options.quick
    )
    specs = [
        WorkerSpec(
            each,
            str(bundle.folder.resolve()),
            None if checkpoint is None else str(checkpoint.resolve()),
            options.threads,
            options.device,
            _INTERPRETER_BYTES + free // _SHARE_OF_FREE,
        )
        for each in selected
    ]
    truth = request.ground_truth
    pairs = [] if truth is None else quality.pairs(truth, request.low_resolution, model.scale)
    default_sizes = [quick_size(model)] if options.quick else FULL_SIZES
    for size in request.sizes or default_sizes:
        for batch in request.batches:
            yield SizePlan(
                specs=specs,
                size=size,
                batch=batch,
                modes=request.modes,
                pythons=request.pythons,
                pairs=pairs,
                scale=model.scale,
                work=ceilings.count(bundle, size, batch) if request.with_ceilings else None,
                needs=measure.needed_memory(model, size, batch),
            )


def quick_size(model: Model) -> Size:
    """Return the size for a quick run: smaller for networks with much work per pixel."""
    for size in _QUICK_SIZES:
        if model.gflop_per_megapixel * math.prod(size) / 1e6 <= _QUICK_GFLOP:
            return size
    return _QUICK_SIZES[-1]


def select(
    bundle: Bundle, request: BenchRequest, device: str, *, with_torch: bool, quick: bool = False
) -> list[Configuration]:
    """Return the configurations to measure, the baseline first.

    Of the requested backends, "torch" stands for the configurations of PyTorch and "default" for
    `Engine` without further arguments; both are included if no backends are requested. Requested
    precisions apply to all but the default and the baseline, which is PyTorch as most scripts run
    it. A quick run without requested backends and precisions leaves out the compiled forms and most
    precisions.

    Raises:
        InvalidInputError: Nothing is left to measure: PyTorch needs a checkpoint.
    """
    requested = request.backends or ("torch", "default")
    precisions = request.precisions
    torch: list[Configuration] = []
    if with_torch and "torch" in requested:
        baseline, *strong = configurations.torch_configurations(device)
        torch = [baseline, *(e for e in strong if precisions is None or e.precision in precisions)]
    named = [e for e in requested if e in backends.REGISTRY] if request.backends else None
    engines: list[Configuration] = []
    if named != []:
        backend_device = None if device == "cpu" else device
        engines = configurations.engine_configurations(
            bundle, named, precisions, backend_device, request.pythons
        )
    if quick and request.backends is None and precisions is None:
        torch = [e for e in torch if e == torch[0] or e.backend == "channels_last"]
        torch = [e for e in torch if e == torch[0] or e.precision != "fp32"]
        engines = [each for each in engines if each.precision == "fp32"]
    default = [DEFAULT] if "default" in requested else []
    # Where memory is short, neighbors share a run: the default belongs beside PyTorch.
    found = [*torch, *default, *engines] if torch else [*engines, *default]
    if not found:
        raise InvalidInputError(
            f"{bundle.folder}: PyTorch needs the checkpoint of the bundle; name it with "
            "--checkpoint"
        )
    return found
