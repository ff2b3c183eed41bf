from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import pytest

from sr_deploy.backends.cuda import dlpack
from sr_deploy.backends.cuda.dlpack import TensorLayout
from sr_deploy.errors import InvalidInputError


class Owner:
    """What keeps memory alive."""

    def __init__(self) -> None:
        self.memory = np.arange(60, dtype=np.uint16).reshape(4, 5, 3)

    @property
    def layout(self) -> TensorLayout:
        return TensorLayout(self.memory.ctypes.data, (4, 5, 3), (15, 3, 1), 2, 0)


def test_the_layout_of_a_torch_tensor() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(60, dtype=torch.uint8).reshape(4, 5, 3)[1:, :, :2]
    found = dlpack.layout(tensor.__dlpack__())
    assert found == TensorLayout(tensor.data_ptr(), (3, 5, 2), (15, 3, 1), 1, 0)
    with pytest.raises(InvalidInputError, match="uint8 and uint16"):
        dlpack.layout(torch.zeros(3).__dlpack__())


def test_torch_releases_the_owner_of_a_capsule(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor, since there is no GPU: the device's type is all that differs."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(dlpack, "CUDA", 1)
    owner = Owner()
    alive = weakref.ref(owner)
    expected = owner.memory.copy()
    tensor = torch.utils.dlpack.from_dlpack(dlpack.capsule(owner.layout, owner))
    del owner
    gc.collect()
    assert alive() is not None
    assert np.array_equal(tensor.view(torch.int16).numpy().view(np.uint16), expected)
    del tensor
    gc.collect()
    assert alive() is None


def test_an_unused_capsule_releases_its_owner() -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    capsule: Any = dlpack.capsule(owner.layout, owner)
    assert dlpack.layout(capsule) == owner.layout
    del owner
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_a_tensor_without_strides_is_contiguous() -> None:
    owner = Owner()
    capsule = dlpack.capsule(owner.layout, owner)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    managed = dlpack._Managed.from_address(pointer(capsule, b"dltensor"))
    managed.tensor.strides = None
    managed.tensor.byte_offset = 2
    found = dlpack.layout(capsule)
    assert found.strides == (15, 3, 1)
    assert found.address == owner.layout.address + 2
