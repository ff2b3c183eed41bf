"""`sr-bench BUNDLE`: what is measured, in which order, and the record of it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_bench import ceilings, contenders, environment, quality, record_files, speed
from sr_bench.jobs import DEFAULT, WorkerSpec
from sr_bench.records import ModelBenchmark, SpeedRecord
from sr_deploy import backends, machine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.cli.console import Progress
from sr_deploy.errors import ExportError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sr_bench.environment import Environment
    from sr_bench.records import Ceiling, Configuration, Mode, Run, Size, SpeedOptions

# A quarter of what is free, as the engine takes by default, and what an interpreter holds.
_SHARE_OF_FREE = 4
_INTERPRETER_BYTES = 256 << 20


@dataclass(frozen=True)
class BenchRequest:
    """What the user wants measured; None: all that can be."""

    backends: Sequence[str] | None
    precisions: Sequence[str] | None
    sizes: Sequence[Size]
    batches: Sequence[int]
    forms: Sequence[Mode]
    """Beside "upscale"."""
    pythons: Mapping[str, str]
    ground_truth: Path | None
    low_resolution: Path | None
    with_ceilings: bool


@contextlib.contextmanager
def targets(paths: Sequence[Path]) -> Iterator[list[tuple[Bundle, Path | None]]]:
    """Lend the bundles that are meant, each with its checkpoint, if that is known.

    A checkpoint that is named beside its bundle is the bundle's; one alone is exported, for as
    long as it is measured.

    Raises:
        NotFoundError: a path leads nowhere.
        BundleError, ExportError, InvalidInputError: it is no bundle, cannot be exported, or is
            not the checkpoint of the bundles that are named.
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
            found = [(each, contenders.checkpoint_of(each, checkpoints)) for each in bundles]
        else:
            found = [(_exported(path, Path(folder)), path) for path in checkpoints]
        yield found


def _exported(checkpoint: Path, folder: Path) -> Bundle:
    """Export a checkpoint in a process of its own, whose memory is gone afterwards."""
    target = folder / f"{checkpoint.stem}.srd"
    command = [sys.executable, "-m", "sr_export", str(checkpoint), "--output", str(target)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise ExportError(f"{checkpoint}: could not be exported: {said[0]}")
    bundle = Bundle.open(target)
    bundle.manifest.model.require_images()
    return bundle


def measure(
    found: Sequence[tuple[Bundle, Path | None]], wish: BenchRequest, options: SpeedOptions
) -> SpeedRecord:
    """Measure networks one after the other; see `speed.measure`."""
    made_by = environment.current()
    free = machine.free_memory()
    plans = [
        (bundle, plan)
        for bundle, checkpoint in found
        for plan in _plans(bundle, checkpoint, wish, options, free)
    ]
    limits: list[dict[str, Ceiling]] = []
    bouts: list[tuple[Bundle, Run]] = []
    turns = sum(len(plan.jobs) for _, plan in plans) * options.rounds
    with Progress(turns, "turns") as progress:
        _measure_ceilings(limits, wish, options, progress)
        for bundle, plan in plans:
            bouts += ((bundle, each) for each in speed.measure(plan, options, progress))
        _measure_ceilings(limits, wish, options, progress)
    return SpeedRecord(
        schema=record_files.SCHEMA,
        kind="speed",
        series=tuple(_series(bouts, made_by, options, ceilings.joined(*limits))),
    )


def _series(
    bouts: Sequence[tuple[Bundle, Run]],
    made_by: Environment,
    options: SpeedOptions,
    limits: dict[str, Ceiling],
) -> Iterator[ModelBenchmark]:
    for bundle, group in itertools.groupby(bouts, key=lambda pair: pair[0]):
        of_bundle = tuple(bout for _, bout in group)
        yield ModelBenchmark(
            made_by, environment.measured_model(bundle), options, of_bundle, limits
        )


def _measure_ceilings(
    limits: list[dict[str, Ceiling]], wish: BenchRequest, options: SpeedOptions, progress: Progress
) -> None:
    if wish.with_ceilings:
        progress.stage("measuring what the machine can do")
        limits.append(ceilings.measured(options.device, options.threads))


def _plans(
    bundle: Bundle, checkpoint: Path | None, wish: BenchRequest, options: SpeedOptions, free: int
) -> Iterator[speed.SizePlan]:
    """Yield what is measured of one bundle."""
    model = bundle.manifest.model
    rows = chosen(bundle, wish, options.device, with_torch=checkpoint is not None)
    jobs = [
        WorkerSpec(
            each,
            str(bundle.folder.resolve()),
            None if checkpoint is None else str(checkpoint.resolve()),
            options.threads,
            options.device,
            _INTERPRETER_BYTES + free // _SHARE_OF_FREE,
        )
        for each in rows
    ]
    truth = wish.ground_truth
    pairs = [] if truth is None else quality.pairs(truth, wish.low_resolution, model.scale)
    for size in wish.sizes:
        for batch in wish.batches:
            counted = ceilings.count(bundle, size, batch) if wish.with_ceilings else None
            yield speed.SizePlan(
                jobs=jobs,
                size=size,
                batch=batch,
                forms=wish.forms,
                pythons=wish.pythons,
                pairs=pairs,
                scale=model.scale,
                work=counted,
                needs=speed.needed(model, size, batch),
            )


def chosen(
    bundle: Bundle, wish: BenchRequest, device: str, *, with_torch: bool
) -> list[Configuration]:
    """Return the contenders, the baseline first.

    "torch" among the wished backends asks for PyTorch's rows, "default" for what `Engine` is with
    no argument; where no backends are wished, both come by themselves. Wished precisions hold for
    all but that and PyTorch as people run it, which stays the baseline.

    Raises:
        InvalidInputError: there are none, since PyTorch's rows need a checkpoint.
    """
    wished = wish.backends or ("torch", "default")
    rows: list[Configuration] = []
    if with_torch and "torch" in wished:
        baseline, *strong = contenders.torch(device)
        wanted = wish.precisions
        rows = [baseline, *(each for each in strong if wanted is None or each.precision in wanted)]
    named = [each for each in wished if each in backends.REGISTRY] if wish.backends else None
    engines: list[Configuration] = []
    if named != []:
        backend_device = None if device == "cpu" else device
        engines = contenders.engines(bundle, named, wish.precisions, backend_device, wish.pythons)
    default = [DEFAULT] if "default" in wished else []
    # Where memory is short, neighbours share a group: the default belongs beside PyTorch's rows.
    found = [*rows, *default, *engines] if rows else [*engines, *default]
    if not found:
        raise InvalidInputError(
            f"{bundle.folder}: PyTorch's rows need the checkpoint that the bundle was made from: "
            "name it with --checkpoint"
        )
    return found
