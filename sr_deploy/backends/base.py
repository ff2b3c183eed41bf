"""The interface between the runtime and the backends.

A `Backend` loads a network (`LoadedNetwork`), a network opens lanes (`Lane`), and a lane runs one
frame at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np

from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.bundle.network_fit import shape_text
from sr_deploy.errors import BackendError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Model, PixelFormat, Precision
    from sr_deploy.tiling.planner import TilePlan, TilePlanner

# Lines of OpenVINO's messages that name places in its source or repeat other lines.
_SOURCE_LINES = re.compile(
    r"^(Exception from |Check '.*' failed at |FrontEnd API failed |Model wasn't fully converted"
    r"|Summary:|To facilitate ).*\n?|^-- ",
    re.MULTILINE,
)
_NO_MEMORY = ("bad_alloc", "bad alloc", "allocate", "out of memory", "not enough memory")
# Errors of shapes speak of memory too: ONNX Runtime names the "pre-allocated output".
_NOT_MEMORY = ("invalid_argument", "output shape", "expected shape")

# Peak of the conversion from the network's result to bytes, relative to that result in FP32. It
# decides where the network itself needs little. Measured with one and with three convolutions, x4,
# with OpenVINO and ONNX Runtime: 1.8 to 3.6 for 8 bits, 6.2 to 8.2 for 16, 3.6 to 6.2 for YUV.
_PACKING: dict[PixelFormat, float] = {
    "rgb24": 3.6,
    "gray8": 3.6,
    "rgb48": 6.0,
    "gray16": 6.0,
    **dict.fromkeys(get_args(YuvFormat), 3.6),
}
# For 16 bits, the high and low bytes exist beside the network's own peak: 1.6 of the FP32 result
# with 10 convolutions of 32 features x2, nothing with EDSR. For YUV, so do the sums of the result:
# 3.4 with the former network.
_ON_TOP: dict[PixelFormat, float] = {
    "rgb24": 0.0,
    "gray8": 0.0,
    "rgb48": 2.5,
    "gray16": 2.5,
    **dict.fromkeys(get_args(YuvFormat), 3.5),
}


@dataclass(frozen=True)
class Footprint:
    """Memory of a running network, beyond the memory of the loaded network.

    Attributes:
        fixed: Bytes that do not depend on the tile.
        per_pixel: Bytes per low-resolution pixel of a batch of tiles.
        per_pair: Bytes per pair of pixels, for global attention.
    """

    fixed: int
    per_pixel: float
    per_pair: float = 0.0

    @classmethod
    def of(
        cls, model: Model, pixel_format: PixelFormat, *, factor: float, fixed: int, copies: float
    ) -> Footprint:
        """Return the footprint from the exporter's estimate and a backend's measured factors.

        Args:
            model: The network's description in the manifest.
            pixel_format: Format of the frames.
            factor: Measured peak bytes per pixel, relative to the manifest's `bytes_per_pixel`.
            fixed: Bytes that the backend takes for any network.
            copies: Copies of the FP32 weights that the backend makes in its first run.
        """
        weights = round(4 * copies * model.parameters)
        result = 4 * model.channels * model.scale**2
        peak = max(factor * model.bytes_per_pixel, _PACKING[pixel_format] * result)
        per_pixel = peak + _ON_TOP[pixel_format] * result
        return cls(fixed + weights, per_pixel, factor * model.bytes_per_pair)

    def times(self, lanes: int) -> Footprint:
        """Return the footprint of several lanes."""
        return Footprint(lanes * self.fixed, lanes * self.per_pixel, lanes * self.per_pair)


@dataclass(frozen=True)
class LoadRequest:
    """A network to load.

    Attributes:
        file: The ONNX file; its hash is already verified.
        model: The network's description in the manifest.
        pixel_format: Format of the frames, input and output.
        precision: Precision to compute in.
        device: The user's name of the device; None for the backend's default.
        threads: CPU threads of all lanes together.
        lanes: Frames to compute at once; None for the backend's choice.
        memory: The user's limit in bytes, for GPU memory too; None for no limit.
        build: Whether missing plans may be built for this machine, "auto" or "never"; "existing":
            not now, because another backend may do without.
        streaming: Whether frames follow each other while others are read and written.
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
        """Frames to compute at once on the CPU."""
        # One frame on all threads is as fast as several frames on fewer threads each. Beside
        # decoding and encoding, two lanes fill each other's gaps.
        return self.lanes or (2 if self.streaming and self.threads > 1 else 1)


class Lane(Protocol):
    """The resources of one frame in flight; one thread at a time may use it."""

    def run(
        self,
        frame: NDArray[np.uint8],
        plan: TilePlan,
        out: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Upscale one frame. After an error, `out` is undefined and the lane is still usable.

        Args:
            frame: (H, W, pixel bytes) uint8, contiguous; only read. YUV: (H*3/2, W, bytes).
            plan: The frame's tiles; a YUV frame is not tiled.
            out: The same layout for (scale*H, scale*W).
            color: Conversion coefficients of a YUV frame, (7, 3); see `runtime.yuv`.

        Raises:
            OutOfMemoryError: the plan's tiles do not fit into memory.
            BackendError: the backend failed otherwise.
        """

    def generate(self, noise: NDArray[np.float32], into: NDArray[np.uint8]) -> None:
        """Generate images (N, height, width, pixel bytes) from noise (N, size), both contiguous.

        Raises:
            OutOfMemoryError: N images do not fit into memory.
            BackendError: the backend failed otherwise.
        """

    def release(self) -> None:
        """Free buffers that only save time for the next frame."""

    def close(self) -> None:
        """Free all resources."""


class DeviceFrame(Protocol):
    """An image in GPU memory that is about to be upscaled into GPU memory."""

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and bytes of a pixel."""

    @property
    def itemsize(self) -> int:
        """Bytes of a sample, 1 or 2."""

    @property
    def result(self) -> Any:
        """The caller's `out`, or the new image."""

    def run(self, lane: Lane, plan: TilePlan) -> None:
        """Enqueue the upscaling on a lane of the same network; returns before it is done.

        Raises:
            OutOfMemoryError: the plan's tiles do not fit into memory.
            BackendError: the backend failed otherwise.
        """


class DeviceFrames(Protocol):
    """The capability of a network to upscale images in GPU memory without a copy to the host."""

    def open(self, image: Any, out: Any, stream: object) -> DeviceFrame:
        """Check an image and its `out`, or allocate `out`.

        Args:
            image: An object with `__cuda_array_interface__` or DLPack.
            out: The same; None for a new image.
            stream: CUDA stream of the caller, see `Engine.upscale`.

        Raises:
            InvalidInputError: the image, `out` or `stream` is invalid, or on another GPU.
            OutOfMemoryError: a new image does not fit into memory.
        """


class LoadedNetwork(Protocol):
    """A network that a backend has loaded."""

    @property
    def device(self) -> str:
        """The backend's name of the device."""

    @property
    def footprint(self) -> Footprint:
        """Host memory of one running lane."""

    @property
    def lanes(self) -> int:
        """Number of lanes to open."""

    @property
    def device_frames(self) -> DeviceFrames | None:
        """The way to upscale images in GPU memory; None: images in host memory only."""

    @property
    def images_at_once(self) -> int | None:
        """Largest batch of a generator; None: only host memory limits it."""

    def tile_planner(self, height: int, width: int) -> TilePlanner | None:
        """Return the planner for frames of a size; None if only the model limits tiles."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an uninitialized array that is fastest to read frames from or write results to."""

    def open_lane(self) -> Lane:
        """Open another lane.

        Raises:
            BackendError: the backend failed.
        """

    def close(self) -> None:
        """Free the network; its lanes are already closed."""


class HostNetwork:
    """Defaults of `LoadedNetwork` for networks that compute in host memory."""

    device_frames: DeviceFrames | None = None
    images_at_once: int | None = None

    def tile_planner(self, height: int, width: int) -> None:
        """Return None: only the model limits tiles."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an uninitialized array."""
        return np.empty(shape, np.uint8)


class Backend(Protocol):
    """An inference library."""

    @property
    def name(self) -> str:
        """The name for `Engine(backend=...)`."""

    def precisions(self, device: str | None) -> tuple[Precision, ...]:
        """Return the precisions that a device supports, fastest first.

        Raises:
            BackendError: the device does not exist.
        """

    def load(self, request: LoadRequest) -> LoadedNetwork:
        """Load a network.

        Raises:
            OutOfMemoryError: the network does not fit into memory.
            BackendError: the backend rejects the file or lacks the device.
        """


def check_result(found: Sequence[int], expected: Sequence[int], what: str) -> None:
    """Check that a network has filled, or will fill, the whole result.

    Args:
        found: Shape of what the network gives.
        expected: Shape of the result by the manifest.
        what: The backend, for the error.

    Raises:
        BackendError: the shapes differ, so that parts of the result would be undefined.
    """
    if tuple(found) != tuple(expected):
        raise BackendError(
            f"{what}: the network gives {shape_text(found)} values, but {shape_text(expected)} by "
            "the bundle's manifest, which does not fit the network; export the checkpoint again"
        )


def translate_error(error: BaseException, what: str) -> OutOfMemoryError | BackendError:
    """Return a backend's exception as `OutOfMemoryError` or `BackendError`."""
    text = str(error)
    text = " ".join((_SOURCE_LINES.sub("", text) or text).split()) or type(error).__name__
    short = text if len(text) <= 500 else text[:497] + "..."
    lower = text.lower()
    of_shapes = any(each in lower for each in _NOT_MEMORY)
    of_memory = any(each in lower for each in _NO_MEMORY) and not of_shapes
    if isinstance(error, MemoryError) or of_memory:
        return OutOfMemoryError(f"{what}: out of memory ({short})")
    return BackendError(f"{what}: {short}")
