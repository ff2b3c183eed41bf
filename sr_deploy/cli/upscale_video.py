"""`sr-upscale` for videos and for frames from a pipe."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_deploy.cli import console, worklist
from sr_deploy.errors import BackendMissingError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_deploy.cli.worklist import WorkItem
    from sr_deploy.engine import Engine
    from sr_deploy.video.encode import EncoderOptions
    from sr_deploy.video.source import FrameSelection
    from sr_deploy.video.transcode import TranscodeProgress, TranscodeResult

    OpenEngine = Callable[[], Engine]

PIPE = "-"
_CROP = re.compile(r"(\d+)x(\d+)\+(\d+)\+(\d+)")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")
_REDRAW_SECONDS = 0.2
_JSON_SECONDS = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for videos."""
    selection = parser.add_argument_group("part of a video")
    selection.add_argument(
        "--start", type=seconds, metavar="TIME", help="start time (90, 1:30, 0:01:30.5)"
    )
    selection.add_argument("--end", type=seconds, metavar="TIME", help="end time")
    selection.add_argument("--every", type=int, default=1, metavar="N", help="one frame of N")
    selection.add_argument("--crop", type=crop, metavar="WxH+X+Y", help="part of every frame")
    selection.add_argument(
        "--deinterlace", action="store_true", help="deinterlace an interlaced video"
    )
    coding = parser.add_argument_group("encoding of a video (default: like the source)")
    coding.add_argument(
        "--encoder",
        metavar="NAME",
        help="h264, hevc, av1, prores or ffv1, or FFmpeg's name of any encoder (hevc_nvenc)",
    )
    coding.add_argument("--preset", metavar="NAME", help="the encoder's preset for its speed")
    coding.add_argument(
        "--pixel-format", metavar="NAME", help="yuv420p, yuv444p10le, ... (default: the source's)"
    )
    coding.add_argument(
        "--encoder-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another option of the encoder; can be repeated",
    )
    coding.add_argument(
        "--drop",
        metavar="KIND",
        action="append",
        default=[],
        help="drop streams that the output's container cannot hold: audio, video, subtitle, data, "
        "attachment or all; can be repeated",
    )
    coding.add_argument(
        "--hardware", metavar="NAME", help="device for decoding: cuda, vaapi, qsv, videotoolbox"
    )
    coding.add_argument(
        "--raw",
        metavar="WxH:FORMAT",
        help="format of raw frames from a pipe, such as 480x270:rgb24 (default: Y4M)",
    )


def seconds(text: str) -> float:
    """Return a time in seconds from the user's text.

    Raises:
        ArgumentTypeError: The text is no time.
    """
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write seconds or [H:]M:S")
    hours, minutes, rest = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def crop(text: str) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a part of a frame from the user's text.

    Raises:
        ArgumentTypeError: The text is no such part.
    """
    match = _CROP.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no part of a frame; write WIDTHxHEIGHT+LEFT+TOP in pixels"
        )
    width, height, left, top = map(int, match.groups())
    return left, top, width, height


def run(arguments: argparse.Namespace, open_engine: OpenEngine) -> int:
    """Upscale the videos of the arguments; return the exit code."""
    if importlib.util.find_spec("av") is None:
        raise BackendMissingError("videos need the package av: pip install sr-deploy[video]")
    if arguments.output == PIPE:
        return _into_pipe(arguments, open_engine)
    if PIPE in arguments.inputs:
        raise InvalidInputError(
            "frames from a pipe go into a pipe; use - as the output, and let the program after it "
            "write the file (ffmpeg -i - OUTPUT)"
        )
    suffix = f".{arguments.format}" if arguments.format else None
    jobs = worklist.plan_videos(arguments.inputs, arguments.output, suffix)
    todo = worklist.remaining(jobs, overwrite=arguments.overwrite, resume=arguments.resume)
    if len(jobs) == 1 and not todo:
        console.say(f"{jobs[0].target}: already complete")
    code = 0
    with _exit_at_once(arguments), contextlib.ExitStack() as stack:
        engine = stack.enter_context(open_engine()) if todo else None
        for job in todo:
            assert engine is not None
            code = max(code, _transcode(engine, job, arguments))
    return code


def _transcode(engine: Engine, job: WorkItem, arguments: argparse.Namespace) -> int:
    from sr_deploy.video.transcode import TranscodeTask, transcode

    task = TranscodeTask(
        job.source,
        job.target,
        Path(arguments.bundle),
        _selection(arguments),
        _encoder_options(arguments),
        tuple(arguments.drop),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
    start = time.monotonic()
    with _ProgressLine(job.source.name, as_json=arguments.json) as line:
        result = transcode(engine, task, line.show)
    _print_result(job, result, time.monotonic() - start, as_json=arguments.json)
    for problem in result.damage:
        console.complain("sr-upscale", f"{job.source}: {problem}")
    return 1 if result.damage else 0


def _into_pipe(arguments: argparse.Namespace, open_engine: OpenEngine) -> int:
    """Write upscaled frames to stdout, from stdin or from a file."""
    from sr_deploy.video import pipes

    if len(arguments.inputs) > 1:
        raise InvalidInputError("a pipe takes the frames of one input only")
    if arguments.json:
        raise InvalidInputError("--json and frames cannot both go to stdout; leave out one")
    source = arguments.inputs[0]
    with open_engine() as engine:
        if source == PIPE:
            stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
            damage = pipes.upscale_pipe(engine, stdin, stdout, arguments.raw)
        else:
            damage = pipes.upscale_to_pipe(
                engine,
                Path(source),
                sys.stdout.buffer,
                _selection(arguments),
                arguments.pixel_format,
            )
    for problem in damage:
        console.complain("sr-upscale", f"{source}: {problem}")
    return 1 if damage else 0


def _selection(arguments: argparse.Namespace) -> FrameSelection:
    from sr_deploy.video.source import FrameSelection

    return FrameSelection(
        arguments.start,
        arguments.end,
        arguments.every,
        arguments.crop,
        arguments.deinterlace,
        arguments.hardware,
    )


def _encoder_options(arguments: argparse.Namespace) -> EncoderOptions:
    from sr_deploy.video.encode import EncoderOptions

    pairs = [each.partition("=") for each in arguments.encoder_option]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise InvalidInputError(f"--encoder-option must be KEY=VALUE, found {key!r}")
    return EncoderOptions(
        arguments.encoder,
        arguments.quality,
        arguments.preset,
        arguments.pixel_format,
        {key: value for key, _, value in pairs},
    )


def _print_result(job: WorkItem, result: TranscodeResult, taken: float, *, as_json: bool) -> None:
    width, height = result.size
    if as_json:
        line: dict[str, Any] = {"input": str(job.source), "output": str(job.target)}
        line |= {"width": width, "height": height, "frames": result.frames}
        line |= {"seconds": round(taken, 3), "damage": result.damage, "notes": result.notes}
        console.say_json(line)
        return
    console.say(f"{job.target}: {result.frames} frames of {width}x{height}, {console.clock(taken)}")
    for note in result.notes:
        console.say(f"  {note}")


class _ProgressLine:
    """Progress of one video: a line that is redrawn on a terminal, or lines of JSON; never both."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._name = name
        self._start = time.monotonic()
        self._shown = 0.0
        self._line = None if as_json else console.Progress()

    def __enter__(self) -> _ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.__exit__()

    def show(self, progress: TranscodeProgress) -> None:
        """Show the progress, unless it was shown just before."""
        now = time.monotonic()
        if now - self._shown < (_JSON_SECONDS if self._line is None else _REDRAW_SECONDS):
            return
        self._shown = now
        frames, total = progress.frames, progress.total
        rate = (frames - progress.before) / max(now - self._start, 1e-9)
        left = None if total is None else max(0, total - frames) / rate
        if self._line is None:
            console.say_json(
                {
                    "frames": frames,
                    "total": total,
                    "rate": round(rate, 3),
                    "seconds_left": None if left is None else round(left, 1),
                    "slowest": progress.slowest,
                }
            )
            return
        of = "" if total is None else f"/{total}"
        until = "" if left is None else f"  {console.clock(left)} left"
        self._line.stage(
            f"{self._name}  {frames}{of} frames  {rate:.2f}/s{until}  "
            f"bottleneck: {progress.slowest}"
        )


@contextlib.contextmanager
def _exit_at_once(arguments: argparse.Namespace) -> Iterator[None]:
    """Exit at once on Ctrl-C: finished segments of a video are safe at any instant.

    Waiting for the current frame could take many seconds.
    """

    def end(number: int) -> None:
        console.complain(
            "sr-upscale",
            "interrupted; finished segments are kept. Repeat the command with --resume to "
            f"continue, or with --overwrite to begin again ({arguments.output})",
        )
        os._exit(128 + number)

    with console.on_signals(("SIGINT", "SIGTERM", "SIGHUP"), end):
        yield
