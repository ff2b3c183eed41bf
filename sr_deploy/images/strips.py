"""Pictures in strips of whole rows, so that nothing large is ever held twice."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sr_deploy.images.picture import AnyPixels

STRIP_BYTES = 4 << 20
_MOST_WORKERS = 8

T = TypeVar("T")
R = TypeVar("R")


def rows_per_strip(pixels: AnyPixels, multiple_of: int = 1) -> int:
    """Return how many rows make a strip of about STRIP_BYTES."""
    row_bytes = pixels[:1].size * pixels.itemsize
    return max(1, STRIP_BYTES // row_bytes // multiple_of) * multiple_of


def strips(height: int, rows: int) -> list[slice]:
    """Return the rows from 0 to `height` in slices of `rows`; the last may be shorter."""
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `function(item)` of each item in order, computed by a few threads just ahead."""
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="encode") as pool:
        ahead: deque[Callable[[], R]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item).result)
            if len(ahead) > workers:
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()
