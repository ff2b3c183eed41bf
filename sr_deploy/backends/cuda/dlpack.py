"""DLPack capsules of images in GPU memory, read and created with ctypes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

CUDA = 2
"""DLPack's device type of NVIDIA GPUs."""
_UNSIGNED = 1
_NAME = b"dltensor"


@dataclass(frozen=True)
class TensorLayout:
    """The memory layout of a tensor of unsigned integers.

    Attributes:
        address: Address of the first element.
        shape: Elements along each axis.
        strides: Elements from one to the next, along each axis.
        itemsize: Bytes of an element.
        device: Index of the GPU.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    device: int


class _Tensor(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, Any]]] = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, Any]]] = [
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
    ]


_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
# For a capsule in its destructor, which must not be referenced: it is passed as a pointer.
_raw = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_is_valid = _raw(("PyCapsule_IsValid", ctypes.pythonapi))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

# Tensors that consumers use: the structure, its shape and strides, and the owner of the memory.
_lent: dict[int, tuple[_Managed, Any, Any, object]] = {}


def layout(capsule: object) -> TensorLayout:
    """Return the layout of a capsule's tensor; the capsule keeps the memory alive.

    Raises:
        InvalidInputError: the elements are not uint8 or uint16.
    """
    managed = _Managed.from_address(_pointer(capsule, _NAME))
    tensor = managed.tensor
    if (tensor.code, tensor.lanes) != (_UNSIGNED, 1) or tensor.bits not in (8, 16):
        raise InvalidInputError(
            f"unsupported DLPack type, code {tensor.code} with {tensor.bits} bits; allowed are "
            "uint8 and uint16"
        )
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _contiguous(shape)
    address = (tensor.data or 0) + tensor.byte_offset
    return TensorLayout(address, shape, strides, tensor.bits // 8, tensor.device_id)


def capsule(found: TensorLayout, owner: object) -> object:
    """Return a capsule for a tensor; it keeps `owner` alive as long as the tensor is used."""
    count = len(found.shape)
    shape, strides = ((ctypes.c_int64 * count)(*each) for each in (found.shape, found.strides))
    pointer = ctypes.POINTER(ctypes.c_int64)
    tensor = _Tensor(
        *(found.address, CUDA, found.device, count, _UNSIGNED, 8 * found.itemsize, 1),
        *(ctypes.cast(each, pointer) for each in (shape, strides)),
        0,
    )
    managed = _Managed(tensor, None, _deleter)
    address = ctypes.addressof(managed)
    _lent[address] = (managed, shape, strides, owner)
    return _new(address, _NAME, _destructor)


def _take_back(address: int) -> None:
    """Release a tensor; the consumer calls this."""
    _lent.pop(address, None)


def _destroy(unused: int) -> None:
    """Release the tensor of a capsule that no consumer has renamed, so none will release it."""
    if _is_valid(unused, _NAME):
        _lent.pop(_raw_pointer(unused, _NAME), None)


_deleter = _Deleter(_take_back)
_destructor = _Destructor(_destroy)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for side in reversed(shape):
        strides.append(step)
        step *= side
    return tuple(reversed(strides))
