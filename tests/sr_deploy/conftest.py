"""Fixtures of the runtime's tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.fakes import cuda
from tests.fakes.cuda import FakeCuda


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A fake GPU; the test fails if memory on it leaks."""
    fake = cuda.install(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks == {}
