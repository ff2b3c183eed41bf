"""The engine: opens a bundle on the best backend and upscales images of any size and kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from sr_deploy.backends.cuda import device_array
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import InvalidInputError
from sr_deploy.machine import parse_bytes
from sr_deploy.runtime.frame import FrameRunner, checked_tile
from sr_deploy.runtime.generator import ImageGenerator
from sr_deploy.runtime.lanes import closed
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
Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Spec:
    """What an engine runs.

    Attributes:
        architecture: Of the network.
        scale: How many times as high and as wide the result is.
        channels: Of the network, 1 or 3; images of others go through in several passes.
        backend: Its name.
        precision: In which the network computes 8-bit frames.
        device: The backend's name for it.
        threads: Of computation, on a CPU.
        lanes: Frames that it computes at once.
        memory: Bytes that the process may hold while a frame is upscaled.
        latent: What a generator takes and gives, see `Engine.generate`; None: it upscales.
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


class Engine:
    """Upscales images with a bundle, or makes them. Threads may share an engine.

    Args:
        path: The bundle's folder, `NAME.srd`.
        backend: "auto" for the best that is installed and takes the network, or "openvino" or
            "onnxruntime"; or "tensorrt", which is for NVIDIA GPUs.
        precision: "auto" for the fastest that the backend takes on the device; every precision of a
            bundle was measured and holds its budget. Or "fp32", "bf16", "fp16" or "int8", which is
            for 8-bit frames: those of 16 bits are computed in it where the bundle has it for them,
            else in FP32.
        device: The backend's name for a device; None for its default.
        threads: Of computation on a CPU; None for as many as this process has real cores.
        lanes: How many frames to compute at once, sharing the threads, where several threads call
            `upscale`, and in `stream`; more take more memory, and seldom pay on a CPU. None for 1
            on a CPU (see `streaming`), and for what keeps a GPU busy while others are copied.
        streaming: The engine is opened mainly for `stream`: where neither `lanes` nor a tuning says
            how many, two frames are computed at once on a CPU, unless on one thread. OpenVINO
            compiles the network for the size of the frames at once, and again for another.
        memory: The most that this process may hold while a frame is upscaled, in bytes or as text
            ("2GiB"); None for what it holds when the engine opens and a quarter of what is free.
            Of a GPU's memory, it may take as much; None for nearly all that is free.
        build: "auto" to build what is missing for this machine (TensorRT's plans, in minutes, kept
            in the bundle), "never" for an error instead.
        tile: Side, or height and width, of the tiles; None for the largest that memory allows.
        tuning: How to run the network where the arguments above say nothing; None for what
            `sr-bench --tune` found on such a machine and wrote into the bundle.

    Raises:
        NotFoundError, BundleError: the bundle is not there, or damaged.
        InvalidInputError: an argument does not fit.
        BackendMissingError, BackendError: the backend is not installed, or cannot run the network.
        OutOfMemoryError: there is not even memory to load the network.
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
        threads = threads if threads is None else _at_least_1("threads", threads)
        lanes = lanes if lanes is None else _at_least_1("lanes", lanes)
        if build not in ("auto", "never"):
            raise InvalidInputError(f"build must be auto or never, found {build!r}")
        limit = None if memory is None else parse_bytes(memory)
        wish = EngineOptions(
            backend, precision, device, threads, lanes, limit, build, tuning, streaming
        )
        self._budget = Budget.given(memory)
        bundle = Bundle.open(path)
        self._model = bundle.manifest.model
        first = pixel_format(self._model.channels, itemsize=1)
        self._networks = Session(bundle, first, wish)
        self._latents = ImageGenerator(self._networks, self._model, self._budget)
        self._frames = FrameRunner(self._networks, self._model, self._budget, tile)
        self._spec = Spec(
            architecture=self._model.architecture,
            scale=self._model.scale,
            channels=self._model.channels,
            backend=self._networks.backend.name,
            precision=self._networks.precision,
            device=self._networks.pool(first).network.device,
            threads=self._networks.threads,
            lanes=self._networks.pool(first).network.lanes,
            memory=self._budget.total,
            latent=self._model.latent,
        )

    @property
    def spec(self) -> Spec:
        """What this engine runs."""
        return self._spec

    @overload
    def upscale(self, image: Frame, out: Frame | None = None, *, reserve: int = 0) -> Frame: ...

    @overload
    def upscale(self, image: Any, out: Any = None, *, stream: object = None) -> Any: ...

    def upscale(
        self, image: Any, out: Any = None, *, reserve: int = 0, stream: object = None
    ) -> Any:
        """Return an image `scale` times as high and as wide, of the same kind.

        Args:
            image: uint8 or uint16, (H, W) or (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB)
                or 4 (RGB, alpha), of any size from 1x1; contiguous or not. It is only read. Or a
                frame of video as it was decoded, where `takes` says so.
            out: Where to put the result, (scale*H, scale*W[, C]) of the image's dtype; None for a
                new array. The fastest is one that is contiguous, used again and again. Of a YUV
                frame, one of the same kind.
            reserve: Bytes that the caller takes of the memory budget, beside image and result,
                while or right after this runs (for encoding the result, for example).
            stream: For an image on the GPU (of torch, CuPy, PyCUDA or whatever has
                `__cuda_array_interface__` or DLPack), the CUDA stream in which it was made and the
                result will be read; a handle, or the library's own object. None for the one that
                the image names, else the default stream. It has the network's channels.

        Returns:
            `out`, or the new array; for an image on the GPU a `DeviceArray`, which the same
            libraries take. On an error, `out` holds anything.

        Raises:
            InvalidInputError: the image or `out` does not fit, the engine is closed, or its network
                is a generator.
            BundleError: the bundle has no network for such frames of YUV.
            TilingNeededError: a frame of YUV does not fit into memory in one piece.
            OutOfMemoryError: the frame does not fit into the memory budget.
            BackendError: the backend failed.
        """
        if self._networks.closed:
            raise closed()
        self._model.require_images()
        if isinstance(image, YuvFrame):
            return self._frames.yuv(image, out, reserve)
        if device_array.on_device(image):
            return self._frames.on_device(image, out, stream)
        return self._frames.image(image, out, reserve)

    def generate(
        self, noise: NDArray[Any] | None = None, *, count: int = 1, seed: int | None = None
    ) -> NDArray[np.uint8]:
        """Return images that a generator makes out of random numbers.

        Args:
            noise: (N, size), N images' worth of numbers, as they were drawn in training; see
                `spec.latent`. None: they are drawn here, from the standard normal distribution.
            count: How many images to make of numbers that are drawn here.
            seed: The same one draws the same numbers; more images begin with those of fewer. None:
                others each time.

        Returns:
            (N, height, width, channels).

        Raises:
            InvalidInputError: the network takes images, an argument does not fit, or the engine is
                closed.
            OutOfMemoryError: not even one image fits into the memory budget.
            BackendError: the backend failed.
        """
        return self._latents.images(noise, count, seed)

    def pinned_frame(
        self, height: int, width: int, *, deep: bool = False, scaled: bool = False
    ) -> NDArray[Any]:
        """Return an array that frames are read from, or results written to, fastest.

        On a GPU it is page-locked: what is decoded into it is uploaded without another copy. It is
        the caller's for as long as he likes. Page-locked memory is scarce: use few of them, again
        and again.

        Args:
            height: Of the frame.
            width: Of the frame.
            deep: uint16 instead of uint8.
            scaled: For a result: `scale` times as high and as wide.

        Returns:
            (H, W, C) with the network's channels, of any content.

        Raises:
            InvalidInputError: the engine is closed, or a side is below 1.
            OutOfMemoryError: there is no memory for it.
        """
        _at_least_1("height", height), _at_least_1("width", width)
        scale = self._model.scale if scaled else 1
        dtype = np.dtype(np.uint16 if deep else np.uint8)
        network = self._networks.pool(pixel_format(self._model.channels, 1)).network
        depth = self._model.channels * dtype.itemsize
        return network.empty((scale * height, scale * width, depth)).view(dtype)

    def takes(self, pixel_format: YuvFormat, height: int, width: int) -> bool:
        """Return whether frames of YUV can be upscaled as they are, without RGB in between.

        That takes a network for them in the bundle (`sr-export --yuv`), which is loaded here, even
        sides, a backend that runs it (no TensorRT plans are built for YUV yet), and memory for a
        frame in one piece.

        Raises:
            InvalidInputError: the engine is closed.
        """
        return self._frames.takes(pixel_format, height, width)

    @overload
    def stream(
        self,
        frames: Iterable[Frame],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> Generator[Frame, None, None]: ...

    @overload
    def stream(
        self,
        frames: Iterable[tuple[Frame, Tag]],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> Generator[tuple[Frame, Tag], None, None]: ...

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
        frames: Iterable[Frame] | AsyncIterable[Frame],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> AsyncGenerator[Frame, None]: ...

    @overload
    def astream(
        self,
        frames: Iterable[tuple[Frame, Tag]] | AsyncIterable[tuple[Frame, Tag]],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> AsyncGenerator[tuple[Frame, Tag], None]: ...

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
        """Wait for the frames in flight, then give everything back; again does nothing."""
        self._networks.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{'closed ' if self._networks.closed else ''}Engine {self._spec}>"


def _at_least_1(name: str, value: int) -> int:
    """Return a number that the user gives.

    Raises:
        InvalidInputError: it is below 1.
    """
    if value < 1:
        raise InvalidInputError(f"{name} must be at least 1, found {value}")
    return value
