"""`sr-bench`: the parser and its help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_bench import commands
from sr_deploy import backends
from sr_deploy.bundle.manifest import Precision
from sr_deploy.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = """\
Measure a bundle: its speed against PyTorch and against the limits of the machine, and its image
quality. Records (JSON, with all samples and the environment) can be kept, compared and shown as
tables, charts and pages.

Without a COMMAND, speed is measured: `sr-bench x.srd` is `sr-bench speed x.srd`. --compare and
--tune are short for the commands of these names."""

_EXAMPLES = """\
examples:
  sr-bench x2.srd                             quick: speed and memory against PyTorch
  sr-bench x2.srd --full                      all backends, precisions and sizes, with ceilings
  sr-bench net_g.pth --html speed.html        export a checkpoint, measure it, write a page
  sr-bench quality x2.srd --ground-truth set5/HR --low-resolution set5/LRx2
  sr-bench --tune x2.srd                      find the fastest settings for this machine
  sr-bench --compare old.json new.json --fail-over 5%
  sr-bench report --check                     do the documents match the records?
"""

_SPEED = """\
Time per frame of several configurations, interleaved. Each configuration has its own process with
the same number of threads and is warmed up until it is steady; then they are measured in turns,
round by round, so that drift of the machine affects all of them. The timed call includes pre- and
post-processing (height x width x channels, 8 bit). Speedups are taken within each round. Every call
has a different input, and the inputs exceed the caches.

PyTorch needs the checkpoint: the one that is named, or the file beside the bundle. Its common form
(eager, FP32) is the baseline; channels_last and compiled forms are measured as well.

By default the run is quick: one size, few configurations and rounds; records and pages say so. Use
--full for figures to publish. One call of each configuration is timed first, then the estimated
time is printed."""

_SPEED_EXAMPLES = """\
modes, measured besides frame in to frame out:
  network  the network alone: a direct call of the backend, or of PyTorch's module on tensors
  stream   consecutive frames, overlapped (Engine.stream)
  video    a whole video, with decoding and encoding

examples:
  sr-bench x2.srd                             quick run
  sr-bench x2.srd net.pth --full              everything; net.pth is the checkpoint of x2.srd
  sr-bench a.srd b.srd --json both.json       several models in one record
  sr-bench x2.srd --backends openvino --precisions fp32 bf16 --sizes 1280x720
  sr-bench x2.srd --backends torch default    Engine(bundle) against PyTorch only
  sr-bench x2.srd --modes network --backends openvino
      overhead of Engine.upscale over a direct call of its backend
  sr-bench x2.srd --python torch=other/bin/python
      PyTorch, or a backend, in another environment (which has numpy and Pillow)
"""

_QUALITY = """\
PSNR, SSIM and MSE by the usual protocol: Y channel (and RGB), with a border of `scale` pixels
excluded. Nearest, bilinear and bicubic interpolation are measured as references. On the official
files of Set5, bicubic reproduces the published figures (x2: 33.66 dB, 0.9299; x4: 28.42 dB, 0.8104)
within 0.05 dB."""

_QUALITY_EXAMPLES = """\
examples:
  sr-bench quality x2.srd --ground-truth photos
      low-resolution images are made by antialiased bicubic downscaling, as in MATLAB
  sr-bench quality x2.srd --ground-truth set5/HR --low-resolution set5/LRx2
      the low-resolution file of baby.png is baby.png or babyx2.png
  sr-bench quality x2.srd --ground-truth photos --precision fp32 fp16 int8 --html photos.html
      the loss of each precision against FP32 and the ground truth, with images side by side
"""

_TUNE = """\
Find the fastest tile size, batch of tiles, number of lanes and threads per lane on this machine,
within the memory budget. The result is written to the tuning record of the bundle for this device,
which the engine then uses. A setting is accepted only if its gain exceeds the noise."""

_TUNE_EXAMPLES = """\
examples:
  sr-bench --tune x2.srd                      highest throughput, for streams
  sr-bench --tune x2.srd --for latency        shortest time of one frame
  sr-bench tune x2.srd --size 1920x1080 --memory 2GiB --dry-run
"""

_COMPARE = """\
Show the changes from one speed record to another, with 95 % confidence intervals (bootstrap over
rounds). If both records have the same baseline, times are compared relative to it, so that a slower
machine is not reported as a change."""

_MERGE = """\
Join speed records, for example of several models, machines or interpreters. Speedups are never
taken across records."""

_REPORT = """\
Update the tables and charts in README.md and docs/ from the records in benchmarks/results. A
document requests them for NAME.json with two lines:

  <!-- table:NAME -->            or table:NAME:overhead, the overhead over the network
  <!-- /table -->

  <!-- chart:NAME:KIND -->       KIND: faster, latency, throughput, quality or stages
  <!-- /chart -->

  <!-- environment -->           the legends and the machine, once for all tables of the document
  <!-- /environment -->"""

_VERIFY = """\
Compare the result of a bundle with that of another program, such as the script that the network was
trained with. Exit status 1 if they differ by more than rounding: if over 0.5 % of the values differ
by more than 4 levels of 255, or all by more than 1.5 on average."""

_NAMES = ("speed", "quality", "verify", "tune", "compare", "merge", "show", "report")
_ROOT_OPTIONS = ("-h", "--help", "--debug", "--version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-bench`."""
    arguments = with_command(sys.argv[1:] if argv is None else argv)
    return console.run(_parser(), _run, arguments)


def _run(arguments: argparse.Namespace) -> int:
    console.require("bench", "sr-bench")
    return int(arguments.command(arguments))


def with_command(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the command first; it may be omitted or written as an option.

    `sr-bench x.srd` is `sr-bench speed x.srd`, and `sr-bench --compare A B` is
    `sr-bench compare A B`.
    """
    words = list(argv)
    first = next((i for i, word in enumerate(words) if word not in _ROOT_OPTIONS), None)
    if first is None or words[first] in _NAMES:
        return words
    for i, word in enumerate(words):
        if word in ("--compare", "--tune"):
            return [*words[:first], word[2:], *words[first:i], *words[i + 1 :]]
    return [*words[:first], "speed", *words[first:]]


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "sr-bench",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=plain,
        usage="sr-bench [COMMAND] ... [--help] [--debug]",
    )
    # With `prog`, the usage line of a command starts with the command.
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", prog="sr-bench")
    for name in _NAMES:
        function, add_options, about, description, epilog = _COMMANDS[name]
        command = subparsers.add_parser(
            name, help=about, description=description, epilog=epilog, formatter_class=plain
        )
        command.set_defaults(command=function)
        add_options(command.add_argument)
        # Accepted after the command as well as before it.
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


def _speed_options(add: Callable[..., object]) -> None:
    names = [*backends.REGISTRY, "torch", "default"]
    add("targets", nargs="+", type=Path, metavar="BUNDLE|CHECKPOINT", help="models to measure")
    add("--full", action="store_true", help="measure all configurations and sizes, more precisely")
    add("--checkpoint", nargs="+", type=Path, default=[], metavar="FILE", help=_CHECKPOINT)
    add("--backends", nargs="+", choices=names, help=_BACKENDS)
    add("--precisions", nargs="+", choices=get_args(Precision), help=_PRECISIONS)
    add("--sizes", nargs="+", type=_size, metavar="WIDTHxHEIGHT", help=_SIZES)
    add("--batch", nargs="+", type=_count, default=[1], metavar="N", help="frames per call")
    add("--modes", nargs="+", choices=("network", "stream", "video"), default=[], help=_MODES)
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    add("--python", nargs="+", type=_python, default=[], metavar="NAME=PATH", help=_PYTHON)
    add("--threads", type=_count, help="per configuration (default: the available cores)")
    add("--warm-up", type=_seconds, metavar="S", help="minimum seconds (default: 1; full: 3)")
    add("--rounds", type=_count, metavar="N", help="measured rounds (default: 5; full: 10)")
    add("--seconds", type=_seconds, metavar="S", help=_ROUND_SECONDS)
    add("--pause", type=_seconds, metavar="S", default=0.1, help=_PAUSE)
    add("--ceilings", action=argparse.BooleanOptionalAction, help=_CEILINGS)
    _truth_options(add, required=False)
    _output_options(add)


_CHECKPOINT = "checkpoints of the bundles, for PyTorch (default: the file beside each bundle)"
_ROUND_SECONDS = "per configuration and round (default: 0.5; full: 1)"
_PAUSE = "seconds before each measurement (default: %(default)s)"
_BACKENDS = "default: all installed ones, torch, and default (Engine without arguments)"
_PRECISIONS = "default: all that run here; quick: FP32 and the default"
_SIZES = "default: 480x270, or smaller for large networks; full: 256x256 480x270"
_MODES = "measured besides upscale; see below"
_PYTHON = "interpreter of torch or a backend in another environment (torch=venv/bin/python)"
_CEILINGS = "measure the best kernels of the machine, half a minute (default: with --full)"


def _quality_options(add: Callable[..., object]) -> None:
    add("bundle", type=Path, help="bundle to measure")
    _truth_options(add, required=True)
    add("--name", help="name of the image set in the record (default: name of the folder)")
    add("--backend", default="auto", help="default: the best one here")
    add("--precision", nargs="+", default=["auto"], choices=_AUTO_PRECISIONS, help=_SEVERAL)
    _output_options(add)


_AUTO_PRECISIONS = ("auto", *get_args(Precision))
_SEVERAL = "several are also compared with FP32 (default: the best one here)"


def _tune_options(add: Callable[..., object]) -> None:
    add("bundle", type=Path, help="bundle to tune")
    goals = ("throughput", "latency")
    add("--for", dest="goal", choices=goals, default=goals[0], help="goal (default: %(default)s)")
    add("--size", type=_size, default=(480, 270), metavar="WIDTHxHEIGHT", help="default: 480x270")
    add("--backend", default="auto", help="default: the best one here")
    add("--precision", default="auto", choices=_AUTO_PRECISIONS, help="default: the best one here")
    add("--memory", metavar="SIZE", help="memory budget of the engine, such as 2GiB")
    add("--rounds", type=_count, default=7, metavar="N", help="measured rounds (default: 7)")
    add("--seconds", type=_seconds, default=0.5, metavar="S", help="per round (default: 0.5)")
    add("--dry-run", action="store_true", help="show the result without writing it")


def _compare_options(add: Callable[..., object]) -> None:
    add("before", type=Path, help="speed record")
    add("after", type=Path, help="speed record")
    add("--fail-over", type=_percent, metavar="PERCENT", help="exit with 1 if slower by more")


def _verify_options(add: Callable[..., object]) -> None:
    add("bundle", type=Path, help="bundle")
    add("input", type=Path, help="image")
    add("output", type=Path, help="the other program's result for it, as PNG")
    add("--precision", choices=get_args(Precision), default="fp32", help="default: %(default)s")


def _merge_options(add: Callable[..., object]) -> None:
    add("records", nargs="+", type=Path, metavar="RECORD", help="speed records")
    _output_options(add)


def _show_options(add: Callable[..., object]) -> None:
    add("record", type=Path, help="speed or quality record")
    add("--html", type=Path, metavar="FILE", help="write a page with charts")


def _report_options(add: Callable[..., object]) -> None:
    add("--check", action="store_true", help="change nothing; exit with 1 if a document differs")
    add("--root", type=Path, default=Path(), metavar="FOLDER", help="checkout (default: here)")


def _truth_options(add: Callable[..., object], *, required: bool) -> None:
    add("--ground-truth", type=Path, required=required, metavar="FOLDER", help=_TRUTH)
    add("--low-resolution", type=Path, metavar="FOLDER", help="low-resolution images of these")


_TRUTH = "full-size images to compare results with"


def _output_options(add: Callable[..., object]) -> None:
    add("--json", type=Path, metavar="FILE", help="write the record")
    add("--html", type=Path, metavar="FILE", help="write a self-contained page with charts")


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
    value = _number(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def _percent(text: str) -> float:
    value = _number(text.removesuffix("%"))
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage, such as 5%")
    return value / 100


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _python(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    known = ("torch", *backends.REGISTRY)
    if name not in known or not path:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=PATH with NAME one of {', '.join(known)}"
        )
    return name, path


_Options = Callable[[Callable[..., object]], None]
_Command = tuple[Callable[[argparse.Namespace], int], _Options, str, str, str | None]
_SPEED_ABOUT = "time per frame against PyTorch (the default COMMAND)"
_SHOW = "Show the tables of a record, and write its page."
_COMMANDS: dict[str, _Command] = {
    "speed": (commands.speed, _speed_options, _SPEED_ABOUT, _SPEED, _SPEED_EXAMPLES),
    "quality": (commands.quality, _quality_options, "PSNR and SSIM", _QUALITY, _QUALITY_EXAMPLES),
    "tune": (commands.tune, _tune_options, "find the fastest settings", _TUNE, _TUNE_EXAMPLES),
    "compare": (commands.compare, _compare_options, "changes between records", _COMPARE, None),
    "verify": (commands.verify, _verify_options, "compare with another program", _VERIFY, None),
    "merge": (commands.merge, _merge_options, "join speed records", _MERGE, None),
    "show": (commands.show, _show_options, "tables or a page of a record", _SHOW, None),
    "report": (commands.report, _report_options, "update tables in documents", _REPORT, None),
}
