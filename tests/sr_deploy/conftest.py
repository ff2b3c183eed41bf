"""Fixtures of the runtime's tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def two_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP4 with two videos, of which the second is larger, two sounds and two subtitles."""
    pytest.importorskip("av")
    from tests.sr_deploy.video import films

    return films.two_programs(tmp_path_factory.mktemp("films") / "two.mp4")
