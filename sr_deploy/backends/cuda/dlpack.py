"""DLPack without a package: capsules that say where a tensor lies, read and made with ctypes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

CUDA = 2
"""The device type of memory on NVIDIA GPUs."""
_UNSIGNED = 1
_NAME = b"dltensor"


@dataclass(frozen=True)
class TensorLayout:
    """Where a tensor of unsigned integers lies.

    Attributes:
        address: Of its first element.
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
# The same two functions for a capsule that is just being destroyed: no reference may be taken.
_raw = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_is_valid = _raw(("PyCapsule_IsValid", ctypes.pythonapi))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

# What consumers hold: the structure, what it points to, and what owns the tensor's memory.
_lent: dict[int, tuple[_Managed, Any, Any, object]] = {}


def layout(capsule: object) -> TensorLayout:
    """Return where a capsule's tensor lies; its memory lives as long as the capsule.

    Raises:
        InvalidInputError: it does not hold unsigned integers.
    """
    managed = _Managed.from_address(_pointer(capsule, _NAME))
    tensor = managed.tensor
    if (tensor.code, tensor.lanes) != (_UNSIGNED, 1) or tensor.bits not in (8, 16):
        raise InvalidInputError(
            f"a tensor of DLPack type code {tensor.code} and {tensor.bits} bits does not fit; "
            "allowed are uint8 and uint16"
        )
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _contiguous(shape)
    address = (tensor.data or 0) + tensor.byte_offset
    return TensorLayout(address, shape, strides, tensor.bits // 8, tensor.device_id)


def capsule(found: TensorLayout, owner: object) -> object:
    """Return a capsule for a tensor; `owner` lives as long as someone uses it."""
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
    """Called by whoever took the tensor, when it is not used any more."""
    _lent.pop(address, None)


def _destroy(unused: int) -> None:
    """Called with a capsule that goes; its name tells whether anyone took the tensor."""
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
