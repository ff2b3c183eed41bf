"""The engine: opens a bundle and upscales images of any size and kind."""

from __future__ import annotations

import asyncio
import math
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from sr_deploy.backends.cuda import device_array
from sr_deploy.bundle import tuning as tuning_record
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import InvalidInputError
from sr_deploy.machine import parse_bytes
from sr_deploy.runtime.frame import FrameRunner, checked_tile
from sr_deploy.runtime.generator import ImageGenerator
from sr_deploy.runtime.memory import Budget
from sr_deploy.runtime.selection import pixel_format
from sr_deploy.runtime.session import EngineOptions, Session
from sr_deploy.runtime.stream import FrameStream
from sr_deploy.runtime.yuv import YuvFrame

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Latent, Precision, YuvFormat
    from sr_deploy.bundle.tuning import Tuning

Frame = TypeVar("Frame", bound="NDArray[Any] | YuvFrame")
# What goes into a stream: results have the type of their frames, also in pairs with a tag.
Item = TypeVar("Item", bound="NDArray[Any] | YuvFrame | tuple[NDArray[Any] | YuvFrame, Any]")


@dataclass(frozen=True)
class Spec:
    """The configuration of an open engine.

    Attributes:
        architecture: The network's architecture.
        scale: Ratio of the result's height and width to the image's.
        channels: Channels of the network, 1 or 3; images with others are upscaled in several
            passes.
        backend: Name of the backend.
        precision: Precision of 8-bit frames.
        device: The backend's name for the device.
        threads: CPU threads of computation.
        lanes: Number of frames computed at once.
        memory: Limit of the process's resident memory while a frame is upscaled, in bytes.
        latent: Input and output of a generator, see `Engine.generate`; None for networks that
            upscale.
        assumed: Properties of the network that the export could not confirm, such as the range of
            its pixel values; empty if all are certain.
    """

    architecture: str
    scale: int
    channels: int
    backend: str
    precision: Precision
    device: str
    threads: int
    lanes: int
    memory: int
    latent: Latent | None = None
    assumed: tuple[str, ...] = ()


class Engine:
    """Upscales images with a bundle, or generates them. Threads may share an engine.

    Use it as a context manager, plain or asynchronous. An engine that is not closed is closed by
    the garbage collector.

    Args:
        path: The bundle's folder, `NAME.srd`.
        backend: "auto" for the best installed one that can run the network, or "openvino",
            "onnxruntime", "tensorrt" (NVIDIA GPUs), or "tensorrt_rtx" (RTX GPUs).
        precision: "auto" for the fastest on this device, or "fp32", "bf16", "fp16" or "int8". All
            precisions of a bundle passed a quality check. A named precision applies to 8-bit
            frames; 16-bit frames use it if the bundle has it for them, else FP32.
        device: The backend's name for a device; None for its default.
        threads: CPU threads of computation; None for the physical cores available to this process.
        lanes: Number of frames computed at once, which share the threads, when several threads
            call `upscale`, and in `stream`. More lanes take more memory and rarely pay on a CPU.
            None for 1 on a CPU (see `streaming`), and on a GPU for what keeps it busy during
            copies.
        streaming: The engine is mainly for `stream`: if neither `lanes` nor the tuning sets the
            number, a CPU with several threads computes two frames at once. OpenVINO compiles the
            network for the size of the frames in advance, and again when the size changes.
        memory: Limit of the process's resident memory while a frame is upscaled, in bytes or as
            text ("2GiB"); None for the memory in use plus a quarter of the free memory. It also
            limits GPU memory; None for nearly all free GPU memory.
        build: "auto" to build what is missing for this machine (TensorRT plans: takes minutes, and
            they are stored in the bundle), "never" for an error instead.
        tile: Side, or height and width, of the tiles; None for the largest that memory allows.
        tuning: Settings used where the arguments above are None; None for the result of
            `sr-bench --tune` in the bundle, if it was measured on such a machine.

    Raises:
        NotFoundError, BundleError: the bundle does not exist or is damaged.
        InvalidInputError: an argument is invalid.
        BackendMissingError, BackendError: the backend is not installed or cannot run the network.
        OutOfMemoryError: the network does not fit into memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        precision: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        lanes: int | None = None,
        streaming: bool = False,
        memory: str | int | None = None,
        build: Literal["auto", "never"] = "auto",
        tile: int | tuple[int, int] | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        tile = checked_tile(tile)
        for name, value in (("threads", threads), ("lanes", lanes)):
            if value is not None:
                _check_within(name, value, tuning_record.MOST[name])
        if build not in ("auto", "never"):
            raise InvalidInputError(f"build must be 'auto' or 'never', found {build!r}")
        limit = None if memory is None else parse_bytes(memory)
        options = EngineOptions(
            backend, precision, device, threads, lanes, limit, build, tuning, streaming
        )
        self._budget = Budget.given(memory)
        bundle = Bundle.open(path)
        self._model = bundle.manifest.model
        first = pixel_format(self._model.channels, itemsize=1)
        self._session = Session(bundle, first, options)
        self._closer = weakref.finalize(self, self._session.close)
        # At exit the process's memory goes anyway, and waiting for frames could block the exit.
        self._closer.atexit = False
        self._generator = ImageGenerator(self._session, self._model, self._budget)
        self._frames = FrameRunner(self._session, self._model, self._budget, tile)
        network = self._session.pool(first).network
        self._spec = Spec(
            architecture=self._model.architecture,
            scale=self._model.scale,
            channels=self._model.channels,
            backend=self._session.backend.name,
            precision=self._session.precision,
            device=network.device,
            threads=self._session.threads,
            lanes=network.lanes,
            memory=self._budget.total,
            latent=self._model.latent,
            assumed=bundle.manifest.source.assumed,
        )

    @property
    def spec(self) -> Spec:
        """The configuration of this engine."""
        return self._spec

    @overload
    def upscale(self, image: Frame, out: Frame | None = None, *, reserve: int = 0) -> Frame: ...

    @overload
    def upscale(self, image: Any, out: Any = None, *, stream: object = None) -> Any: ...

    def upscale(
        self, image: Any, out: Any = None, *, reserve: int = 0, stream: object = None
    ) -> Any:
        """Return the upscaled image, `scale` times as high and as wide, of the same kind.

        Args:
            image: uint8 or uint16, (H, W) or (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB)
                or 4 (RGB, alpha), of any size from 1x1, contiguous or not; it is not modified. Or
                a decoded `YuvFrame`, if `takes` allows it. Or an image in GPU memory with the
                network's channels (of torch, CuPy, PyCUDA or any library with
                `__cuda_array_interface__` or DLPack).
            out: Array for the result, (scale*H, scale*W[, C]) of the image's dtype, or a YUV frame
                of the image's kind; None for a new one. Reusing a contiguous array is fastest.
                After an error its contents are undefined.
            reserve: Bytes of the memory budget that the caller takes beside image and result while
                this runs or right after it, for example for encoding the result.
            stream: For an image in GPU memory, the CUDA stream in which it was made and the result
                will be read: a handle, or the library's own object. None for the stream that the
                image names, else the default stream.

        Returns:
            `out`, or the new array; for an image in GPU memory a `DeviceArray`, which the same
            libraries accept.

        Raises:
            InvalidInputError: the image or `out` is invalid, the engine is closed, or its network
                is a generator.
            BundleError: the bundle has no network for such YUV frames.
            TilingNeededError: a YUV frame would have to be tiled to fit into memory.
            OutOfMemoryError: the frame does not fit into the memory budget.
            BackendError: the backend failed.
        """
        self._model.require_images()
        if isinstance(image, YuvFrame):
            return self._frames.yuv(image, out, reserve)
        if not isinstance(image, np.ndarray) and device_array.on_device(image):
            return self._frames.device_image(image, out, stream)
        return self._frames.image(image, out, reserve)

    def generate(
        self, noise: NDArray[Any] | None = None, *, count: int = 1, seed: int | None = None
    ) -> NDArray[np.uint8]:
        """Return images that a generator makes from noise.

        Args:
            noise: (N, size), the noise of N images as in training, see `spec.latent`; None to draw
                it from the standard normal distribution.
            count: Number of images, if the noise is drawn.
            seed: Seed of the drawn noise: equal seeds give equal images, and more images begin
                with those of a smaller count. None for different images each time.

        Returns:
            (N, height, width, channels).

        Raises:
            InvalidInputError: the network is not a generator, an argument is invalid, or the engine
                is closed.
            OutOfMemoryError: not even one image fits into the memory budget.
            BackendError: the backend failed.
        """
        return self._generator.images(noise, count, seed)

    def pinned_frame(
        self, height: int, width: int, *, deep: bool = False, scaled: bool = False
    ) -> NDArray[Any]:
        """Return an uninitialized array for frames or results that transfers fastest.

        On a GPU it is page-locked: what is decoded into it is uploaded without another copy. The
        caller owns it. Page-locked memory is scarce: use few arrays, and reuse them.

        Args:
            height: Height of the frame.
            width: Width of the frame.
            deep: uint16 instead of uint8.
            scaled: For a result: `scale` times as high and as wide.

        Returns:
            (H, W, C) with the network's channels.

        Raises:
            InvalidInputError: the engine is closed, or a side is below 1.
            OutOfMemoryError: the allocation fails.
        """
        _check_within("height", height)
        _check_within("width", width)
        scale = self._model.scale if scaled else 1
        dtype = np.dtype(np.uint16 if deep else np.uint8)
        network = self._session.pool(pixel_format(self._model.channels, 1)).network
        depth = self._model.channels * dtype.itemsize
        return network.empty((scale * height, scale * width, depth)).view(dtype)

    def takes(self, pixel_format: YuvFormat, height: int, width: int) -> bool:
        """Return whether YUV frames can be upscaled without conversion to RGB.

        This requires a network for them in the bundle (`sr-export --yuv`), which is loaded here,
        even sides, a backend that can run it (TensorRT plans for YUV are not supported yet), and
        memory for a frame that is not tiled.

        Raises:
            InvalidInputError: the engine is closed.
        """
        return self._frames.takes_yuv(pixel_format, height, width)

    @overload
    def stream(
        self,
        frames: Iterable[Item],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> Generator[Item, None, None]: ...

    @overload
    def stream(
        self,
        frames: Iterable[Any],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> Generator[Any, None, None]: ...

    def stream(
        self,
        frames: Iterable[Any],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> Generator[Any, None, None]:
        """Yield the result of each frame, in order, while other frames are read and computed.

        One thread reads the frames, others compute them, and the loop's body overlaps with both.
        Memory is bounded: a slow loop makes the source wait. An error of the source, the network
        or the loop ends the stream at its frame, as does leaving the loop. The threads end when
        the source has returned what was last requested of it.

        Args:
            frames: Images as `upscale` takes them, of any sizes; or pairs of an image and a tag
                of any type, which comes back with the image's result. Do not change an image
                before its result arrives.
            in_flight: Number of frames in flight; None for what keeps all threads busy within the
                memory budget.
            latest: For live sources, which must not wait: a waiting frame is replaced by a newer
                one.
            reuse: A result is valid only until the next one is requested, then its memory is
                reused, which is faster.

        Yields:
            The result of each image, or pairs of a result and the image's tag.

        Raises:
            InvalidInputError: `in_flight` is below 1, `frames` is a single image, or, at its
                turn, an image is invalid.
        """
        overlap = self._stream(in_flight, reuse=reuse).overlap(frames, latest=latest)
        return overlap.results()

    @overload
    def astream(
        self,
        frames: Iterable[Item] | AsyncIterable[Item],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> AsyncGenerator[Item, None]: ...

    @overload
    def astream(
        self,
        frames: Iterable[Any] | AsyncIterable[Any],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> AsyncGenerator[Any, None]: ...

    def astream(
        self,
        frames: Iterable[Any] | AsyncIterable[Any],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Yield results as `stream` does, without blocking the event loop.

        `contextlib.aclosing` ends the returned generator early. The arguments are those of
        `stream`; `frames` may be asynchronous.

        Raises:
            InvalidInputError: as `stream`.
        """
        overlap = self._stream(in_flight, reuse=reuse).overlap(frames, latest=latest)
        return overlap.aresults()

    def _stream(self, in_flight: int | None, *, reuse: bool) -> FrameStream:
        return FrameStream(
            self.upscale,
            scale=self._model.scale,
            lanes=self._spec.lanes,
            memory=self._budget.total,
            in_flight=in_flight,
            reuse=reuse,
        )

    def close(self) -> None:
        """Close the engine after the frames in flight; repeated calls do nothing."""
        self._closer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<{'closed ' if self._session.closed else ''}Engine {self._spec}>"


def _check_within(name: str, value: int, most: float = math.inf) -> None:
    """Check that an argument is from 1 to `most`.

    Raises:
        InvalidInputError: it is not.
    """
    if not 1 <= value <= most:
        allowed = "at least 1" if most == math.inf else f"from 1 to {most}"
        raise InvalidInputError(f"{name} must be {allowed}, found {value}")
