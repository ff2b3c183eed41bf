"""The lane of a backend that computes in a GPU's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sr_deploy.backends.cuda import device_array
from sr_deploy.backends.cuda.driver import CudaStream
from sr_deploy.backends.cuda.frame_pipeline import FramePipeline
from sr_deploy.backends.host import SAMPLES, HostLane
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.backends.base import Lane, LoadRequest
    from sr_deploy.backends.cuda.buffers import Scratch
    from sr_deploy.backends.cuda.device_array import DeviceArray
    from sr_deploy.backends.cuda.driver import Kernels
    from sr_deploy.backends.cuda.frame_pipeline import Execution
    from sr_deploy.bundle.manifest import Model
    from sr_deploy.tiling.planner import TilePlan


class DeviceLane:
    """Runs frames of the host and of the device.

    Without kernels, the host takes tiles out of frames and puts results together; frames that go
    through whole need neither.

    Args:
        execution: Of the network.
        scratch: What lanes share for intermediates.
        job: What was loaded.
        device: Index of the GPU.
        kernels: Those of `native/`; None: they are not there.
    """

    def __init__(
        self,
        execution: Execution,
        scratch: Scratch,
        job: LoadRequest,
        device: int,
        kernels: Kernels | None,
    ) -> None:
        sample = SAMPLES[job.pixel_format].itemsize
        self._chain = FramePipeline(execution, scratch, device, kernels, job.model.scale, sample)
        self._host = HostLane(self._chain, job.model, job.pixel_format)
        self._stitches = kernels is not None

    def run(
        self,
        frame: NDArray[np.uint8],
        plan: TilePlan,
        out: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Upscale one frame; see `Lane.run`."""
        tiles = _tiles(plan)
        if tiles is None or self._stitches:
            self._chain.infer(frame[None], out[None], color, tiles)
        else:
            self._host.run(frame, plan, out, color)

    def generate(self, noise: NDArray[np.float32], into: NDArray[np.uint8]) -> None:
        """Make images out of numbers, which go through as rows; see `Lane.generate`."""
        rows = noise.reshape(len(noise), 1, -1, 1)
        self._chain.infer(rows.view(np.uint8), into)

    def run_on_device(
        self, frame: DeviceArray, plan: TilePlan, out: DeviceArray, caller: CudaStream
    ) -> None:
        """Upscale a frame of the device; returns at once.

        Args:
            frame: Of the network's channels.
            plan: How it is cut.
            out: The same, `scale` times as high and as wide.
            caller: In which the frame was made and the result will be read.

        Raises:
            OutOfMemoryError: the tiles of the plan are too large.
            BackendError: anything else.
        """
        tiles = _tiles(plan)
        if tiles is not None and not self._stitches:
            raise BackendError(
                "a frame on the GPU that does not go through whole needs the kernels of sr-deploy, "
                "which were not built here: install it where nvcc is, or bring the frame to the "
                "host"
            )
        self._chain.run_on_device(frame, tiles, out, caller)

    def release(self) -> None:
        """Give back what is only kept to be faster the next time."""
        self._host.release()  # and the chain with it

    def close(self) -> None:
        """Give everything back."""
        self._chain.close()


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
        cast("DeviceLane", lane).run_on_device(self.image, plan, self.target, self.caller)


@dataclass(frozen=True)
class CudaFrames:
    """The images of one GPU that a network upscales; see `DeviceFrames`."""

    model: Model
    device: str

    def open(self, image: Any, out: Any, stream: object) -> CudaFrame:
        """Check an image and its `out`, or allocate `out`; see `DeviceFrames.open`."""
        handle = device_array.handle(stream)
        frame = device_array.view(image, handle)
        target = device_array.result(out, frame, self.model, self.device)
        caller = CudaStream(handle or frame.stream)
        return CudaFrame(frame, target, target if out is None else out, caller)


def _tiles(plan: TilePlan) -> TilePlan | None:
    """Return the plan if there is anything to cut or to fill up."""
    return None if plan.whole and plan.batch == 1 else plan
