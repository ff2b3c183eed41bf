from __future__ import annotations

import dataclasses

import pytest

from sr_deploy.bundle.tuning import Tuning
from sr_deploy.tiling import planner
from sr_deploy.tiling.limits import TileLimits
from tests.sr_deploy.manifests import MODEL

PLENTY = 1 << 40


@pytest.mark.parametrize("size", [(20, 30), (300, 200), (1, 900)])
@pytest.mark.parametrize("pixels", [PLENTY, 20_000])
def test_without_limits_frames_are_cut_as_the_model_says(
    size: tuple[int, int], pixels: int
) -> None:
    assert TileLimits(MODEL).plan(*size, pixels) == planner.plan(*size, MODEL, pixels)
    wanted = TileLimits(MODEL).plan(*size, pixels, (50, 60))
    assert wanted == planner.plan(*size, MODEL, None, (50, 60))


def test_the_memory_of_the_host_and_that_of_the_device_both_count() -> None:
    limits = TileLimits(MODEL, pixels=30_000)
    assert limits.plan(300, 300, PLENTY).tile_pixels <= 30_000
    assert limits.plan(300, 300, 10_000).tile_pixels <= 10_000
    assert limits.plan(100, 100, PLENTY).whole


@pytest.mark.parametrize("step", [1, 8])
@pytest.mark.parametrize("size", [(20, 30), (96, 128), (97, 128), (500, 90), (90, 700), (640, 640)])
@pytest.mark.parametrize("tile", [None, (40, 40), (400, 400)])
def test_no_tile_is_larger_than_allowed(
    size: tuple[int, int], step: int, tile: tuple[int, int] | None
) -> None:
    model = dataclasses.replace(MODEL, multiple_of=step)
    limits = TileLimits(model, (96, 128))
    plan = limits.plan(*size, PLENTY, tile)
    while True:
        assert plan.tile[0] <= 96
        assert plan.tile[1] <= 128
        smaller = limits.smaller(plan)
        if smaller is None:
            break
        assert smaller.tile_pixels < plan.tile_pixels
        plan = smaller
    assert plan.tile_pixels < 96 * 128


def test_a_fixed_size_is_obeyed_and_cannot_shrink() -> None:
    limits = TileLimits(dataclasses.replace(MODEL, fixed_size=(64, 96), fixed_batch=1))
    plan = limits.plan(100, 100, 1, (20, 20))
    assert plan.tile == (64, 96)
    assert limits.smaller(plan) is None


LIMITS = TileLimits(MODEL)
PIXELS = 1 << 20


def test_frames_are_cut_by_the_tuned_tile() -> None:
    plan = LIMITS.plan(200, 300, PIXELS, None, Tuning(tile=(64, 96), batch=3))
    assert plan.tile == (64, 96)
    assert plan.batch == 3


def test_the_users_tile_comes_first() -> None:
    plan = LIMITS.plan(200, 300, PIXELS, (80, 80), Tuning(tile=(64, 96)))
    assert plan.tile == (80, 80)


def test_a_tile_or_batch_for_which_memory_is_short_is_not_used() -> None:
    tuned = Tuning(tile=(64, 96), batch=4)
    assert LIMITS.plan(200, 300, 2 * 64 * 96, None, tuned).batch == 2
    short = LIMITS.plan(200, 300, 64 * 96 - 1, None, tuned)
    assert short.tile_pixels < 64 * 96
    assert short.batch == 1


def test_a_frame_that_goes_through_whole_is_no_batch() -> None:
    plan = LIMITS.plan(200, 300, PIXELS, None, Tuning(batch=4))
    assert plan.whole
    assert plan.batch == 1


def test_a_network_of_a_fixed_batch_keeps_it() -> None:
    model = dataclasses.replace(MODEL, fixed_batch=2)
    assert TileLimits(model).plan(200, 300, PIXELS, (64, 64), Tuning(batch=4)).batch == 2
