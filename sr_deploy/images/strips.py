"""Strips of whole rows: a picture is converted and compressed without a second full copy."""

from __future__ import annotations

import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from sr_deploy import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sr_deploy.images.picture import AnyPixels

_STRIP_BYTES = 1 << 20
_MOST_WORKERS = 8
_MEMORY_PER_STRIP = 16 << 20
"""Memory to filter and compress one strip; measured: 12 MB."""
_SAMPLE_BYTES = 1 << 16
_RUNS = (1, zlib.Z_RLE)
_REPETITIONS = (6, zlib.Z_DEFAULT_STRATEGY)
_MEMORY_LEVEL = 9

T = TypeVar("T")
R = TypeVar("R")


def strips(pixels: AnyPixels, multiple_of: int = 1) -> list[slice]:
    """Return row slices of about one megabyte each.

    All but the last have the same height, a multiple of `multiple_of`.
    """
    height, row_bytes = len(pixels), pixels[:1].nbytes
    rows = max(1, _STRIP_BYTES // row_bytes // multiple_of) * multiple_of
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def memory() -> int:
    """Return an estimate of the memory that `in_order` needs, in bytes."""
    return (_workers() + 1) * _MEMORY_PER_STRIP


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `function(item)` for each item, in order; a few threads work ahead."""
    workers = _workers()
    with ThreadPoolExecutor(workers, thread_name_prefix="encode") as pool:
        ahead: deque[Callable[[], R]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item).result)
            if len(ahead) > workers:
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()


def _workers() -> int:
    return min(_MOST_WORKERS, machine.cores())


def deflated(content: bytes, window_bits: int, flush: int = zlib.Z_FINISH) -> bytes:
    """Compress the filtered pixels of one strip.

    Photographs compress equally well with run lengths only, in a tenth of the time; drawings and
    text need a search for repetitions. A sample from the middle decides.

    Args:
        content: The bytes to compress.
        window_bits: zlib's: 15 for a complete stream, -15 for a raw one.
        flush: Z_FULL_FLUSH if another strip continues the stream.
    """

    def compress(part: bytes, level: int, strategy: int) -> bytes:
        stream = zlib.compressobj(level, zlib.DEFLATED, window_bits, _MEMORY_LEVEL, strategy)
        return stream.compress(part) + stream.flush(flush)

    middle = content[len(content) // 2 :][:_SAMPLE_BYTES]
    repeats = len(compress(middle, *_REPETITIONS)) < 0.95 * len(compress(middle, *_RUNS))
    return compress(content, *(_REPETITIONS if repeats else _RUNS))
