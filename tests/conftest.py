"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shipped_checkpoint() -> Path:
    """The checkpoint that comes with the project."""
    return ROOT / "examples" / "compact_x2.pth"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests without a GPU, but fail them where a GPU was promised."""
    if item.get_closest_marker("gpu") is None or _gpus():
        return
    if os.environ.get("SR_REQUIRE_GPU") == "1":
        pytest.fail("SR_REQUIRE_GPU=1, but there is no NVIDIA GPU")
    pytest.skip("needs an NVIDIA GPU")


def _gpus() -> bool:
    return Path("/dev/nvidiactl").exists()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first, so that most mistakes show within the first minutes."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of garbage collections: some tests start several."""
    gc.collect()
    gc.freeze()
