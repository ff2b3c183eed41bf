"""What `sr-upscale` does with videos and with frames from a pipe."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_deploy.cli import console, worklist
from sr_deploy.errors import BackendMissingError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_deploy.cli.worklist import WorkItem
    from sr_deploy.engine import Engine
    from sr_deploy.video.transcode import Coding, Cut, State, TranscodeResult

    OpenEngine = Callable[[], Engine]

PIPE = "-"
_CROP = re.compile(r"(\d+)x(\d+)\+(\d+)\+(\d+)")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")
_REDRAW_SECONDS = 0.2
_JSON_SECONDS = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said of videos."""
    cut = parser.add_argument_group("which part of a video")
    cut.add_argument(
        "--start", type=seconds, metavar="TIME", help="from here (90, 1:30, 0:01:30.5)"
    )
    cut.add_argument("--end", type=seconds, metavar="TIME", help="up to here")
    cut.add_argument("--every", type=int, default=1, metavar="N", help="one frame of N")
    cut.add_argument("--crop", type=crop, metavar="WxH+X+Y", help="this part of every frame")
    cut.add_argument(
        "--deinterlace", action="store_true", help="make frames of interlaced video's fields"
    )
    coding = parser.add_argument_group("how a video is written (default: as the source is)")
    coding.add_argument(
        "--encoder",
        metavar="NAME",
        help="h264, hevc, av1, prores or ffv1, or FFmpeg's name of any (hevc_nvenc)",
    )
    coding.add_argument("--preset", metavar="NAME", help="of the encoder: its speed")
    coding.add_argument(
        "--pixel-format", metavar="NAME", help="yuv420p, yuv444p10le, ... (default: the source's)"
    )
    coding.add_argument(
        "--encoder-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any other option of the encoder; again for more",
    )
    coding.add_argument(
        "--drop",
        metavar="KIND",
        action="append",
        default=[],
        help="leave out what the container of the output cannot hold: audio, video, subtitle, "
        "data, attachment or all; again for more",
    )
    coding.add_argument(
        "--hardware", metavar="NAME", help="decode on a device: cuda, vaapi, qsv, videotoolbox"
    )
    coding.add_argument(
        "--raw",
        metavar="WxH:FORMAT",
        help="what raw frames from a pipe are, such as 480x270:rgb24 (default: Y4M says it)",
    )


def seconds(text: str) -> float:
    """Return a time as a user writes it, in seconds.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write seconds or [H:]M:S")
    hours, minutes, rest = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def crop(text: str) -> tuple[int, int, int, int]:
    """Return a part of a frame: left, top, width and height.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = _CROP.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no part of a frame; write WIDTHxHEIGHT+LEFT+TOP in pixels"
        )
    width, height, left, top = map(int, match.groups())
    return left, top, width, height


def run(arguments: argparse.Namespace, open_engine: OpenEngine) -> int:
    """Upscale the videos that the arguments name; return the exit code."""
    if importlib.util.find_spec("av") is None:
        raise BackendMissingError("videos need the package av: pip install sr-deploy[video]")
    if arguments.output == PIPE:
        return _into_pipe(arguments, open_engine)
    if PIPE in arguments.inputs:
        raise InvalidInputError(
            "frames from a pipe go into a pipe; name - as the output, and let the program after it "
            "write the file (ffmpeg -i - OUTPUT)"
        )
    suffix = f".{arguments.format}" if arguments.format else None
    jobs = worklist.plan_videos(arguments.inputs, arguments.output, suffix)
    todo = worklist.remaining(jobs, overwrite=arguments.overwrite, resume=arguments.resume)
    if len(jobs) == 1 and not todo:
        console.say(f"{jobs[0].target}: is done already")
    code = 0
    with _quick_end(arguments), contextlib.ExitStack() as stack:
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
        _cut(arguments),
        _coding(arguments),
        tuple(arguments.drop),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
    start = time.monotonic()
    with _Line(job.source.name, as_json=arguments.json) as line:
        outcome = transcode(engine, task, line.show)
    _say(job, outcome, time.monotonic() - start, as_json=arguments.json)
    for each in outcome.damage:
        console.complain("sr-upscale", f"{job.source}: {each}")
    return 1 if outcome.damage else 0


def _into_pipe(arguments: argparse.Namespace, open_engine: OpenEngine) -> int:
    """Write upscaled frames to stdout, from stdin or from a file."""
    from sr_deploy.video import relay

    if len(arguments.inputs) > 1:
        raise InvalidInputError("only the frames of one input can be written into a pipe")
    if arguments.json:
        raise InvalidInputError("--json and frames cannot both go to stdout; leave out one")
    source = arguments.inputs[0]
    with open_engine() as engine:
        if source == PIPE:
            damage = relay.from_pipe(engine, sys.stdin.buffer, sys.stdout.buffer, arguments.raw)
        else:
            damage = relay.from_file(
                engine, Path(source), sys.stdout.buffer, _cut(arguments), arguments.pixel_format
            )
    for each in damage:
        console.complain("sr-upscale", f"{source}: {each}")
    return 1 if damage else 0


def _cut(arguments: argparse.Namespace) -> Cut:
    from sr_deploy.video.transcode import Cut

    return Cut(
        arguments.start,
        arguments.end,
        arguments.every,
        arguments.crop,
        arguments.deinterlace,
        arguments.hardware,
    )


def _coding(arguments: argparse.Namespace) -> Coding:
    from sr_deploy.video.transcode import Coding

    pairs = [each.partition("=") for each in arguments.encoder_option]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise InvalidInputError(f"--encoder-option must be KEY=VALUE, found {key!r}")
    return Coding(
        arguments.encoder,
        arguments.quality,
        arguments.preset,
        arguments.pixel_format,
        {key: value for key, _, value in pairs},
    )


def _say(job: WorkItem, outcome: TranscodeResult, taken: float, *, as_json: bool) -> None:
    width, height = outcome.size
    if as_json:
        line: dict[str, Any] = {"input": str(job.source), "output": str(job.target)}
        line |= {"width": width, "height": height, "frames": outcome.frames}
        line |= {"seconds": round(taken, 3), "damage": outcome.damage, "notes": outcome.notes}
        console.say_json(line)
        return
    console.say(
        f"{job.target}: {outcome.frames} frames of {width}x{height}, {console.clock(taken)}"
    )
    for note in outcome.notes:
        console.say(f"  {note}")


class _Line:
    """The one line that says how far a video is."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._name = name
        self._as_json = as_json
        self._progress = console.Progress()
        self._start = time.monotonic()
        self._shown = 0.0

    def __enter__(self) -> _Line:
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def show(self, state: State) -> None:
        """Show a state, now and then."""
        now = time.monotonic()
        if now - self._shown < (_JSON_SECONDS if self._as_json else _REDRAW_SECONDS):
            return
        self._shown = now
        rate = (state.frames - state.before) / max(now - self._start, 1e-9)
        left = None if state.total is None else max(0, state.total - state.frames) / rate
        if self._as_json:
            console.say_json(
                {
                    "frames": state.frames,
                    "total": state.total,
                    "rate": round(rate, 3),
                    "seconds_left": None if left is None else round(left, 1),
                    "slowest": state.slowest,
                }
            )
            return
        total = "" if state.total is None else f"/{state.total}"
        until = "" if left is None else f"  {console.clock(left)} left"
        self._progress.stage(
            f"{self._name}  {state.frames}{total} frames  {rate:.2f}/s{until}  "
            f"{state.slowest} is slowest"
        )


@contextlib.contextmanager
def _quick_end(arguments: argparse.Namespace) -> Iterator[None]:
    """End at once on Ctrl-C: what is finished of a video is safe at any instant.

    Waiting for the frame that is being computed could take many seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        console.complain(
            "sr-upscale",
            "interrupted; what is done is kept. The same command with --resume goes on "
            f"from there, with --overwrite begins again ({arguments.output})",
        )
        os._exit(128 + number)

    before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
