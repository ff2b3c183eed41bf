"""A contender on its way to be measured: what it needs, and what it is once it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sr_bench.records import Configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]

# With these, glibc keeps freed memory for the next layer. Stock PyTorch gives it back and has it
# mapped again, page by page, which costs a CPU more than half of the time of some networks.
KEEP_PAGES = (
    "glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592:"
    "glibc.malloc.top_pad=268435456"
)
DEFAULT = Configuration("sr-deploy", "auto", "auto")
"""What `Engine(bundle)` is, with no argument."""
STRONG = ("channels_last", "compiled")
"""The forms of PyTorch that are hard to beat."""


@dataclass(frozen=True)
class WorkerSpec:
    """A contender, and what it needs to run."""

    contender: Configuration
    bundle: str
    checkpoint: str | None
    """Of the network in the bundle; needed by torch."""
    threads: int
    device: str = "cpu"
    memory: int | None = None
    """Of the engine, in bytes: each gets what it would have alone on the machine."""

    def environment(self) -> dict[str, str]:
        """Return the variables that its process needs beside the usual ones."""
        strong = self.contender.backend in STRONG
        return {"GLIBC_TUNABLES": KEEP_PAGES} if strong else {}


class Runner(Protocol):
    """A contender that is ready to run. Frames are (N, H, W, C) uint8, in and out."""

    ran: Configuration | None
    """What the default turned out to be; None: just the contender."""

    def upscale(self, frames: Frames) -> NDArray[Any]:
        """Upscale a batch, with all copies."""

    def network(self, batches: Frames) -> Callable[[int], object] | None:
        """Return a call of the network alone on one of the batches (M, N, H, W, C), by its index.

        None: it cannot be told apart from the rest.
        """

    def through(self, frames: Iterator[Frames]) -> Iterator[NDArray[Any]] | None:
        """Upscale frames (H, W, C) that follow one another, overlapped; None: it cannot."""

    def staged(self, frames: Frames) -> dict[str, float]:
        """Upscale a batch; return the milliseconds of each stage, in order."""

    def settle(self, frames: Frames) -> NDArray[Any]:
        """Do now what would otherwise be done once many frames have come.

        Returns:
            A batch, upscaled as all that follow will be.
        """

    def clock(self) -> Callable[[Callable[[], object]], float]:
        """Return what runs a call and says how many milliseconds it took."""

    def device_memory(self) -> int | None:
        """Return the most bytes of a GPU's memory that were held; None: no GPU, or unknown."""

    def close(self) -> None:
        """Give everything back."""
