"""Verification sees what is wrong, and where."""

from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.errors import CheckpointError, ExportError
from sr_export.graph import verify
from sr_export.graph.verify import InputLimits

FREE = InputLimits(minimum=1, grid=1, fixed_size=None, fixed_batch=None)


def _same(image: np.ndarray) -> np.ndarray:
    return image


def test_shapes_cover_odd_tiny_transposed_even_large_and_a_batch() -> None:
    shapes = verify.shapes(FREE)
    sizes = [shape[1:] for shape in shapes]
    assert (1, 1) in sizes
    assert any(height % 2 and width % 2 for height, width in sizes if height > 1)
    assert any((width, height) in sizes for height, width in sizes if height != width)
    assert any(height % 8 == 0 and width % 8 == 0 for height, width in sizes)
    assert any(height * width > 30_000 for height, width in sizes)
    assert any(batch > 1 for batch, _, _ in shapes)


def test_limits_are_kept() -> None:
    fixed = verify.shapes(InputLimits(64, 8, (64, 96), 1))
    assert fixed == [(1, 64, 96)]
    assert {batch for batch, _, _ in verify.shapes(InputLimits(16, 8, None, 1))} == {1}
    assert min(min(shape[1:]) for shape in verify.shapes(InputLimits(40, 8, None, 1))) == 40


def test_equal_graphs_pass() -> None:
    assert verify.compare(_same, _same, (2, 5, 7), 3).max_error == 0


def test_a_difference_is_named_with_its_place() -> None:
    with pytest.raises(ExportError, match=r"differs by 0\.01 at 1x3x5x7"):
        verify.compare(lambda image: image + np.float32(0.01), _same, (1, 5, 7), 3)


def test_another_shape_is_named() -> None:
    with pytest.raises(ExportError, match=r"\(1, 3, 4, 7\) at 1x3x5x7.*\(1, 3, 5, 7\)"):
        verify.compare(lambda image: image[:, :, 1:], _same, (1, 5, 7), 3)


def test_nan_is_the_networks_fault() -> None:
    with pytest.raises(CheckpointError, match=r"NaN.*1x3x5x7"):
        verify.compare(_same, lambda image: image * np.float32(np.nan), (1, 5, 7), 3)


def test_smallest_side_goes_up_to_what_runs() -> None:
    def needs_eight(image: np.ndarray) -> np.ndarray:
        if image.shape[2] < 8:
            raise ExportError("too small")
        return image

    assert verify.smallest_side(needs_eight, _same, FREE, 3) == 8


def test_nothing_that_runs_is_an_error() -> None:
    def never(image: np.ndarray) -> np.ndarray:
        raise ExportError("never")

    with pytest.raises(ExportError, match="never"):
        verify.smallest_side(never, _same, FREE, 3)


@pytest.mark.parametrize("depth", [8, 16])
def test_bytes_may_be_half_a_level_off_but_no_more(depth: int) -> None:
    shape = (1, 33, 47)
    verify.compare_bytes(_same, _same, shape, 3, depth)

    def shifted(frames: np.ndarray) -> np.ndarray:
        values = frames.view("u1" if depth == 8 else "<u2")
        step = values.dtype.type(2 if depth == 8 else 100)
        return np.where(values < 100, values + step, values - step).view(np.uint8)

    with pytest.raises(ExportError, match="levels at 33x47"):
        verify.compare_bytes(shifted, _same, shape, 3, depth)
