"""What tests of the runtime share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.fakes import cuda
from tests.fakes.cuda import FakeCuda


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A fake GPU, on which nothing may be left at the end."""
    fake = cuda.install(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks == {}
