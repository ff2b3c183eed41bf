from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.tiling.blender import Blender, reflected
from sr_deploy.tiling.planner import TileAxis, TilePlan, TilePlanner
from tests.sr_deploy.oracles import Pooling, frame


def test_a_frame_of_the_right_size_is_not_copied() -> None:
    image = frame(4, 5)
    assert reflected(image, 4, 5) is image


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (4, 17)])
def test_reflection_equals_numpys(size: tuple[int, int]) -> None:
    image = frame(*size)
    expected = np.pad(image, ((0, 20 - size[0]), (0, 23 - size[1]), (0, 0)), "reflect")
    found = reflected(image, 20, 23)
    assert np.array_equal(found, expected)
    assert found.flags.c_contiguous


def test_a_single_pixel_is_repeated() -> None:
    image = frame(1, 1)
    assert (reflected(image, 3, 4) == image).all()


def put_levels(plan: TilePlan, levels: np.ndarray, sample: str = "u1") -> np.ndarray:
    """Fill each tile with a level of its own."""
    size = plan.rows.length, plan.columns.length
    out = np.zeros((*size, np.dtype(sample).itemsize), np.uint8)
    blender = Blender(out, plan, 1, np.dtype(sample))
    for row, column in plan:
        tile = np.full((*plan.tile, 1), levels[row, column], sample)
        blender.put(row, column, tile.view(np.uint8))
    return out.view(sample)[..., 0]


@pytest.mark.parametrize("sample", ["u1", "<u2"])
def test_four_tiles_are_blended_evenly_where_they_meet(sample: str) -> None:
    """The result is the product of a horizontal and a vertical ramp."""
    axis = TileAxis(100, 60, (0, 40), (0, 50, 100), 16)
    white = np.iinfo(sample).max
    levels = np.array([[0, white], [white, white // 3]])
    found = put_levels(TilePlan(axis, axis), levels, sample).astype(float)
    position = np.clip((np.arange(100) - 42 + 0.5) / 16, 0, 1)
    rise = position**2 * (3 - 2 * position)
    across = levels[:, :1] * (1 - rise) + levels[:, 1:] * rise
    expected = across[:1] * (1 - rise[:, None]) + across[1:] * rise[:, None]
    # Rounded once in each direction.
    assert np.abs(found - expected).max() <= 1


def test_without_a_ramp_tiles_are_not_blended() -> None:
    axis = TileAxis(100, 40, (0, 30, 60), (0, 35, 65, 100), 0)
    levels = np.arange(9).reshape(3, 3)
    found = put_levels(TilePlan(axis, axis), levels)
    index = np.repeat([0, 1, 2], [35, 30, 35])
    assert np.array_equal(found, levels[index[:, None], index])


def test_results_of_two_frames_do_not_mix() -> None:
    """Earlier contents of the output do not leak through a ramp."""
    plan = TilePlanner(Pooling.model).plan(150, 150, 64 * 64)
    levels = np.full((len(plan.rows.starts), len(plan.columns.starts)), 9)
    out = np.full((150, 150, 1), 200, np.uint8)
    blender = Blender(out, plan, 1, np.dtype("u1"))
    for row, column in plan:
        blender.put(row, column, np.full((*plan.tile, 1), levels[row, column], np.uint8))
    assert plan.blended
    assert (out == 9).all()
