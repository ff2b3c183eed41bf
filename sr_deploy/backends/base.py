"""What the engine expects of a backend, and what backends share.

A backend loads a network; a network opens lanes; a lane is everything that one frame in flight
needs. The engine knows no more of any of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

import numpy as np

from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import BackendError, OutOfMemoryError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Model, PixelFormat, Precision
    from sr_deploy.tiling.planner import TilePlan, TilePlanner

# Lines of OpenVINO's errors that say where in its source it was, and what follows from the rest.
_CIRCUMSTANCES = re.compile(
    r"^(Exception from |Check '.*' failed at |FrontEnd API failed |Model wasn't fully converted"
    r"|Summary:|To facilitate ).*\n?|^-- ",
    re.MULTILINE,
)
_NO_MEMORY = ("bad_alloc", "bad alloc", "allocate", "out of memory", "not enough memory")

# What turning the network's result into bytes takes at most, over that result in FP32: where the
# network itself takes little, it is this that counts. Measured with one and three convolutions, x4,
# with OpenVINO and ONNX Runtime: 1.8 to 3.6 for 8 bits, 6.2 to 8.2 for 16, 3.6 to 6.2 for YUV.
_PACKING: dict[PixelFormat, float] = {
    "rgb24": 3.6,
    "gray8": 3.6,
    "rgb48": 6.0,
    "gray16": 6.0,
    **dict.fromkeys(get_args(YuvFormat), 3.6),
}
# Of 16 bits, the halves come on top of what the network itself takes, where that is alive beside
# them: 1.6 of the FP32 result with 10 convolutions of 32 features x2, nothing with EDSR. So does,
# of YUV, what is added to the result and summed: 3.4 with the former.
_ON_TOP: dict[PixelFormat, float] = {
    "rgb24": 0.0,
    "gray8": 0.0,
    "rgb48": 2.5,
    "gray16": 2.5,
    **dict.fromkeys(get_args(YuvFormat), 3.5),
}


@dataclass(frozen=True)
class Footprint:
    """What a loaded network takes in memory while it runs, beside what it took when it was loaded.

    Attributes:
        fixed: Bytes that do not depend on the tile.
        per_pixel: Bytes per low-resolution pixel that goes through at once.
        per_pair: Bytes per pair of them, where every pixel looks at every other one.
    """

    fixed: int
    per_pixel: float
    per_pair: float = 0.0

    @classmethod
    def of(
        cls, model: Model, pixel_format: PixelFormat, *, factor: float, fixed: int, copies: float
    ) -> Footprint:
        """Scale what the exporter computed by what was measured of a backend.

        Args:
            model: Of the bundle.
            pixel_format: Of the frames.
            factor: Peak bytes per pixel over the manifest's `bytes_per_pixel`.
            fixed: Bytes that the backend takes with any network.
            copies: How many copies of the FP32 weights it makes when it first runs.
        """
        weights = round(4 * copies * model.parameters)
        result = 4 * model.channels * model.scale**2
        peak = max(factor * model.bytes_per_pixel, _PACKING[pixel_format] * result)
        per_pixel = peak + _ON_TOP[pixel_format] * result
        return cls(fixed + weights, per_pixel, factor * model.bytes_per_pair)

    def times(self, lanes: int) -> Footprint:
        """Return what several lanes take."""
        return Footprint(lanes * self.fixed, lanes * self.per_pixel, lanes * self.per_pair)


@dataclass(frozen=True)
class LoadRequest:
    """What a backend is asked to load.

    Attributes:
        file: The ONNX file, already verified.
        model: What the manifest says of the network.
        pixel_format: Of the frames, in and out.
        precision: To compute in.
        device: As the user named it; None: the backend's own choice.
        threads: Of computation on a CPU, for all lanes together.
        lanes: How many frames are to be computed at once; None: as many as are worth it.
        memory: Bytes that the user allows, also of a GPU's memory; None: the user does not say.
        build: Whether what is missing may be built for this machine, "auto" or "never".
        streaming: Whether frames come one right after the other, while others are read and written.
    """

    file: Path
    model: Model
    pixel_format: PixelFormat
    precision: Precision
    device: str | None
    threads: int
    lanes: int | None = None
    memory: int | None = None
    build: str = "auto"
    streaming: bool = False

    @property
    def host_lanes(self) -> int:
        """How many frames to compute at once where computing takes the CPU's threads."""
        # One frame on all threads is computed as fast as several on fewer. Beside decoding and
        # encoding, two fill each other's gaps.
        return self.lanes or (2 if self.streaming and self.threads > 1 else 1)


class Lane(Protocol):
    """Everything that one frame in flight needs. Used by one thread at a time."""

    def run(
        self,
        frame: NDArray[np.uint8],
        plan: TilePlan,
        out: NDArray[np.uint8],
        colour: NDArray[np.float32] | None = None,
    ) -> None:
        """Upscale one frame; on an error, `out` holds anything, and the lane can go on.

        Args:
            frame: (H, W, bytes) uint8, contiguous; the caller's. Of YUV, (H*3/2, W, bytes).
            plan: How it is cut; frames of YUV are not.
            out: The same for (scale*H, scale*W).
            colour: What the numbers of a YUV frame mean: (7, 3), see `yuv.coefficients`.

        Raises:
            OutOfMemoryError: the tiles of the plan are too large.
            BackendError: anything else that the backend reports.
        """

    def generate(self, noise: NDArray[np.float32], into: NDArray[np.uint8]) -> None:
        """Make images (N, height, width, bytes) out of (N, size) numbers, both contiguous.

        Raises:
            OutOfMemoryError: there are too many of them.
            BackendError: anything else that the backend reports.
        """

    def release(self) -> None:
        """Give back what is only kept to be faster the next time."""

    def close(self) -> None:
        """Give everything back."""


class LoadedNetwork(Protocol):
    """A network that a backend has loaded."""

    @property
    def device(self) -> str:
        """What it runs on, by the backend's name for it."""

    @property
    def footprint(self) -> Footprint:
        """What one lane takes of the host's memory while it runs."""

    @property
    def lanes(self) -> int:
        """How many lanes to open."""

    def tile_planner(self, height: int, width: int) -> TilePlanner | None:
        """Return the planner for frames of a size; None if the model alone sets the limits."""

    @property
    def images_at_once(self) -> int | None:
        """How many images a generator may make at once; None: what the host's memory allows."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array that frames are read from, and results written to, fastest."""

    def open_lane(self) -> Lane:
        """Open another lane.

        Raises:
            BackendError: the backend cannot.
        """

    def close(self) -> None:
        """Give everything back; the lanes are closed already."""


class HostNetwork:
    """What networks that compute in the host's memory have in common."""

    images_at_once: int | None = None

    def tile_planner(self, height: int, width: int) -> None:
        """Return None: the model alone sets the limits; see `LoadedNetwork.tile_planner`."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array for frames; see `Network.empty`."""
        return np.empty(shape, np.uint8)


class Backend(Protocol):
    """A way to run networks."""

    @property
    def name(self) -> str:
        """As `Engine(backend=...)` takes it."""

    def precisions(self, device: str | None) -> tuple[Precision, ...]:
        """Return the precisions that a device computes in, fastest first.

        Raises:
            BackendError: there is no such device.
        """

    def load(self, job: LoadRequest) -> LoadedNetwork:
        """Load a network.

        Raises:
            OutOfMemoryError: it does not fit.
            BackendError: the backend does not take the file, or lacks the device.
        """


def translated(error: BaseException, what: str) -> OutOfMemoryError | BackendError:
    """Return a backend's exception as one of ours, telling a lack of memory from the rest."""
    said = str(error)
    text = " ".join((_CIRCUMSTANCES.sub("", said) or said).split()) or type(error).__name__
    short = text if len(text) <= 500 else text[:497] + "..."
    lacks_memory = isinstance(error, MemoryError) or any(
        each in text.lower() for each in _NO_MEMORY
    )
    if lacks_memory:
        return OutOfMemoryError(f"{what}: out of memory ({short})")
    return BackendError(f"{what}: {short}")
