"""The commands of `sr-bench`.

Imports are late, since --help needs none of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from sr_deploy import machine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from sr_bench.record_files import Record
    from sr_bench.records import Method
    from sr_export.scene import Scene


def speed(arguments: argparse.Namespace) -> int:
    """Measure speed."""
    from sr_bench import meters
    from sr_bench import speed as benchmark
    from sr_bench.records import SpeedOptions

    _check_outputs(arguments)
    full: bool = arguments.full
    truth: Path | None = arguments.ground_truth

    def default(given: float | None, quick: float, else_: float) -> float:
        return given if given is not None else else_ if full else quick

    options = SpeedOptions(
        threads=arguments.threads or machine.cores(),
        warm_up_seconds=default(arguments.warm_up, 1.0, 3.0),
        rounds=int(default(arguments.rounds, 5, 10)),
        turn_seconds=default(arguments.seconds, 0.5, 1.0),
        rest_seconds=arguments.pause,
        device=arguments.device or meters.default_device(),
        images=None if truth is None else truth.name,
        quick=not full,
    )
    request = benchmark.BenchRequest(
        backends=arguments.backends,
        precisions=arguments.precisions,
        sizes=list(dict.fromkeys(arguments.sizes)) if arguments.sizes else None,
        batches=list(dict.fromkeys(arguments.batch)),
        modes=list(dict.fromkeys(arguments.modes)),
        pythons=dict(arguments.python),
        ground_truth=truth,
        low_resolution=arguments.low_resolution,
        with_ceilings=full if arguments.ceilings is None else arguments.ceilings,
    )
    with benchmark.opened_targets([*arguments.targets, *arguments.checkpoint]) as targets:
        record = benchmark.measure_models(targets, request, options)
    return _finish(record, arguments)


def quality(arguments: argparse.Namespace) -> int:
    """Measure quality."""
    from sr_bench import environment, quality, record_files
    from sr_bench.records import Configuration, QualityRecord
    from sr_deploy.engine import Engine

    _check_outputs(arguments)
    bundle = Bundle.open(arguments.bundle)
    bundle.manifest.model.require_images()
    scale = bundle.manifest.model.scale
    pairs = quality.pairs(arguments.ground_truth, arguments.low_resolution, scale)
    made_in = environment.current()
    scenes: list[Scene] = []
    with contextlib.ExitStack() as stack, console.Progress(len(pairs), "images") as progress:
        networks = {}
        # A page shows every precision beside FP32.
        first = ["fp32"] if arguments.html else []
        for precision in dict.fromkeys([*first, *arguments.precision]):
            engine = stack.enter_context(
                Engine(bundle.folder, backend=arguments.backend, precision=precision)
            )
            spec = engine.spec
            networks[Configuration("sr-deploy", spec.backend, spec.precision)] = engine.upscale
        measured = quality.measure(
            networks,
            pairs,
            scale,
            bundle.manifest.name,
            progress.step,
            scenes if arguments.html else None,
        )
    record = QualityRecord(
        schema=record_files.SCHEMA,
        kind="quality",
        setting=made_in,
        subject=environment.measured_model(bundle),
        images=arguments.name or arguments.ground_truth.name,
        low_resolution=arguments.low_resolution and arguments.low_resolution.name,
        methods=tuple(_with_manifest_psnr(each, bundle) for each in measured),
    )
    return _finish(record, arguments, scenes)


def _with_manifest_psnr(method: Method, bundle: Bundle) -> Method:
    """Return a method with the PSNR against FP32 that the manifest has for its precision."""
    for each in bundle.manifest.variants:
        if (
            method.contender is not None
            and each.precision == method.contender.precision
            and each.quality is not None
        ):
            return dataclasses.replace(method, stated=each.quality.psnr)
    return method


def verify(arguments: argparse.Namespace) -> int:
    """Compare the result of a bundle with that of another program."""
    from sr_deploy import images
    from sr_deploy.engine import Engine
    from sr_export.models.restoration import Expected

    pair = Expected(
        *(images.read(each).eight_bits() for each in (arguments.input, arguments.output))
    )
    with Engine(arguments.bundle, precision=arguments.precision, tuning=None) as engine:
        if pair.scale != engine.spec.scale:
            shapes = [each.shape[:2] for each in (pair.given, pair.result)]
            raise InvalidInputError(
                f"{arguments.output}: {shapes[1]} from {shapes[0]}, but the bundle upscales "
                f"{engine.spec.scale} times"
            )
        found = pair.difference(engine.upscale(pair.given))
    console.say(f"{arguments.bundle}: {'the same' if found.same else 'differs'}, by {found}")
    return 0 if found.same else 1


def tune(arguments: argparse.Namespace) -> int:
    """Find the fastest settings and write them into the bundle."""
    from sr_bench import tune

    request = tune.TuneRequest(
        goal=arguments.goal,
        size=arguments.size,
        backend=arguments.backend,
        precision=arguments.precision,
        memory=arguments.memory,
        rounds=arguments.rounds,
        turn_seconds=arguments.seconds,
    )
    bundle = Bundle.open(arguments.bundle)
    bundle.manifest.model.require_images()
    with console.Progress() as progress:
        search = tune.search(bundle, request, progress)
    console.say(tune.text(search))
    if not arguments.dry_run:
        tune.save(bundle, search)
        console.say(f"\nwritten to {bundle.folder / tune.NAME}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Show the changes between two records."""
    from sr_bench import compare, record_files

    before, after = (record_files.read_speed(e) for e in (arguments.before, arguments.after))
    changes = compare.changes(before, after)
    limit: float | None = arguments.fail_over
    console.say(compare.text(changes, limit))
    return int(limit is not None and any(each.slower_than(limit) for each in changes))


def merge(arguments: argparse.Namespace) -> int:
    """Join records."""
    from sr_bench import record_files

    _check_outputs(arguments)
    records = [record_files.read_speed(each) for each in arguments.records]
    return _finish(record_files.merged(records), arguments)


def show(arguments: argparse.Namespace) -> int:
    """Show a record."""
    from sr_bench import record_files

    arguments.json = None
    return _finish(record_files.read(arguments.record), arguments)


def report(arguments: argparse.Namespace) -> int:
    """Update or check the documents."""
    from sr_bench import documents

    changed = documents.outdated(arguments.root)
    if not arguments.check:
        documents.update(changed)
    for path in changed:
        console.say(f"{path}: {'differs from the records' if arguments.check else 'updated'}")
    if not changed:
        console.say("all tables and charts match the records")
    return 1 if changed and arguments.check else 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Raise for output files that cannot be written, before minutes of measuring."""
    for target in (arguments.json, arguments.html):
        if target is not None and not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: no such folder for {target.name}")


def _finish(
    record: Record, arguments: argparse.Namespace, scenes: list[Scene] | None = None
) -> int:
    """Print a record and write the requested files."""
    from sr_bench import page, quality_tables, record_files, tables
    from sr_bench.records import QualityRecord
    from sr_deploy.files import atomic_file

    if isinstance(record, QualityRecord):
        console.say(quality_tables.quality_text(record))
    else:
        console.say(tables.speed_text(record))
    if arguments.json is not None:
        record_files.write(arguments.json, record)
        console.say(f"\nwritten to {arguments.json}")
    if arguments.html is not None:
        with atomic_file(arguments.html) as temporary:
            temporary.write_text(page.page(record, scenes or []), encoding="utf-8")
        console.say(f"\nwritten to {arguments.html}")
    return 0
