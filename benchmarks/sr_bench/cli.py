"""`sr-bench`: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable  # noqa: TC003  the table's type is made at run time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_bench import commands, help_texts
from sr_deploy import backends
from sr_deploy.bundle.manifest import Precision
from sr_deploy.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMS = ("network", "stream", "video")
_COMMANDS = ("speed", "quality", "tune", "compare", "merge", "show", "report")
_DEFAULT = "speed"
_ROOT_OPTIONS = ("-h", "--help", "--debug")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-bench`."""
    words = with_command(sys.argv[1:] if argv is None else argv)
    return console.run(_parser(), lambda arguments: int(arguments.command(arguments)), words)


def with_command(argv: Sequence[str]) -> list[str]:
    """Put the command's name first, which may be left out or written as an option.

    `sr-bench x.srd` is `sr-bench speed x.srd`, and `sr-bench --compare A B` is
    `sr-bench compare A B`.
    """
    words = list(argv)
    first = next((i for i, word in enumerate(words) if word not in _ROOT_OPTIONS), None)
    if first is None or words[first] in _COMMANDS:
        return words
    for i, word in enumerate(words):
        name = word.removeprefix("--")
        if word.startswith("--") and name in ("compare", "tune"):
            return [*words[:first], name, *words[first:i], *words[i + 1 :]]
    return [*words[:first], _DEFAULT, *words[first:]]


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "sr-bench",
        description=help_texts.DESCRIPTION,
        epilog=help_texts.EXAMPLES,
        formatter_class=plain,
        usage="sr-bench [COMMAND] ... [--help] [--debug]",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in _COMMANDS:
        function, add_options = _TABLE[name]
        about, description, epilog = help_texts.COMMANDS[name]
        command = subparsers.add_parser(
            name, help=about, description=description, epilog=epilog, formatter_class=plain
        )
        command.set_defaults(command=function)
        add_options(command.add_argument)
        # The option of all commands, which otherwise had to come before COMMAND.
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


def _speed_options(add: Callable[..., object]) -> None:
    seconds = {"type": _seconds, "metavar": "S"}
    rows = [*backends.REGISTRY, "torch", "default"]
    add("targets", nargs="+", type=Path, metavar="BUNDLE|CHECKPOINT", help="what to measure")
    add(
        "--checkpoint",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="what the bundles were made from, for PyTorch's rows (default: the file beside each)",
    )
    add("--backends", nargs="+", choices=rows, help=_BACKENDS)
    add("--precisions", nargs="+", choices=get_args(Precision), help="default: all that run here")
    add("--sizes", nargs="+", type=_size, metavar="WIDTHxHEIGHT", help="default: 256x256 480x270")
    add("--batch", nargs="+", type=_count, default=[1], metavar="N", help="frames of a call")
    add("--forms", nargs="+", choices=_FORMS, default=[], help="beside upscale; see below")
    add("--device", choices=("cpu", "cuda"), help="default: the GPU, if there is one")
    add("--python", nargs="+", type=_python, default=[], metavar="NAME=PATH", help=_PYTHON)
    add("--threads", type=_count, help="of each contender (default: the cores it may use)")
    add("--warm-up", **seconds, default=3.0, help="at each size, at least (default: %(default)s)")
    add("--rounds", type=_count, default=10, help="turns of each contender (default: %(default)s)")
    add("--turn", **seconds, default=1.0, help="seconds of a turn (default: %(default)s)")
    add("--rest", **seconds, default=0.1, help="seconds between turns (default: %(default)s)")
    add("--no-ceilings", action="store_true", help="spare the half minute of measuring limits")
    _truth_options(add, required=False)
    _output_options(add)


_BACKENDS = "default: all installed ones, PyTorch, and what Engine is by default"
_PYTHON = "the interpreter for torch or a backend, where it is another (torch=venv/bin/python)"


def _quality_options(add: Callable[..., object]) -> None:
    add("bundle", type=Path, help="the bundle to measure")
    _truth_options(add, required=True)
    add("--name", help="of the images, for the record (default: the folder's name)")
    add("--backend", default="auto", help="default: the best one here")
    add(
        "--precision",
        nargs="+",
        default=["auto"],
        choices=["auto", *get_args(Precision)],
        help="several are compared with FP32, too (default: the best one here)",
    )
    _output_options(add)


def _tune_options(add: Callable[..., object]) -> None:
    add("bundle", type=Path, help="the bundle to tune")
    add("--for", dest="goal", choices=("throughput", "latency"), default="throughput")
    add("--size", type=_size, default=(480, 270), metavar="WIDTHxHEIGHT", help="default: 480x270")
    add("--backend", default="auto", help="default: the best one here")
    add("--precision", default="auto", choices=["auto", *get_args(Precision)])
    add("--memory", metavar="SIZE", help="that the engine may take, such as 2GiB")
    add("--rounds", type=_count, default=7, help="turns of each choice (default: %(default)s)")
    add("--turn", type=_seconds, metavar="S", default=0.5, help="default: %(default)s seconds")
    add("--dry-run", action="store_true", help="only show what would be gained")


def _compare_options(add: Callable[..., object]) -> None:
    add("before", type=Path, help="a record")
    add("after", type=Path, help="another")
    add("--fail-over", type=_percent, metavar="PERCENT", help="exit code 1 if a row got so slow")


def _merge_options(add: Callable[..., object]) -> None:
    add("records", nargs="+", type=Path, metavar="RECORD", help="of speed")
    _output_options(add)


def _show_options(add: Callable[..., object]) -> None:
    add("record", type=Path, help="of speed or of quality")
    add("--html", type=Path, metavar="FILE", help="write a page with charts")


def _report_options(add: Callable[..., object]) -> None:
    add("--check", action="store_true", help="only say whether they differ; exit code 1 if so")
    add("--root", type=Path, default=Path(), metavar="FOLDER", help="the checkout (default: here)")


def _truth_options(add: Callable[..., object], *, required: bool) -> None:
    add("--ground-truth", type=Path, required=required, metavar="FOLDER", help=_TRUTH)
    add("--low-resolution", type=Path, metavar="FOLDER", help="their small versions, by name")


_TRUTH = "images at full size, that results are compared with"


def _output_options(add: Callable[..., object]) -> None:
    add("--json", type=Path, metavar="FILE", help="write the record")
    add("--html", type=Path, metavar="FILE", help="write a page with charts, that loads nothing")


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
            f"{text!r} is not NAME=PATH, where NAME is one of {', '.join(known)}"
        )
    return name, path


_TABLE: dict[
    str, tuple[Callable[[argparse.Namespace], int], Callable[[Callable[..., object]], None]]
] = {
    "speed": (commands.speed, _speed_options),
    "quality": (commands.quality, _quality_options),
    "tune": (commands.tune, _tune_options),
    "compare": (commands.compare, _compare_options),
    "merge": (commands.merge, _merge_options),
    "show": (commands.show, _show_options),
    "report": (commands.report, _report_options),
}
