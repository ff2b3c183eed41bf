"""What a frame goes through on a GPU, from upload to download.

Everything is put into the lane's stream one after the other: upload, tiles out of the frame,
network, results into the frame, download, an event. The only wait is for that event, without the
interpreter's lock, so that other lanes have the processor meanwhile. What lies between upload and
download is captured as a CUDA graph when a shape comes for the third time; the copies stay outside
of it, so that frames may lie anywhere.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.buffers import Buffers, Scratch
from sr_deploy.backends.cuda.driver import CudaStream, Event, Graph
from sr_deploy.backends.cuda.tiles import Addresses, Tiles
from sr_deploy.errors import SrDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sr_deploy.backends.cuda.device_array import DeviceArray
    from sr_deploy.backends.cuda.driver import Kernels, Memory
    from sr_deploy.tiling.planner import TilePlan

_log = logging.getLogger(__name__)

_STEADY = 2
"""Frames of the same shape after which the chain is captured. The first settles what the network
sets up when it first meets a shape, which cannot be captured."""
_COLOR_BYTES = 7 * 3 * 4


class Execution(Protocol):
    """A network that computes from and into the device's memory; what a backend has to bring."""

    def bind(self, shape: tuple[int, ...], pixels: int, result: int, color: int | None) -> int:
        """Get ready for batches of a shape.

        Args:
            shape: (N, h, w, bytes).
            pixels: Address of the batch.
            result: Address of what becomes of it.
            color: Address of what the numbers of YUV mean, 7x3 float32.

        Returns:
            Bytes that it needs for intermediates.

        Raises:
            BackendError: it does not take the shape.
        """

    def lend(self, memory: Memory) -> None:
        """Use this for intermediates, from the next batch on."""

    def enqueue(self, stream: CudaStream) -> None:
        """Compute a batch; returns at once.

        Raises:
            OutOfMemoryError: it lacked memory.
            BackendError: it failed otherwise.
        """

    def close(self) -> None:
        """Give everything back."""


class FramePipeline:
    """The work of one lane.

    Args:
        execution: Of the network.
        scratch: What lanes share for intermediates.
        device: Index of the GPU.
        kernels: For frames in tiles.
        scale: Of the network.
        sample: Bytes of a sample.
    """

    def __init__(
        self,
        execution: Execution,
        scratch: Scratch,
        device: int,
        kernels: Kernels | None,
        scale: int,
        sample: int,
    ) -> None:
        self._execution = execution
        self._scratch = scratch
        self._device = device
        self._kernels = kernels
        self._scale = scale
        self._sample = sample
        self._stream = CudaStream()
        self._arrived, self._done = Event(), Event()
        self._buffers = Buffers()
        self._tiles: Tiles | None = None
        self._shape: tuple[object, ...] = ()
        self._needed = 0
        self._lent: Memory | None = None
        self._graph: Graph | None = None
        self._can_capture = True
        self._count = 0

    def infer(
        self,
        pixels: NDArray[np.uint8],
        into: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
        plan: TilePlan | None = None,
    ) -> None:
        """Run on a batch of the host's memory; see `Inference.infer`.

        Args:
            pixels: (N, h, w, bytes).
            into: (N, scale*h, scale*w, bytes).
            color: Of frames of YUV.
            plan: How the one frame is cut; None: the batch goes through as it is.
        """
        driver.use(self._device)
        with self._settled():
            self._prepare(pixels.shape, into.shape, plan, colored=color is not None)
            self._upload("frame", pixels)
            if color is not None:
                self._upload("color", np.ascontiguousarray(color).view(np.uint8))
            self._compute()
            landing = (
                into if driver.is_page_locked(into) else self._buffers.staged("out", into.shape)
            )
            self._copy(landing.ctypes.data, self._buffers.address("out"), into.nbytes)
            self._done.record(self._stream)
            self._done.synchronize()
            if landing is not into:
                np.copyto(into, landing)

    def run_on_device(
        self, frame: DeviceArray, plan: TilePlan | None, out: DeviceArray, caller: CudaStream
    ) -> None:
        """Run a frame of the device; returns at once. See `DeviceLane.run_on_device`."""
        driver.use(self._device)
        with self._settled():
            shapes = (1, *frame.size), (1, *out.size)
            self._prepare(*shapes, plan, colored=False)
            self._arrived.record(caller)
            self._stream.wait(self._arrived)
            buffer = self._buffers.address("frame")
            pitches = frame.row_bytes, frame.pitch
            driver.copy(buffer, frame.address, (frame.shape[0], pitches[0]), pitches, self._stream)
            self._compute()
            buffer = self._buffers.address("out")
            pitches = out.pitch, out.row_bytes
            driver.copy(out.address, buffer, (out.shape[0], pitches[1]), pitches, self._stream)
            self._done.record(self._stream)
            caller.wait(self._done)

    def release(self) -> None:
        """Give back what is only kept to be faster the next time."""
        driver.use(self._device)
        self._stream.synchronize()
        self._forget()
        self._scratch.release()

    def close(self) -> None:
        """Give everything back, even if CUDA works no more; whoever ran a frame was told."""
        with contextlib.suppress(SrDeployError):
            driver.use(self._device)
            self._stream.synchronize()
        self._forget()
        self._execution.close()
        for each in (self._arrived, self._done, self._stream):
            each.close()

    @contextlib.contextmanager
    def _settled(self) -> Iterator[None]:
        """After an error, wait until nothing touches the caller's memory, and begin anew."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(SrDeployError):  # the first error tells more
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
        """Have memory for frames of a shape, and the network ready for them."""
        wanted = (shape, result, plan, colored)
        if wanted == self._shape:
            return
        self._stream.synchronize()  # frames of the device may still be on their way
        self._drop_graph()
        self._shape = ()
        pixels = self._buffers.reserve("frame", int(np.prod(shape)))
        target = self._buffers.reserve("out", int(np.prod(result)))
        self._tiles = None
        if plan is not None:
            assert self._kernels is not None
            frames, shape = (shape[1:], result[1:]), (plan.batch, *plan.tile, shape[3])
            size = int(np.prod(shape))
            above = self._scale * plan.rows.ramp * result[2] * result[3]
            addresses = Addresses(
                pixels,
                target,
                tiles=self._buffers.reserve("tiles", size),
                results=self._buffers.reserve("results", size * self._scale**2),
                above=self._buffers.reserve("above", above),
            )
            self._tiles = Tiles(self._kernels, plan, frames, addresses, self._scale, self._sample)
            pixels, target = addresses.tiles, addresses.results
        color = self._buffers.reserve("color", _COLOR_BYTES) if colored else None
        self._needed = self._execution.bind(shape, pixels, target, color)
        self._lent = None
        self._shape = wanted

    def _upload(self, name: str, data: NDArray[np.uint8]) -> None:
        if not driver.is_page_locked(data):
            staged = self._buffers.staged(name, data.shape)
            np.copyto(staged, data)
            data = staged
        self._copy(self._buffers.address(name), data.ctypes.data, data.nbytes)

    def _copy(self, to: int, source: int, size: int) -> None:
        driver.copy(to, source, (1, size), (size, size), self._stream)

    def _compute(self) -> None:
        """Put everything between upload and download into the stream."""
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
                self._put()
            self._count += 1

    def _capture(self) -> None:
        """Make a graph of the chain; where that fails, it is not tried again."""
        try:
            self._graph = Graph(self._stream, self._put)
        except SrDeployError as error:
            # Its text only: a log that is kept would keep all that the error has seen.
            _log.debug("no CUDA graph, each step is launched by itself: %s", str(error))
            self._can_capture = False

    def _put(self) -> None:
        """Put the network into the stream, with tiles before it and stitching after it."""
        if self._tiles is None:
            self._execution.enqueue(self._stream)
        else:
            self._tiles.put(self._stream, self._execution.enqueue)

    def _drop_graph(self) -> None:
        graph, self._graph, self._count = self._graph, None, 0
        if graph is not None:
            graph.close()

    def _forget(self) -> None:
        """Give all memory back; nothing is on its way."""
        self._drop_graph()
        self._shape, self._tiles, self._lent = (), None, None
        self._buffers.close()
