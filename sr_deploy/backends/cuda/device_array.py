"""Images in GPU memory, shared with torch, CuPy, PyCUDA and others without a copy.

`__cuda_array_interface__` (version 3) and DLPack (version 0) both describe the memory, its layout
and the stream in which its content is ready. Neither needs a package.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sr_deploy.backends.cuda import dlpack, driver
from sr_deploy.backends.cuda.driver import CudaStream, Event
from sr_deploy.errors import InvalidInputError

_ALLOWED = "allowed are uint8 and uint16, (H, W) or (H, W, C), with contiguous rows"


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An image in GPU memory. Its content is ready for later work of its stream.

    `torch.from_dlpack`, `torch.as_tensor`, `cupy.asarray` and others read it without a copy.

    Attributes:
        address: Address of the first pixel.
        shape: (H, W) or (H, W, C).
        itemsize: Bytes of a sample, an unsigned integer: 1 or 2.
        pitch: Bytes from one row to the next.
        device: Index of the GPU.
        stream: Handle of the stream that produces the content.
        owner: The object that keeps the memory alive.
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
        """Height, width and bytes of a pixel."""
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
        """The array for Numba, CuPy, torch and others."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": "|u1" if self.itemsize == 1 else "<u2",
            "data": (self.address, False),
            "strides": self.strides,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's device type and the index."""
        return dlpack.CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        """Return the array as a DLPack capsule.

        Args:
            stream: Stream of the consumer, which waits for the content; -1: it need not wait.
        """
        if stream != -1:
            ready = Event()
            ready.record(CudaStream(self.stream))
            CudaStream(stream or driver.LEGACY_STREAM).wait(ready)
        strides = tuple(each // self.itemsize for each in self.strides)
        layout = dlpack.TensorLayout(self.address, self.shape, strides, self.itemsize, self.device)
        return dlpack.capsule(layout, self)


def on_device(image: object) -> bool:
    """Return whether an image is in GPU memory."""
    if isinstance(image, np.ndarray):
        return False
    return hasattr(image, "__cuda_array_interface__") or _has_dlpack(image)


def _has_dlpack(image: object) -> bool:
    """Return whether an image is in GPU memory by DLPack."""
    device = getattr(image, "__dlpack_device__", None)
    return device is not None and device()[0] == dlpack.CUDA


def stream_handle(stream: object) -> int | None:
    """Return the handle of a stream of CUDA, torch, CuPy or PyCUDA; None for None.

    Raises:
        InvalidInputError: it is not a stream.
    """
    if stream is None:
        return None
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1]) or driver.LEGACY_STREAM
    for name in ("cuda_stream", "ptr", "handle"):  # torch, CuPy, PyCUDA
        stream = getattr(stream, name, stream)
    try:
        return operator.index(stream) or driver.LEGACY_STREAM  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInputError(
            "stream must be a handle or a stream of torch, CuPy, PyCUDA or cuda-python, found "
            f"{type(stream).__name__}"
        ) from None


def view(image: Any, stream: int | None, *, writable: bool = False) -> DeviceArray:
    """Return another library's image as a `DeviceArray` on the same memory.

    Args:
        image: An object with `__cuda_array_interface__` or DLPack.
        stream: Stream in which the image is ready; None for the image's, or the default stream.
        writable: Whether the image will be written.

    Raises:
        InvalidInputError: `Engine.upscale` does not support the image.
        BackendError: CUDA does not work.
    """
    if isinstance(image, DeviceArray):
        return image
    interface = getattr(image, "__cuda_array_interface__", None)
    if _has_dlpack(image) and not (interface and interface.get("stream")):
        # Torch names no stream in the interface, but makes `stream` wait for its own in DLPack.
        stream = stream or driver.LEGACY_STREAM
        capsule = image.__dlpack__(stream=stream)
        found = dlpack.layout(capsule)
        strides = tuple(each * found.itemsize for each in found.strides)
        return _checked(capsule, found.address, found.shape, strides, found.itemsize, stream)
    if interface is None:
        raise InvalidInputError(
            f"an image in GPU memory needs an `out` in GPU memory, found {type(image).__name__}"
        )
    kind = interface["typestr"]
    address, read_only = interface["data"]
    if kind not in ("|u1", "<u2") or (writable and read_only):
        raise InvalidInputError(
            f"unsupported image in GPU memory, type {kind!r}{', read-only' * bool(read_only)}; "
            f"{_ALLOWED}"
        )
    ready = stream or interface.get("stream") or driver.LEGACY_STREAM
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    return _checked(image, address, shape, strides and tuple(strides), int(kind[2]), ready)


def _checked(
    owner: object,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    itemsize: int,
    stream: int,
) -> DeviceArray:
    """Return the array if it is an image with contiguous rows; `strides` None: contiguous."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise InvalidInputError(f"unsupported shape of an image in GPU memory: {shape}; {_ALLOWED}")
    found = DeviceArray(address, shape, itemsize, 0, driver.device_of(address), stream, owner)
    found = replace(found, pitch=strides[0] if strides and shape[0] > 1 else found.row_bytes)
    # The stride along an axis of length 1 has no meaning.
    gaps = strides and any(
        given != needed and side > 1
        for given, needed, side in zip(strides[1:], found.strides[1:], shape[1:], strict=True)
    )
    if gaps or found.pitch < found.row_bytes:
        raise InvalidInputError(
            f"unsupported strides of an image in GPU memory: {strides} for shape {shape}; "
            f"{_ALLOWED}; make it contiguous first"
        )
    return found
