"""`sr-bench`: quality and speed of a bundle, and the documents' tables made from the records."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_bench import report
from sr_deploy import backends, console, machine
from sr_deploy.bundle import Bundle
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import sha256_of
from sr_deploy.manifest import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_bench.contenders import Job
    from sr_bench.records import Method, Record

_DESCRIPTION = """\
Measure a bundle: how good its pictures are, and how fast it is beside PyTorch. Figures can be kept
as records (JSON, with every sample and what it was measured on); the tables in the project's
documents are made from records alone."""

_EXAMPLES = """\
examples:
  sr-bench quality x2.srd --ground-truth set5/HR --low-resolution set5/LRx2
  sr-bench speed x2.srd --checkpoint net_g.pth --json speed.json
  sr-bench report --check                     are the documents' tables those of the records?
"""

_QUALITY = """\
PSNR and SSIM by the protocol of the field's tables: Y channel, as many border pixels left out as
the scale. Nearest, bilinear and bicubic are the rows to beat. On Set5's official files, bicubic
gives the published figures (x2: 33.66 dB, 0.9299; x4: 28.42 dB, 0.8104) within 0.05 dB."""

_QUALITY_EXAMPLES = """\
examples:
  sr-bench quality x2.srd --ground-truth photos
      the low-resolution images are made: antialiased bicubic, as in MATLAB
  sr-bench quality x2.srd --ground-truth set5/HR --low-resolution set5/LRx2
      baby.png is compared with what becomes of baby.png or babyx2.png
  sr-bench quality x2.srd --ground-truth photos --precision fp32 fp16 int8
      what each precision costs, against FP32 and against the ground truth
"""

_SPEED = """\
Time per frame, side by side: every contender has a process of its own with the same number of
threads, is warmed up, and then they take turns, round after round, so that a machine that drifts
hurts all alike. What is timed is frame in to frame out (height x width x channels, 8 bit), so that
pre- and post-processing count for all. Ratios are taken within each round."""

_SPEED_EXAMPLES = """\
examples:
  sr-bench speed x2.srd                       every backend and precision of this machine
  sr-bench speed x2.srd --checkpoint net.pth  and PyTorch: as people run it (the baseline), and its
                                              strong forms: channels_last, freed memory kept, BF16
  sr-bench speed x2.srd --backends openvino --precisions fp32 bf16 --sizes 1280x720
"""


_REPORT = """\
Make the tables in README.md and docs/*.md from the records in benchmarks/results. A document asks
for the table of NAME.json with two lines:

  <!-- table:NAME -->
  <!-- /table -->"""

_SIZES = ((256, 256), (480, 270))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-bench`."""
    return console.run(_parser(), lambda arguments: int(arguments.command(arguments)), argv)


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "sr-bench", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=plain
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, add_options, about, description, epilog in (
        ("quality", _quality, _quality_options, "PSNR and SSIM", _QUALITY, _QUALITY_EXAMPLES),
        ("speed", _speed, _speed_options, "time per frame", _SPEED, _SPEED_EXAMPLES),
        ("report", _report, _report_options, "make the documents' tables", _REPORT, None),
    ):
        command = commands.add_parser(
            name, help=about, description=description, epilog=epilog, formatter_class=plain
        )
        command.set_defaults(command=function)
        add_options(command.add_argument)
        # The option of all commands, which otherwise had to come before COMMAND.
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


def _quality_options(add: Callable[..., object]) -> None:
    add("bundle", type=Path, help="the bundle to measure")
    add("--ground-truth", type=Path, required=True, metavar="FOLDER", help="images at full size")
    add("--low-resolution", type=Path, metavar="FOLDER", help="their small versions, by name")
    add("--name", help="of the images, for the record (default: the folder's name)")
    add("--backend", default="auto", help="default: the best one here")
    add(
        "--precision",
        nargs="+",
        default=["auto"],
        choices=["auto", *get_args(Precision)],
        help="several are compared with FP32, too (default: the best one here)",
    )
    add("--json", type=Path, metavar="FILE", help="write the record")


def _speed_options(add: Callable[..., object]) -> None:
    sizes, seconds = {"type": _size, "metavar": "WIDTHxHEIGHT"}, {"type": _seconds, "metavar": "S"}
    add("bundle", type=Path, help="the bundle to measure")
    add("--checkpoint", type=Path, metavar="FILE", help="what it was made from, for PyTorch's rows")
    add("--backends", nargs="+", choices=[*backends.REGISTRY], help="default: all installed ones")
    add("--precisions", nargs="+", choices=get_args(Precision), help="default: all that run here")
    add("--sizes", nargs="+", **sizes, help="of the frames (default: 256x256 480x270)")
    add("--threads", type=_count, help="of each contender (default: the cores it may use)")
    add("--warm-up", **seconds, default=5.0, help="at each size, at least (default: %(default)s)")
    add("--rounds", type=_count, default=10, help="turns of each contender (default: %(default)s)")
    add("--turn", **seconds, default=1.0, help="seconds of a turn (default: %(default)s)")
    add("--rest", **seconds, default=0.1, help="seconds between turns (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the record")


def _report_options(add: Callable[..., object]) -> None:
    add("--check", action="store_true", help="only say whether they differ; exit code 1 if so")
    add("--root", type=Path, default=Path(), metavar="FOLDER", help="the checkout (default: here)")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) * int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 480x270")
    return int(width), int(height)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def _quality(arguments: argparse.Namespace) -> int:
    # Late, since --help needs no engine.
    from sr_bench import quality, records, setting
    from sr_deploy.engine import Engine

    _check_target(arguments.json)
    bundle = Bundle.open(arguments.bundle)
    scale = bundle.manifest.model.scale
    chosen = quality.pairs(arguments.ground_truth, arguments.low_resolution, scale)
    made_by = setting.current()
    with contextlib.ExitStack() as stack, console.Progress(len(chosen), "images") as progress:
        networks = {}
        for precision in dict.fromkeys(arguments.precision):
            engine = stack.enter_context(
                Engine(bundle.folder, backend=arguments.backend, precision=precision)
            )
            spec = engine.spec
            networks[records.Contender("sr-deploy", spec.backend, spec.precision)] = engine.upscale
        measured = quality.measure(networks, chosen, scale, bundle.manifest.name, progress.step)
    record = records.QualityRecord(
        schema=records.SCHEMA,
        kind="quality",
        setting=made_by,
        subject=setting.subject(bundle),
        images=arguments.name or arguments.ground_truth.name,
        low_resolution=arguments.low_resolution and arguments.low_resolution.name,
        methods=tuple(_with_statement(each, bundle) for each in measured),
    )
    return _finish(record, arguments.json)


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


def _speed(arguments: argparse.Namespace) -> int:
    from sr_bench import records, setting, speed

    _check_target(arguments.json)
    bundle = Bundle.open(arguments.bundle)
    sizes = list(dict.fromkeys(arguments.sizes or _SIZES))
    options = records.SpeedOptions(
        threads=arguments.threads or machine.cores(),
        warm_up_seconds=arguments.warm_up,
        rounds=arguments.rounds,
        turn_seconds=arguments.turn,
        rest_seconds=arguments.rest,
    )
    jobs = _jobs(arguments, bundle, options.threads)
    made_by = setting.current()
    with console.Progress(len(sizes) * options.rounds * len(jobs), "turns") as progress:
        timings = speed.measure(jobs, sizes, options, progress)
    record = records.SpeedRecord(
        schema=records.SCHEMA,
        kind="speed",
        setting=made_by,
        subject=setting.subject(bundle),
        options=options,
        timings=timings,
    )
    if not record.steady():
        console.complain(
            "sr-bench", "warning: the rounds disagree; measure again when nothing else is running"
        )
    return _finish(record, arguments.json)


def _jobs(arguments: argparse.Namespace, bundle: Bundle, threads: int) -> list[Job]:
    """Return what is compared, the baseline first."""
    from sr_bench import contenders

    checkpoint: Path | None = arguments.checkpoint
    chosen = contenders.engines(bundle, arguments.backends, arguments.precisions)
    if checkpoint is not None:
        _check_source(checkpoint, bundle)
        chosen = [*contenders.TORCH, *chosen]
    path = None if checkpoint is None else str(checkpoint)
    return [contenders.Job(each, str(bundle.folder), path, threads) for each in chosen]


def _check_source(checkpoint: Path, bundle: Bundle) -> None:
    if not checkpoint.is_file():
        raise NotFoundError(f"{checkpoint}: no such file")
    source = bundle.manifest.source
    if sha256_of(checkpoint) != source.sha256:
        raise InvalidInputError(
            f"{checkpoint}: not the file that {bundle.folder} was made from, which was called "
            f"{source.name} (SHA-256 {source.sha256[:12]}); rows of another network compare nothing"
        )


def _report(arguments: argparse.Namespace) -> int:
    changed = report.outdated(arguments.root)
    if not arguments.check:
        report.update(changed)
    for path in changed:
        console.say(f"{path}: {'differs from the records' if arguments.check else 'updated'}")
    if not changed:
        console.say("the tables are those of the records")
    return 1 if changed and arguments.check else 0


def _check_target(target: Path | None) -> None:
    """Refuse, before minutes of measuring, a record that could not be written."""
    if target is not None and not target.parent.is_dir():
        raise NotFoundError(f"{target.parent}: no such folder to write {target.name} into")


def _finish(record: Record, target: Path | None) -> int:
    from sr_bench import records

    console.say(report.text(record))
    if target is not None:
        records.write(target, record)
        console.say(f"\nwritten to {target}")
    return 0
