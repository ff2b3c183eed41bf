"""What `sr-upscale` does with images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sr_deploy import machine
from sr_deploy.cli import console, worklist
from sr_deploy.cli.image_pipeline import Pipeline
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from sr_deploy.cli.image_pipeline import ImageResult
    from sr_deploy.cli.worklist import WorkItem
    from sr_deploy.engine import Engine, Spec

_QUALITY = 95
# With several images, this part of the memory is for those that wait while one is upscaled.
_WAITING_SHARE = 4


def run(arguments: argparse.Namespace, open_engine: Callable[[], Engine]) -> int:
    """Upscale the images that the arguments name; return the exit code."""
    quality = _checked_quality(arguments.quality)
    start = time.monotonic()
    suffix = f".{arguments.format}" if arguments.format else None
    jobs = worklist.plan(arguments.inputs, arguments.output, suffix)
    todo = worklist.remaining(jobs, overwrite=arguments.overwrite, resume=arguments.resume)
    report = _Report(len(jobs), len(jobs) - len(todo), as_json=arguments.json)
    if todo:
        with console.Progress(len(todo), "images") as progress:
            progress.stage("loading the network")
            with open_engine() as engine:
                report.run_by(engine.spec)
                progress.stage(f"upscaling {todo[0].source.name}")
                for outcome in _outcomes(engine, todo, quality):
                    progress.step(outcome.job.source.name)
                    report.add(outcome)
    return report.finish(time.monotonic() - start)


def _checked_quality(quality: float | None) -> int:
    """Return the quality of JPEG and WebP.

    Raises:
        InvalidInputError: it is none.
    """
    if quality is None:
        return _QUALITY
    if not (1 <= quality <= 100 and quality == int(quality)):
        raise InvalidInputError(
            f"--quality of images must be a whole number from 1 to 100, found {quality:g}"
        )
    return int(quality)


def _outcomes(engine: Engine, todo: Sequence[WorkItem], quality: int) -> Iterator[ImageResult]:
    return Pipeline(
        engine,
        scale=engine.spec.scale,
        available=engine.spec.memory - machine.resident_memory(),
        room=engine.spec.memory // _WAITING_SHARE if len(todo) > 1 else 0,
        quality=quality,
    ).run(todo)


class _Report:
    """Says what was done: to people at the end, to programs image by image."""

    def __init__(self, total: int, skipped: int, *, as_json: bool) -> None:
        self._total = total
        self._skipped = skipped
        self._as_json = as_json
        self._done = 0
        self._failed: list[ImageResult] = []
        self._only = ""
        self._run_by: dict[str, object] = {}

    def run_by(self, spec: Spec) -> None:
        """Take note of what runs the network."""
        names = ("scale", "backend", "precision", "device")
        self._run_by = {name: getattr(spec, name) for name in names}

    def add(self, outcome: ImageResult) -> None:
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
            console.say_json(line | {"seconds": round(outcome.seconds, 3)})

    def finish(self, seconds: float) -> int:
        """Report the whole; return the exit code."""
        if self._as_json:
            counts = {"done": self._done, "failed": len(self._failed), "skipped": self._skipped}
            console.say_json(counts | {"seconds": round(seconds, 3)} | self._run_by)
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


def _reason(outcome: ImageResult) -> str:
    """Return what went wrong, with the name of the image."""
    assert outcome.error is not None
    text, name = console.describe(outcome.error), str(outcome.job.source)
    return text if name in text else f"{name}: {text}"
