"""What tests of the runtime share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.runtime import fake_cuda
from tests.runtime.fake_cuda import FakeCuda


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A fake GPU, on which nothing may be left at the end."""
    fake = fake_cuda.install(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks == {}
