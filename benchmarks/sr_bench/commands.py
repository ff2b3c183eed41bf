"""What each command of `sr-bench` does."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from sr_deploy import machine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.cli import console
from sr_deploy.errors import NotFoundError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from sr_bench.record_files import Record
    from sr_bench.records import Method
    from sr_export.report import Scene

_SIZES = ((256, 256), (480, 270))

# The imports are late, since --help needs none of them.


def speed(arguments: argparse.Namespace) -> int:
    """Measure speed."""
    from sr_bench import meters, running
    from sr_bench.records import SpeedOptions

    _check_targets(arguments)
    truth: Path | None = arguments.ground_truth
    options = SpeedOptions(
        threads=arguments.threads or machine.cores(),
        warm_up_seconds=arguments.warm_up,
        rounds=arguments.rounds,
        turn_seconds=arguments.turn,
        rest_seconds=arguments.rest,
        device=arguments.device or meters.default_device(),
        images=None if truth is None else truth.name,
    )
    wish = running.BenchRequest(
        backends=arguments.backends,
        precisions=arguments.precisions,
        sizes=list(dict.fromkeys(arguments.sizes or _SIZES)),
        batches=list(dict.fromkeys(arguments.batch)),
        forms=list(dict.fromkeys(arguments.forms)),
        pythons=dict(arguments.python),
        ground_truth=truth,
        low_resolution=arguments.low_resolution,
        with_ceilings=not arguments.no_ceilings,
    )
    with running.targets([*arguments.targets, *arguments.checkpoint]) as found:
        record = running.measure(found, wish, options)
    if not record.steady():
        console.complain(
            "sr-bench", "warning: the rounds disagree; measure again when nothing else is running"
        )
    return _finish(record, arguments)


def quality(arguments: argparse.Namespace) -> int:
    """Measure quality."""
    from sr_bench import environment, quality, record_files
    from sr_bench.records import Configuration, QualityRecord
    from sr_deploy.engine import Engine

    _check_targets(arguments)
    bundle = Bundle.open(arguments.bundle)
    bundle.manifest.model.require_images()
    scale = bundle.manifest.model.scale
    chosen = quality.pairs(arguments.ground_truth, arguments.low_resolution, scale)
    made_by = environment.current()
    scenes: list[Scene] = []
    with contextlib.ExitStack() as stack, console.Progress(len(chosen), "images") as progress:
        networks = {}
        # A page shows every precision beside FP32.
        first = ["fp32"] if arguments.html else []
        for precision in dict.fromkeys([*first, *arguments.precision]):
            engine = stack.enter_context(
                Engine(bundle.folder, backend=arguments.backend, precision=precision)
            )
            spec = engine.spec
            networks[Configuration("sr-deploy", spec.backend, spec.precision)] = engine.upscale
        keep = scenes if arguments.html else None
        measured = quality.measure(
            networks, chosen, scale, bundle.manifest.name, progress.step, keep
        )
    record = QualityRecord(
        schema=record_files.SCHEMA,
        kind="quality",
        setting=made_by,
        subject=environment.measured_model(bundle),
        images=arguments.name or arguments.ground_truth.name,
        low_resolution=arguments.low_resolution and arguments.low_resolution.name,
        methods=tuple(_with_statement(each, bundle) for each in measured),
    )
    return _finish(record, arguments, scenes)


def _with_statement(method: Method, bundle: Bundle) -> Method:
    """Return a bundle's row together with what its manifest says of that precision."""
    for each in bundle.manifest.variants:
        if (
            method.contender is not None
            and each.precision == method.contender.precision
            and each.quality is not None
        ):
            return dataclasses.replace(method, stated=each.quality.psnr)
    return method


def tune(arguments: argparse.Namespace) -> int:
    """Find what is fastest, and keep it in the bundle."""
    from sr_bench import tune

    wish = tune.TuneRequest(
        goal=arguments.goal,
        size=arguments.size,
        backend=arguments.backend,
        precision=arguments.precision,
        memory=arguments.memory,
        rounds=arguments.rounds,
        turn_seconds=arguments.turn,
    )
    bundle = Bundle.open(arguments.bundle)
    bundle.manifest.model.require_images()
    with console.Progress() as progress:
        search = tune.search(bundle, wish, progress)
    console.say(tune.text(search))
    if not arguments.dry_run:
        tune.keep(bundle, search)
        console.say(f"\nwritten to {bundle.folder / tune.NAME}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Say what changed."""
    from sr_bench import comparing, record_files

    before, after = (record_files.read_speed(path) for path in (arguments.before, arguments.after))
    changes = comparing.changes(before, after)
    limit: float | None = arguments.fail_over
    console.say(comparing.text(changes, limit))
    return int(limit is not None and any(each.slower_than(limit) for each in changes))


def merge(arguments: argparse.Namespace) -> int:
    """Join records."""
    from sr_bench import record_files

    _check_targets(arguments)
    joined = record_files.merged([record_files.read_speed(each) for each in arguments.records])
    return _finish(joined, arguments)


def show(arguments: argparse.Namespace) -> int:
    """Show a record."""
    from sr_bench import record_files

    arguments.json = None
    return _finish(record_files.read(arguments.record), arguments)


def report(arguments: argparse.Namespace) -> int:
    """Fill the documents, or check them."""
    from sr_bench import documents

    changed = documents.outdated(arguments.root)
    if not arguments.check:
        documents.update(changed)
    for path in changed:
        console.say(f"{path}: {'differs from the records' if arguments.check else 'updated'}")
    if not changed:
        console.say("the tables and charts are those of the records")
    return 1 if changed and arguments.check else 0


def _check_targets(arguments: argparse.Namespace) -> None:
    """Refuse, before minutes of measuring, files that could not be written."""
    for target in (arguments.json, arguments.html):
        if target is not None and not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: no such folder to write {target.name} into")


def _finish(
    record: Record, arguments: argparse.Namespace, scenes: list[Scene] | None = None
) -> int:
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
