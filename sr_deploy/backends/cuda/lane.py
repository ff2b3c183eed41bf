"""The lane of a backend that computes in GPU memory.

All work of a frame goes into the lane's stream: upload, tiles out of the frame, network, results
into the frame, download, an event. Only that event is waited for, without the GIL, so other lanes
can run. From a shape's third frame on, the work between upload and download is a CUDA graph; the
copies are not part of it, so frames may be anywhere in memory.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.buffers import Buffers
from sr_deploy.backends.cuda.driver import CudaStream, Event, Graph
from sr_deploy.backends.cuda.tiles import DeviceTiles
from sr_deploy.backends.host import SAMPLES, HostLane
from sr_deploy.errors import BackendError, SrDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sr_deploy.backends.base import LoadRequest
    from sr_deploy.backends.cuda.buffers import Scratch
    from sr_deploy.backends.cuda.device_array import DeviceArray
    from sr_deploy.backends.cuda.driver import Kernels, Memory
    from sr_deploy.tiling.planner import TilePlan

_log = logging.getLogger(__name__)

_STEADY = 2
"""Frames of a shape before the graph is captured. During the first, the network prepares for the
shape, which cannot be captured."""
_COLOR_BYTES = 7 * 3 * 4


class Execution(Protocol):
    """A network that reads and writes GPU memory; the part that a backend implements."""

    def bind(
        self,
        shape: tuple[int, ...],
        result_shape: tuple[int, ...],
        pixels: int,
        result: int,
        color: int | None,
    ) -> int:
        """Prepare for batches of a shape.

        Args:
            shape: (N, h, w, bytes).
            result_shape: (N, scale*h, scale*w, bytes), for which memory is reserved.
            pixels: Address of the batch.
            result: Address of its result.
            color: Address of a YUV frame's coefficients, 7x3 float32.

        Returns:
            Bytes needed for intermediates.

        Raises:
            BackendError: the network does not accept the shape, or gives another result.
        """

    def lend(self, memory: Memory) -> None:
        """Use this memory for intermediates, from the next batch on."""

    def enqueue(self, stream: CudaStream) -> None:
        """Enqueue the computation of a batch.

        Raises:
            OutOfMemoryError: out of memory.
            BackendError: the backend failed otherwise.
        """

    def capturable(self, stream: CudaStream) -> bool:
        """Return whether a CUDA graph can hold the computation of a batch."""

    def close(self) -> None:
        """Free all resources."""


class CudaLane:
    """Upscales frames in host memory and in GPU memory.

    Without kernels, the CPU tiles frames in host memory; whole frames need no kernels.

    Args:
        execution: The network.
        scratch: Memory for intermediates, shared by the lanes.
        request: The request that loaded the network.
        device: Index of the GPU.
        kernels: The kernels of `native/`; None if they were not built.
    """

    def __init__(
        self,
        execution: Execution,
        scratch: Scratch,
        request: LoadRequest,
        device: int,
        kernels: Kernels | None,
    ) -> None:
        self._execution = execution
        self._scratch = scratch
        self._device = device
        self._kernels = kernels
        self._scale = request.model.scale
        self._sample = SAMPLES[request.pixel_format].itemsize
        self._host = HostLane(self, request.model, request.pixel_format)
        self._stream = CudaStream()
        self._arrived, self._done = Event(), Event()
        self._buffers = Buffers()
        self._tiles: DeviceTiles | None = None
        self._prepared: tuple[object, ...] = ()
        self._needed = 0
        self._lent: Memory | None = None
        self._graph: Graph | None = None
        self._can_capture = True
        self._count = 0

    def run(
        self,
        frame: NDArray[np.uint8],
        plan: TilePlan,
        out: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Upscale a frame in host memory; see `Lane.run`."""
        tiled = _tiled(plan)
        if tiled is not None and self._kernels is None:
            self._host.run(frame, plan, out, color)
        else:
            self.infer(frame[None], out[None], color, tiled)

    def generate(self, noise: NDArray[np.float32], into: NDArray[np.uint8]) -> None:
        """Generate images; see `Lane.generate`."""
        rows = noise.reshape(len(noise), 1, -1, 1)  # noise is an image of one row to `infer`
        self.infer(rows.view(np.uint8), into)

    def infer(
        self,
        pixels: NDArray[np.uint8],
        into: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
        plan: TilePlan | None = None,
    ) -> None:
        """Run a batch in host memory; see `HostInference.infer`.

        Args:
            pixels: (N, h, w, bytes).
            into: (N, scale*h, scale*w, bytes).
            color: Coefficients of a YUV frame.
            plan: Tiles of the only frame; None: the batch is not tiled.
        """
        driver.use(self._device)
        with self._recovering():
            self._prepare(pixels.shape, into.shape, plan, colored=color is not None)
            self._upload("frame", pixels)
            if color is not None:
                self._upload("color", np.ascontiguousarray(color).view(np.uint8))
            self._compute()
            locked = driver.is_page_locked(into)
            landing = into if locked else self._buffers.staged("out", into.shape)
            source = self._buffers.address("out")
            driver.copy_bytes(landing.ctypes.data, source, into.nbytes, self._stream)
            self._done.record(self._stream)
            self._done.synchronize()
            if landing is not into:
                np.copyto(into, landing)

    def run_on_device(
        self, frame: DeviceArray, plan: TilePlan, out: DeviceArray, caller: CudaStream
    ) -> None:
        """Enqueue the upscaling of a frame in GPU memory; returns before it is done.

        Args:
            frame: The frame, with the network's channels.
            plan: Its tiles.
            out: The result, `scale` times as high and as wide.
            caller: Stream that produces the frame and reads the result.

        Raises:
            OutOfMemoryError: the plan's tiles do not fit into memory.
            BackendError: the backend failed otherwise.
        """
        tiled = _tiled(plan)
        if tiled is not None and self._kernels is None:
            raise BackendError(
                "tiling a frame in GPU memory needs the GPU kernels of sr-deploy, which were not "
                "built; reinstall sr-deploy where nvcc is installed, or copy the frame to the host"
            )
        driver.use(self._device)
        with self._recovering():
            self._prepare((1, *frame.size), (1, *out.size), tiled, colored=False)
            self._arrived.record(caller)
            self._stream.wait(self._arrived)
            size, pitches = (frame.shape[0], frame.row_bytes), (frame.row_bytes, frame.pitch)
            address = self._buffers.address("frame")
            driver.copy(address, frame.address, size, pitches, self._stream)
            self._compute()
            size, pitches = (out.shape[0], out.row_bytes), (out.pitch, out.row_bytes)
            address = self._buffers.address("out")
            driver.copy(out.address, address, size, pitches, self._stream)
            self._done.record(self._stream)
            caller.wait(self._done)

    def release(self) -> None:
        """Free buffers that only save time for the next frame."""
        driver.use(self._device)
        self._stream.synchronize()
        self._forget()
        self._host.release_tiles()
        self._scratch.release()

    def close(self) -> None:
        """Free all resources, even if CUDA is unusable: the frame that failed reported it."""
        with contextlib.suppress(SrDeployError):
            driver.use(self._device)
            self._stream.synchronize()
        self._forget()
        self._execution.close()
        for each in (self._arrived, self._done, self._stream):
            each.close()

    @contextlib.contextmanager
    def _recovering(self) -> Iterator[None]:
        """After an error, wait until the GPU no longer uses the caller's memory, and start over."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(SrDeployError):  # the first error says more
                self._stream.synchronize()
            self._forget()
            raise

    def _prepare(
        self,
        shape: tuple[int, ...],
        result: tuple[int, ...],
        plan: TilePlan | None,
        *,
        colored: bool,
    ) -> None:
        """Allocate buffers for frames of a shape, and prepare the network for them."""
        wanted = (shape, result, plan, colored)
        if wanted == self._prepared:
            return
        self._stream.synchronize()  # device frames may still be in flight
        self._drop_graph()
        self._prepared = ()
        pixels = self._buffers.reserve("frame", int(np.prod(shape)))
        target = self._buffers.reserve("out", int(np.prod(result)))
        self._tiles = None
        if plan is not None:
            assert self._kernels is not None
            self._tiles = tiles = DeviceTiles(
                self._kernels, plan, self._buffers, shape[1:], self._scale, self._sample
            )
            shape, pixels = tiles.batch_shape, tiles.inputs
            result, target = tiles.result_shape, tiles.results
        color = self._buffers.reserve("color", _COLOR_BYTES) if colored else None
        self._needed = self._execution.bind(shape, result, pixels, target, color)
        self._lent = None
        self._prepared = wanted

    def _upload(self, name: str, data: NDArray[np.uint8]) -> None:
        if not driver.is_page_locked(data):
            staged = self._buffers.staged(name, data.shape)
            np.copyto(staged, data)
            data = staged
        address = self._buffers.address(name)
        driver.copy_bytes(address, data.ctypes.data, data.nbytes, self._stream)

    def _compute(self) -> None:
        """Enqueue the work between upload and download."""
        with self._scratch.turn(self._stream, self._needed) as memory:
            if memory is not self._lent:
                self._drop_graph()
                self._execution.lend(memory)
                self._lent = memory
            if self._graph is None and self._can_capture and self._count >= _STEADY:
                self._capture()
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._enqueue()
            self._count += 1

    def _capture(self) -> None:
        """Make the CUDA graph, if the network allows it."""
        try:
            if not self._execution.capturable(self._stream):
                raise BackendError("the plan allocates memory while it runs")
            self._graph = Graph(self._stream, self._enqueue)
        except SrDeployError as error:
            # Only its text: a stored log record would keep the frame alive.
            _log.debug("no CUDA graph, each step is launched alone: %s", str(error))
            self._can_capture = False

    def _enqueue(self) -> None:
        if self._tiles is None:
            self._execution.enqueue(self._stream)
        else:
            self._tiles.enqueue(self._stream, self._execution.enqueue)

    def _drop_graph(self) -> None:
        graph, self._graph, self._count = self._graph, None, 0
        if graph is not None:
            graph.close()

    def _forget(self) -> None:
        """Free all buffers; no work is in flight."""
        self._drop_graph()
        self._prepared, self._tiles, self._lent = (), None, None
        self._buffers.close()


def _tiled(plan: TilePlan) -> TilePlan | None:
    """Return the plan if it tiles or pads the frame."""
    return None if plan.whole and plan.batch == 1 else plan
