"""Upscale frames in a server's event loop, which stays free for other work.

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
    """Yield numbered frames, as a client would send them."""
    for number in range(count):
        await asyncio.sleep(0.01)
        yield np.full((120, 160, 3), number, np.uint8), number


async def main(bundle: str) -> None:
    """Upscale ten frames and print the size of each result."""
    with Engine(bundle) as engine:
        async with contextlib.aclosing(engine.astream(frames(10))) as results:
            async for big, number in results:
                print(f"frame {number}: {big.shape[1]}x{big.shape[0]}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1]))
