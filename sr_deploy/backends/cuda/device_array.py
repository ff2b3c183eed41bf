"""Frames that lie on the GPU: taken from and given to torch, CuPy, PyCUDA and others, uncopied.

`__cuda_array_interface__` (version 3) and DLPack (version 0) both say where memory lies, what it
holds and in which stream that is ready. Neither needs a package.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.cuda import dlpack, driver
from sr_deploy.backends.cuda.driver import CudaStream, Event, Memory
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import Model

_ALLOWED = (
    "allowed are uint8 and uint16, (H, W) or (H, W, C), with no gaps between the pixels of a row"
)


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An image on the GPU; what it holds is ready for whoever waits for its stream.

    `torch.from_dlpack`, `torch.as_tensor`, `cupy.asarray` and the like take it without a copy.

    Attributes:
        address: Of its first pixel.
        shape: (H, W) or (H, W, C).
        itemsize: Bytes of a sample, 1 or 2; it is an unsigned integer.
        pitch: Bytes from one row to the next.
        device: Index of the GPU.
        stream: The handle of the stream in which it was made.
        owner: What keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    itemsize: int
    pitch: int
    device: int
    stream: int
    owner: object

    @property
    def channels(self) -> int:
        """Samples of a pixel."""
        return self.shape[2] if len(self.shape) == 3 else 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and the bytes of a pixel."""
        return self.shape[0], self.shape[1], self.channels * self.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.shape[1] * self.channels * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next, along each axis."""
        return (self.pitch, self.channels * self.itemsize, self.itemsize)[: len(self.shape)]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What Numba, CuPy, torch and others take."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": "|u1" if self.itemsize == 1 else "<u2",
            "data": (self.address, False),
            "strides": self.strides,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where it lies, in DLPack's numbers."""
        return dlpack.CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        """Return it as DLPack's capsule.

        Args:
            stream: In which the consumer is going to use it; -1: it waits itself.
        """
        if stream != -1:
            ready = Event()
            ready.record(CudaStream(self.stream))
            CudaStream(stream or driver.LEGACY_STREAM).wait(ready)
        strides = tuple(each // self.itemsize for each in self.strides)
        layout = dlpack.TensorLayout(self.address, self.shape, strides, self.itemsize, self.device)
        return dlpack.capsule(layout, self)


def on_device(image: object) -> bool:
    """Return whether an image lies on a GPU."""
    if isinstance(image, np.ndarray):
        return False
    return hasattr(image, "__cuda_array_interface__") or _lends(image)


def _lends(image: object) -> bool:
    """Return whether DLPack finds an image on a GPU."""
    device = getattr(image, "__dlpack_device__", None)
    return device is not None and device()[0] == dlpack.CUDA


def handle(stream: object) -> int | None:
    """Return the handle of a stream of CUDA, torch, CuPy or PyCUDA; None stays None.

    Raises:
        InvalidInputError: it is no stream.
    """
    if stream is None:
        return None
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1]) or driver.LEGACY_STREAM
    for name in ("cuda_stream", "ptr", "handle"):  # of torch, CuPy, PyCUDA
        stream = getattr(stream, name, stream)
    try:
        return operator.index(stream) or driver.LEGACY_STREAM  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInputError(
            f"a stream must be a handle or a stream of torch, CuPy, PyCUDA or cuda-python, found "
            f"{type(stream).__name__}"
        ) from None


def view(image: Any, stream: int | None, *, writable: bool = False) -> DeviceArray:
    """Return an image on the GPU as what the engine takes.

    Args:
        image: With `__cuda_array_interface__` or DLPack.
        stream: In which it is ready, or free to be written; None: what the image says, else that
            of everyone who says nothing.
        writable: Whether it is going to be written.

    Raises:
        InvalidInputError: it is not an image that `Engine.upscale` takes.
        BackendError: CUDA does not work here.
    """
    if isinstance(image, DeviceArray):
        return image
    interface = getattr(image, "__cuda_array_interface__", None)
    if _lends(image) and not (interface and interface.get("stream")):
        # Torch names no stream there, but waits for its own when it lends through DLPack.
        return _dlpack(image, stream or driver.LEGACY_STREAM)
    if interface is not None:
        return _interface(image, interface, stream, writable=writable)
    raise InvalidInputError(
        f"a frame on the GPU needs an `out` on the GPU, found {type(image).__name__}"
    )


def result(out: Any, frame: DeviceArray, model: Model, device: str) -> DeviceArray:
    """Return where the result of a frame goes: `out`, or a new image.

    Args:
        out: The user's, or None.
        frame: Of the user.
        model: Of the network.
        device: What the network runs on.

    Raises:
        InvalidInputError: the frame or `out` does not fit the network.
        OutOfMemoryError: there is no memory for a new image.
    """
    if device != f"cuda:{frame.device}":
        raise InvalidInputError(
            f"the image lies on the GPU cuda:{frame.device}, but this engine runs on {device}; "
            "bring the image to the host, or open the engine with backend='tensorrt' and "
            f"device='cuda:{frame.device}'"
        )
    if frame.channels != model.channels:
        raise InvalidInputError(
            f"an image on the GPU of {frame.channels} channels does not fit a network of "
            f"{model.channels}; split its channels, or bring it to the host, where any go"
        )
    height, width, *rest = frame.shape
    shape = (model.scale * height, model.scale * width, *rest)
    if out is None:
        driver.use(frame.device)
        return _empty(shape, frame)
    found = view(out, frame.stream, writable=True)
    if (found.shape, found.itemsize, found.device) != (shape, frame.itemsize, frame.device):
        raise InvalidInputError(
            f"out must have shape {shape} and {frame.itemsize} bytes a sample on cuda:"
            f"{frame.device}, found {found.shape} and {found.itemsize} on cuda:{found.device}"
        )
    return found


def _empty(shape: tuple[int, ...], like: DeviceArray) -> DeviceArray:
    pitch = int(np.prod(shape[1:])) * like.itemsize
    memory = Memory(shape[0] * pitch)
    where = like.device, like.stream
    return DeviceArray(memory.address, shape, like.itemsize, pitch, *where, owner=memory)


def _interface(
    image: object, found: dict[str, Any], stream: int | None, *, writable: bool
) -> DeviceArray:
    """Read `__cuda_array_interface__`."""
    shape, kind = tuple(found["shape"]), found["typestr"]
    address, read_only = found["data"]
    if kind not in ("|u1", "<u2") or (writable and read_only):
        raise InvalidInputError(
            f"an image on the GPU of type {kind!r}{', read-only,' * bool(read_only)} does not "
            f"fit; {_ALLOWED}"
        )
    itemsize = int(kind[2])
    _check_shape(shape)
    inner = (shape[2] if len(shape) == 3 else 1) * itemsize
    strides = found.get("strides") or (shape[1] * inner, inner, itemsize)[: len(shape)]
    ready = stream or found.get("stream") or driver.LEGACY_STREAM
    return _checked(image, address, shape, tuple(strides), itemsize, ready)


def _dlpack(image: Any, stream: int) -> DeviceArray:
    """Read DLPack; the image sees to it that it is ready in the stream."""
    capsule = image.__dlpack__(stream=stream)
    found = dlpack.layout(capsule)
    _check_shape(found.shape)
    strides = tuple(each * found.itemsize for each in found.strides)
    return _checked(capsule, found.address, found.shape, strides, found.itemsize, stream)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise InvalidInputError(f"an image on the GPU of shape {shape} does not fit; {_ALLOWED}")


def _checked(
    owner: object,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    itemsize: int,
    stream: int,
) -> DeviceArray:
    """Return the array, if the pixels of a row have no gaps between them."""
    device = driver.device_of(address)
    found = DeviceArray(address, shape, itemsize, strides[0], device, stream, owner)
    if shape[0] == 1:
        found = replace(found, pitch=found.row_bytes)
    # How far it is to the next of one element means nothing.
    gaps = any(
        there != here and side > 1
        for there, here, side in zip(strides[1:], found.strides[1:], shape[1:], strict=True)
    )
    if gaps or found.pitch < found.row_bytes:
        raise InvalidInputError(
            f"an image on the GPU of shape {shape} and strides {strides} does not fit; {_ALLOWED}; "
            "make it contiguous first"
        )
    return found
