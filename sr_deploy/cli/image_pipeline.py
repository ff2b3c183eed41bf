"""Many images one after the other: the next is read and the last written while one is upscaled.

Every step of an image may fail without harm to the others. Pictures in flight are counted: where
the memory for them does not suffice for several, there is one at a time.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from sr_deploy import images, machine
from sr_deploy.errors import BackendError, OutOfMemoryError, SrDeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from concurrent.futures import Future

    from sr_deploy.cli.worklist import WorkItem
    from sr_deploy.images import Picture
    from sr_deploy.images.picture import AnyPixels

_log = logging.getLogger(__name__)

# A disk in this state fails every image that follows.
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class ImageUpscaler(Protocol):
    """What the pipeline needs of an Engine."""

    def upscale(self, image: AnyPixels, /, *, reserve: int) -> AnyPixels:
        """Return the image `scale` times as large, of the same kind.

        Args:
            image: as a Picture has it.
            reserve: bytes of the memory that may be used which others take meanwhile.
        """


@dataclass(frozen=True)
class ImageResult:
    """What became of one image."""

    job: WorkItem
    size: tuple[int, int]
    """Height and width of what was written; zeros where nothing was."""
    seconds: float
    """Time spent on this image; while it waited for others does not count."""
    error: Exception | None


@dataclass
class _Work:
    """One image on its way; `picture` is there between reading and writing."""

    job: WorkItem
    picture: Picture | None = None
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: Exception | None = None
    held: int = 0
    """Bytes taken from the room."""
    encoding: int = 0
    """Bytes of these that writing takes."""


class Pipeline:
    """Upscales image files.

    Args:
        upscaler: does the network's part; called from the caller's thread only.
        scale: how many times larger it makes an image.
        available: bytes that one image's pixels may take, before and after.
        room: bytes that the pixels of several images in flight may take together; an image that
            needs more goes alone.
        quality: of JPEG and WebP.
    """

    def __init__(
        self, upscaler: ImageUpscaler, *, scale: int, available: int, room: int, quality: int
    ) -> None:
        self._upscaler = upscaler
        self._scale = scale
        self._available = available
        self._room = _MemorySemaphore(room)
        self._quality = quality

    def run(self, jobs: Sequence[WorkItem]) -> Generator[ImageResult, None, None]:
        """Yield what became of each job, in order.

        Raises:
            BackendError: the network failed, as it would again.
            ImageError: the disk is full or read-only.
        """
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            try:
                reading = reader.submit(self._read, jobs[0])
                writing: Future[ImageResult] | None = None
                for following in [*jobs[1:], None]:
                    work = reading.result()
                    if following is not None:
                        reading = reader.submit(self._read, following)
                    self._attempt(work, self._upscale)
                    if writing is not None:
                        yield writing.result()
                    writing = writer.submit(self._write, work)
                    del work  # the picture is the writer's now
                assert writing is not None
                yield writing.result()
            finally:
                self._room.close()

    def _attempt(self, work: _Work, step: Callable[[_Work], None]) -> None:
        """Take a step unless an earlier one has failed; keep its error for the end."""
        if work.error is not None:
            return
        start = time.monotonic()
        try:
            step(work)
        except BackendError:
            raise
        except (SrDeployError, OSError, MemoryError) as error:
            if getattr(error.__cause__, "errno", None) in _HOPELESS:
                raise
            _log.debug("%s failed", work.job.source, exc_info=True)
            work.error = _bare(error)
            work.picture = None
        work.seconds += time.monotonic() - start

    def _read(self, job: WorkItem) -> _Work:
        work = _Work(job)
        self._attempt(work, self._measure)
        self._room.take(work.held)
        self._attempt(work, self._load)
        machine.trim_heap()
        return work

    def _measure(self, work: _Work) -> None:
        header = images.inspect(work.job.source)
        height, width = header.height * self._scale, header.width * self._scale
        images.check_fits(work.job.target, height, width)
        before, after = header.bytes, header.bytes * self._scale**2
        work.encoding = images.writing_memory(
            work.job.target, height * width, alpha=header.alpha, quality=self._quality
        )
        needed = max(before + after + work.encoding, before + header.decoding)
        if needed > self._available:
            dear = work.encoding > before + after
            raise OutOfMemoryError(
                f"{work.job.source}: {header.width}x{header.height} pixels and the "
                f"{width}x{height} that they become take {machine.format_bytes(needed)} without "
                f"the network's share; only {machine.format_bytes(self._available)} are left of "
                "--memory"
                + f" ({machine.format_bytes(work.encoding)} are for encoding it; PNG takes less)"
                * dear
            )
        work.held = needed

    def _load(self, work: _Work) -> None:
        work.picture = images.read(work.job.source)

    def _upscale(self, work: _Work) -> None:
        assert work.picture is not None
        others = max(0, self._room.size - work.held)
        pixels = self._upscaler.upscale(work.picture.pixels, reserve=work.encoding + others)
        work.picture = replace(work.picture, pixels=pixels)

    def _write(self, work: _Work) -> ImageResult:
        try:
            self._attempt(work, self._save)
        finally:
            work.picture = None
            machine.trim_heap()
            self._room.give_back(work.held)
        return ImageResult(work.job, work.size, work.seconds, work.error)

    def _save(self, work: _Work) -> None:
        assert work.picture is not None
        work.job.target.parent.mkdir(parents=True, exist_ok=True)
        images.write(work.job.target, work.picture, quality=self._quality)
        height, width = work.picture.pixels.shape[:2]
        work.size = (height, width)


def _bare(error: Exception) -> Exception:
    """Return an error without its traceback, which would keep the pixels alive."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class _StoppedError(Exception):
    """The pipeline ends before this image had its turn."""


class _MemorySemaphore:
    """Counts the bytes in flight; who asks for too much waits, unless nobody else is there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._guests = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, wanted: int) -> None:
        """Wait until there is room, and take it.

        Raises:
            _StoppedError: the room was closed meanwhile.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or wanted <= self._free or self._guests == 0
            )
            if self._closed:
                raise _StoppedError
            self._free -= wanted
            self._guests += 1

    def give_back(self, taken: int) -> None:
        """Return what was taken."""
        with self._changed:
            self._free += taken
            self._guests -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Turn away whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
