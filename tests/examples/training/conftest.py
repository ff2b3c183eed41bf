"""Small training photos, few calibration tiles, and one CPU thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sr_deploy import images
from sr_deploy.images import Picture


def drawing(number: int, height: int = 96, width: int = 120) -> NDArray[np.uint8]:
    """Boxes on a gradient."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([rows + columns, 2 * rows, 255 - columns], axis=2).astype(np.uint8)
    for _ in range(12):
        top, left = int(random.integers(height - 8)), int(random.integers(width - 8))
        picture[top : top + 14, left : left + 10] = random.integers(0, 256, 3)
    return picture


def save(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(pixels))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos."""
    for number in range(4):
        save(tmp_path / "photos" / f"{number}.png", drawing(number))
    return tmp_path / "photos"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
