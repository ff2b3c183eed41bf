"""`sr-upscale`: images and folders of images, upscaled by a bundle."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from sr_deploy import console, memory, worklist
from sr_deploy.engine import Engine, Spec
from sr_deploy.errors import InvalidInputError
from sr_deploy.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sr_deploy.pipeline import Outcome
    from sr_deploy.worklist import Job

_DESCRIPTION = """\
Upscale images with a bundle that sr-export made.

One image becomes the file OUTPUT. Several images, and folders with all that is in them, go into
the folder OUTPUT under their own names. PNG, JPEG, WebP, TIFF and BMP are read and written; the
names say which. Gray stays gray, transparency is upscaled too, 16 bits stay 16 bits in PNG and
TIFF. Colour profile, EXIF and resolution are kept, and the orientation of EXIF is applied.

Inputs are never overwritten. A file is written whole or not at all, so what is there is done."""

_EXAMPLES = """\
examples:
  sr-upscale net.srd photo.jpg big.png          one image, into another format
  sr-upscale net.srd a.png b.png big/           several, into a folder
  sr-upscale net.srd photos big                 a folder with its sub-folders
  sr-upscale net.srd photos big --resume        go on where it was stopped
  sr-upscale net.srd photos big --format webp --quality 90
  sr-upscale net.srd huge.tif big.tif --memory 8GiB

exit codes: 0 all done, 1 something failed (the other images are done), 2 wrong usage."""

_FORMATS = ("png", "jpg", "webp", "tif", "bmp")
# With several images, this part of the memory is for those that wait while one is upscaled.
_WAITING_SHARE = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-upscale`."""
    return console.run(_parser(), _command, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sr-upscale",
        usage="%(prog)s [options] BUNDLE INPUT [INPUT ...] OUTPUT",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the folder that sr-export made, NAME.srd")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="an image, or a folder of them")
    parser.add_argument("output", metavar="OUTPUT", help="an image file, or a folder to write into")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--format", choices=_FORMATS, help="write this into the folder (default: as the input is)"
    )
    files.add_argument(
        "--quality",
        type=int,
        default=95,
        help="of JPEG and WebP, 1 to 100; WebP is lossless at 100 (default: 95)",
    )
    there = files.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="leave outputs that are there already")
    there.add_argument("--overwrite", action="store_true", help="replace them")
    _add_engine_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON per image, and one at the end"
    )
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("how it is run (default: the best that this machine has)")
    engine.add_argument(
        "--backend", default="auto", help="what runs the network; sr-doctor lists what is there"
    )
    engine.add_argument(
        "--precision",
        default="auto",
        help="fp32, fp16, bf16 or int8, for 8-bit images (default: the fastest in the bundle, "
        "where each was measured and holds its budget)",
    )
    engine.add_argument("--device", help="which one, where the backend knows several")
    engine.add_argument("--threads", type=int, help="processor threads (default: the real cores)")
    engine.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the whole command may take, such as 2GiB (default: a quarter of what is free)",
    )
    engine.add_argument(
        "--tile",
        type=_tile,
        metavar="N or HxW",
        help="cut images into tiles of this size (default: as large as memory allows)",
    )


def _tile(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither N nor HxW in pixels") from None


def _command(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.quality <= 100:
        raise InvalidInputError(f"--quality must be from 1 to 100, found {arguments.quality}")
    start = time.monotonic()
    suffix = f".{arguments.format}" if arguments.format else None
    with _log_shown(debug=arguments.debug):
        jobs = worklist.plan(arguments.inputs, arguments.output, suffix)
        todo = worklist.remaining(jobs, overwrite=arguments.overwrite, resume=arguments.resume)
        report = _Report(len(jobs), len(jobs) - len(todo), as_json=arguments.json)
        if todo:
            with console.Progress(len(todo), "images") as progress:
                for outcome in _outcomes(arguments, todo, report, progress):
                    progress.step(outcome.job.source.name)
                    report.add(outcome)
    return report.finish(time.monotonic() - start)


def _outcomes(
    arguments: argparse.Namespace,
    todo: Sequence[Job],
    report: _Report,
    progress: console.Progress,
) -> Iterator[Outcome]:
    progress.stage("loading the network")
    with Engine(
        arguments.bundle,
        backend=arguments.backend,
        precision=arguments.precision,
        device=arguments.device,
        threads=arguments.threads,
        memory=arguments.memory,
        tile=arguments.tile,
    ) as engine:
        report.run_by(engine.spec)
        progress.stage(f"upscaling {todo[0].source.name}")
        yield from Pipeline(
            engine,
            scale=engine.spec.scale,
            available=engine.spec.memory - memory.resident(),
            room=engine.spec.memory // _WAITING_SHARE if len(todo) > 1 else 0,
            quality=arguments.quality,
        ).run(todo)


class _Report:
    """Says what was done: to people at the end, to programs image by image."""

    def __init__(self, total: int, skipped: int, *, as_json: bool) -> None:
        self._total = total
        self._skipped = skipped
        self._as_json = as_json
        self._done = 0
        self._failed: list[Outcome] = []
        self._only = ""
        self._run_by: dict[str, object] = {}

    def run_by(self, spec: Spec) -> None:
        """Take note of what runs the network."""
        names = ("scale", "backend", "precision", "device")
        self._run_by = {name: getattr(spec, name) for name in names}

    def add(self, outcome: Outcome) -> None:
        """Take note of what became of an image."""
        line: dict[str, object] = {"input": str(outcome.job.source)}
        if outcome.error:
            self._failed.append(outcome)
            line["error"] = _reason(outcome)
        else:
            self._done += 1
            height, width = outcome.size
            line |= {"output": str(outcome.job.target), "width": width, "height": height}
            self._only = f"{outcome.job.target}: {width}x{height}"
        if self._as_json:
            _print_json(line | {"seconds": round(outcome.seconds, 3)})

    def finish(self, seconds: float) -> int:
        """Report the whole; return the exit code."""
        if self._as_json:
            counts = {"done": self._done, "failed": len(self._failed), "skipped": self._skipped}
            _print_json(counts | {"seconds": round(seconds, 3)} | self._run_by)
        for outcome in self._failed:
            console.complain("sr-upscale", _reason(outcome))
        if not self._as_json and (self._total > 1 or not self._failed):
            console.say(self._summary(seconds))
        return 1 if self._failed else 0

    def _summary(self, seconds: float) -> str:
        if self._total == 1 and self._done:
            return f"{self._only} in {console.clock(seconds)}"
        parts = [f"{self._done} images upscaled in {console.clock(seconds)}"]
        parts += [f"{self._skipped} done before"] if self._skipped else []
        parts += [f"{len(self._failed)} failed"] if self._failed else []
        return ", ".join(parts)


def _reason(outcome: Outcome) -> str:
    """Return what went wrong, with the name of the image."""
    assert outcome.error is not None
    text, name = console.describe(outcome.error), str(outcome.job.source)
    return text if name in text else f"{name}: {text}"


def _print_json(line: dict[str, Any]) -> None:
    console.say(json.dumps(line))
    sys.stdout.flush()


@contextlib.contextmanager
def _log_shown(*, debug: bool) -> Iterator[None]:
    """Print the library's warnings; keep quiet about Pillow's, which name no file."""
    handler = _Complaints()
    logger = logging.getLogger("sr_deploy")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


class _Complaints(logging.Handler):
    """Prints log records as the command's own words, with the traceback where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        console.complain("sr-upscale", f"{record.levelname.lower()}: {self.format(record)}")
