"""`sr-upscale` for images: reading, upscaling and writing overlap, within the memory limit.

The next image is read and the previous one written while one is upscaled. An image that fails does
not stop the others. Where memory is short, one image is processed at a time.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from sr_deploy import images, machine
from sr_deploy.cli import console, worklist
from sr_deploy.errors import BackendError, InvalidInputError, OutOfMemoryError, SrDeployError
from sr_deploy.runtime.overlap import Overlap

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator, Sequence

    from sr_deploy.cli.worklist import WorkItem
    from sr_deploy.engine import Engine, Spec
    from sr_deploy.images import Picture
    from sr_deploy.images.picture import AnyPixels

_log = logging.getLogger(__name__)

_QUALITY = 95
# With several images, one part in so many of the memory is for those that wait.
_WAITING_SHARE = 4
# A disk in one of these states fails every image that follows.
_PERSISTENT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def run(arguments: argparse.Namespace, open_engine: Callable[[], Engine]) -> int:
    """Upscale the images that the arguments name; return the exit code."""
    quality = _image_quality(arguments.quality)
    start = time.monotonic()
    suffix = f".{arguments.format}" if arguments.format else None
    items = worklist.plan(arguments.inputs, arguments.output, suffix)
    todo = worklist.remaining(items, overwrite=arguments.overwrite, resume=arguments.resume)
    report = _Report(len(items), len(items) - len(todo), as_json=arguments.json)
    if todo:
        with console.Progress(len(todo), "images") as progress:
            progress.stage("loading the network")
            with open_engine() as engine:
                report.set_engine(engine.spec)
                progress.stage(f"upscaling {todo[0].source.name}")
                pipeline = Pipeline(
                    engine,
                    scale=engine.spec.scale,
                    available=engine.spec.memory - machine.resident_memory(),
                    shared=engine.spec.memory // _WAITING_SHARE if len(todo) > 1 else 0,
                    quality=quality,
                )
                for result in pipeline.run(todo):
                    progress.step(result.item.source.name)
                    report.add(result)
    return report.finish(time.monotonic() - start)


def _image_quality(quality: float | None) -> int:
    """Check --quality for JPEG and WebP.

    Raises:
        InvalidInputError: It is no whole number from 1 to 100.
    """
    if quality is None:
        return _QUALITY
    if not (1 <= quality <= 100 and quality == int(quality)):
        raise InvalidInputError(
            f"--quality of images must be a whole number from 1 to 100, found {quality:g}"
        )
    return int(quality)


class ImageUpscaler(Protocol):
    """The part of `Engine` that the pipeline calls."""

    def upscale(self, image: AnyPixels, /, *, reserve: int) -> AnyPixels:
        """Return the upscaled image; `reserve` is memory that others use meanwhile, in bytes."""


@dataclass(frozen=True)
class ImageResult:
    """The result of one image.

    Attributes:
        size: Height and width of the written image; zeros if there is none.
        seconds: Time spent on this image, without waiting for others.
    """

    item: WorkItem
    size: tuple[int, int]
    seconds: float
    error: Exception | None


@dataclass
class _Work:
    """One image in the pipeline; `picture` exists between reading and writing.

    Attributes:
        memory: Bytes acquired from the semaphore.
        encoding: The bytes of these that writing needs.
    """

    item: WorkItem
    picture: Picture | None = None
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: Exception | None = None
    memory: int = 0
    encoding: int = 0


class Pipeline:
    """Upscales image files.

    Args:
        upscaler: Runs the network.
        scale: Scale of the network.
        available: Bytes that the pixels of one image may take, input and output together.
        shared: Bytes that the pixels of all images in the pipeline may take together; an image
            that needs more is processed alone.
        quality: Of JPEG and WebP.
    """

    def __init__(
        self, upscaler: ImageUpscaler, *, scale: int, available: int, shared: int, quality: int
    ) -> None:
        self._upscaler = upscaler
        self._scale = scale
        self._available = available
        self._memory = _MemorySemaphore(shared)
        self._quality = quality

    def run(self, items: Sequence[WorkItem]) -> Generator[ImageResult, None, None]:
        """Yield the result of each item, in order.

        Raises:
            BackendError: The network failed; it would fail again.
            ImageError: The disk is full or read-only.
        """
        overlap = Overlap(
            map(self._read, items),
            self._upscale,
            in_flight=lambda _: 1,
            on_stop=self._memory.close,
        )
        for work in overlap.results():
            yield self._write(work)

    def _attempt(self, work: _Work, step: Callable[[_Work], None]) -> None:
        """Run a step unless an earlier one has failed; keep its error for the result."""
        if work.error is not None:
            return
        start = time.monotonic()
        try:
            step(work)
        except BackendError:
            raise
        except (SrDeployError, OSError, MemoryError) as error:
            if getattr(error.__cause__, "errno", None) in _PERSISTENT:
                raise
            _log.debug("%s failed", work.item.source, exc_info=True)
            work.error = _without_traceback(error)
            work.picture = None
        work.seconds += time.monotonic() - start

    def _read(self, item: WorkItem) -> _Work:
        work = _Work(item)
        self._attempt(work, self._measure)
        self._memory.acquire(work.memory)
        self._attempt(work, self._load)
        machine.trim_heap()
        return work

    def _measure(self, work: _Work) -> None:
        """Compute the memory that an image needs, from its header."""
        header = images.inspect(work.item.source)
        height, width = header.height * self._scale, header.width * self._scale
        images.check_fits(work.item.target, height, width)
        before, after = header.bytes, header.bytes * self._scale**2
        work.encoding = images.writing_memory(
            work.item.target, height * width, alpha=header.alpha, quality=self._quality
        )
        needed = max(before + after + work.encoding, before + header.decoding)
        if needed > self._available:
            expensive = work.encoding > before + after and work.item.target.suffix != ".png"
            encoding = f" ({machine.format_bytes(work.encoding)} to encode it; PNG needs less)"
            raise OutOfMemoryError(
                f"{work.item.source}: upscaling {header.width}x{header.height} pixels to "
                f"{width}x{height} needs {machine.format_bytes(needed)} besides the network; "
                f"--memory leaves {machine.format_bytes(max(0, self._available))}; raise it by "
                f"{machine.format_bytes(needed - self._available)}" + encoding * expensive
            )
        work.memory = needed

    def _load(self, work: _Work) -> None:
        work.picture = images.read(work.item.source)

    def _upscale(self, work: _Work) -> _Work:
        self._attempt(work, self._run_network)
        return work

    def _run_network(self, work: _Work) -> None:
        assert work.picture is not None
        others = max(0, self._memory.size - work.memory)
        pixels = self._upscaler.upscale(work.picture.pixels, reserve=work.encoding + others)
        work.picture = replace(work.picture, pixels=pixels)

    def _write(self, work: _Work) -> ImageResult:
        try:
            self._attempt(work, self._save)
        finally:
            work.picture = None
            machine.trim_heap()
            self._memory.release(work.memory)
        return ImageResult(work.item, work.size, work.seconds, work.error)

    def _save(self, work: _Work) -> None:
        assert work.picture is not None
        work.item.target.parent.mkdir(parents=True, exist_ok=True)
        images.write(work.item.target, work.picture, quality=self._quality)
        height, width = work.picture.pixels.shape[:2]
        work.size = (height, width)


def _without_traceback(error: Exception) -> Exception:
    """Return an error without its traceback, which would keep the pixels alive."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class _ClosedError(Exception):
    """The semaphore was closed: the pipeline ends before this image."""


class _MemorySemaphore:
    """Counts the bytes in use. A request that is too large waits until it is the only one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._holders = 0
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self, wanted: int) -> None:
        """Wait until enough bytes are free, and take them.

        Raises:
            _ClosedError: The semaphore was closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or wanted <= self._free or self._holders == 0
            )
            if self._closed:
                raise _ClosedError
            self._free -= wanted
            self._holders += 1

    def release(self, taken: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._free += taken
            self._holders -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Make every `acquire` fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Report:
    """Prints results: a summary at the end, or one line of JSON per image."""

    def __init__(self, total: int, skipped: int, *, as_json: bool) -> None:
        self._total = total
        self._skipped = skipped
        self._as_json = as_json
        self._done = 0
        self._failed: list[ImageResult] = []
        self._last = ""
        self._engine: dict[str, object] = {}

    def set_engine(self, spec: Spec) -> None:
        """Record what runs the network."""
        names = ("scale", "backend", "precision", "device")
        self._engine = {name: getattr(spec, name) for name in names}

    def add(self, result: ImageResult) -> None:
        """Record the result of an image."""
        line: dict[str, object] = {"input": str(result.item.source)}
        if result.error:
            self._failed.append(result)
            line["error"] = _message(result)
        else:
            self._done += 1
            height, width = result.size
            line |= {"output": str(result.item.target), "width": width, "height": height}
            self._last = f"{result.item.target}: {width}x{height}"
        if self._as_json:
            console.say_json(line | {"seconds": round(result.seconds, 3)})

    def finish(self, seconds: float) -> int:
        """Print the summary; return the exit code."""
        if self._as_json:
            counts = {"done": self._done, "failed": len(self._failed), "skipped": self._skipped}
            console.say_json(counts | {"seconds": round(seconds, 3)} | self._engine)
        for result in self._failed:
            console.complain("sr-upscale", _message(result))
        if not self._as_json and (self._total > 1 or not self._failed):
            console.say(self._summary(seconds))
        return 1 if self._failed else 0

    def _summary(self, seconds: float) -> str:
        if self._total == 1 and self._done:
            return f"{self._last} in {console.clock(seconds)}"
        plural = "" if self._done == 1 else "s"
        parts = [f"{self._done} image{plural} upscaled in {console.clock(seconds)}"]
        parts += [f"{self._skipped} already complete"] if self._skipped else []
        parts += [f"{len(self._failed)} failed"] if self._failed else []
        return ", ".join(parts)


def _message(result: ImageResult) -> str:
    """Return the error message with the name of the image."""
    assert result.error is not None
    text, name = console.describe(result.error), str(result.item.source)
    return text if name in text else f"{name}: {text}"
