"""Upscaling images in GPU memory: the image, the place of its result, the caller's stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.device_array import stream_handle, view
from sr_deploy.backends.cuda.driver import CudaStream, Memory
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from sr_deploy.backends.base import Lane
    from sr_deploy.backends.cuda.device_array import DeviceArray
    from sr_deploy.backends.cuda.lane import CudaLane
    from sr_deploy.bundle.manifest import Model
    from sr_deploy.tiling.planner import TilePlan


@dataclass(frozen=True)
class CudaFrame:
    """An image in GPU memory and the place of its result; see `DeviceFrame`."""

    image: DeviceArray
    target: DeviceArray
    result: Any
    caller: CudaStream

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and bytes of a pixel."""
        return self.image.size

    @property
    def itemsize(self) -> int:
        """Bytes of a sample."""
        return self.image.itemsize

    def run(self, lane: Lane, plan: TilePlan) -> None:
        """Enqueue the upscaling on a lane; see `DeviceFrame.run`."""
        # A network that opens `CudaFrame`s opens no lanes of another class.
        cast("CudaLane", lane).run_on_device(self.image, plan, self.target, self.caller)


@dataclass(frozen=True)
class CudaFrames:
    """The images of one GPU that a network upscales; see `DeviceFrames`."""

    model: Model
    device: str

    def open(self, image: Any, out: Any, stream: object) -> CudaFrame:
        """Check an image and its `out`, or allocate `out`; see `DeviceFrames.open`."""
        handle = stream_handle(stream)
        frame = view(image, handle)
        target = self._target(frame, out)
        caller = CudaStream(handle or frame.stream)
        return CudaFrame(frame, target, target if out is None else out, caller)

    def _target(self, frame: DeviceArray, out: Any) -> DeviceArray:
        """Return the array for the result: `out`, or a new one."""
        if self.device != f"cuda:{frame.device}":
            raise InvalidInputError(
                f"the image is on the GPU cuda:{frame.device}, but this engine runs on "
                f"{self.device}; copy the image there or to the host, or open the engine with "
                f"device='cuda:{frame.device}'"
            )
        if frame.channels != self.model.channels:
            raise InvalidInputError(
                f"an image in GPU memory needs the network's {self.model.channels} channels, found "
                f"{frame.channels}; split its channels, or copy it to the host, where any number "
                "is allowed"
            )
        height, width, *rest = frame.shape
        shape = (self.model.scale * height, self.model.scale * width, *rest)
        if out is None:
            driver.use(frame.device)
            pitch = int(np.prod(shape[1:])) * frame.itemsize
            memory = Memory(shape[0] * pitch)
            return replace(frame, address=memory.address, shape=shape, pitch=pitch, owner=memory)
        found = view(out, frame.stream, writable=True)
        if (found.shape, found.itemsize, found.device) != (shape, frame.itemsize, frame.device):
            raise InvalidInputError(
                f"out must have shape {shape} and {frame.itemsize} bytes per sample on cuda:"
                f"{frame.device}, found {found.shape} and {found.itemsize} on cuda:{found.device}"
            )
        return found
