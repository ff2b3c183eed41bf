"""A server's event loop: frames come and go while the loop stays free for everything else.

python in_asyncio.py BUNDLE
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def frames(count: int) -> AsyncIterator[tuple[Any, int]]:
    """Yield frames as a client would send them, each with its number."""
    for number in range(count):
        await asyncio.sleep(0.01)
        yield np.full((120, 160, 3), number, np.uint8), number


async def main(bundle: str) -> None:
    """Upscale some frames, and count what the loop does meanwhile."""
    with Engine(bundle) as engine:
        async with contextlib.aclosing(engine.astream(frames(10))) as results:
            async for big, number in results:
                print(f"frame {number}: {big.shape[1]}x{big.shape[0]}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
