from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from sr_deploy.bundle.manifest import Model
from sr_deploy.bundle.tuning import Tuning
from sr_deploy.errors import InvalidInputError
from sr_deploy.tiling.planner import SMALLEST, TileAxis, TilePlanner
from tests.sr_deploy.manifests import MODEL
from tests.sr_deploy.oracles import Convolutions, Pooling, frame, upscaled

MANY = range(120)


def sizes(noise: np.random.Generator, most: int) -> tuple[int, int]:
    """Draw a size from a log-uniform distribution."""
    height, width = np.exp(noise.uniform(0, np.log(most), 2)).astype(int)
    return int(height), int(width)


def a_model(noise: np.random.Generator) -> Model:
    halo = noise.choice([None, 0, 1, 7, 18, 40, 200])
    return dataclasses.replace(
        MODEL,
        halo=None if halo is None else int(halo),
        multiple_of=int(noise.choice([1, 2, 3, 8])),
        minimum=int(noise.choice([1, 4, 16])),
    )


def check(axis: TileAxis, step: int) -> None:
    """Check that tiles cover an axis and that exactly one tile owns each pixel."""
    assert axis.starts[0] == 0
    assert axis.padded >= axis.length
    assert all(start % step == 0 for start in axis.starts)
    assert axis.cuts[0] == 0
    assert axis.cuts[-1] == axis.length
    assert all(low < high for low, high in itertools.pairwise(axis.cuts))
    for index, start in enumerate(axis.starts):
        low, high = axis.span(index)
        assert start <= low < high <= start + axis.side
        if index:
            assert low <= axis.cuts[index] <= axis.span(index - 1)[1]


@pytest.mark.parametrize("seed", MANY)
def test_every_pixel_is_covered_for_any_size_and_network(seed: int) -> None:
    noise = np.random.default_rng(seed)
    model = a_model(noise)
    height, width = sizes(noise, 9000)
    most = int(np.exp(noise.uniform(np.log(64 * 64), np.log(4e7))))
    plan = TilePlanner(model).plan(height, width, most)
    check(plan.rows, model.multiple_of)
    check(plan.columns, model.multiple_of)
    assert plan.tile_pixels <= most or plan == TilePlanner(model).plan(height, width, 1)
    if not plan.blended:
        for axis in (plan.rows, plan.columns):
            for index in range(1, len(axis.starts)):
                cut = axis.cuts[index]
                assert cut - axis.starts[index] >= model.halo
                assert axis.starts[index - 1] + axis.side - cut >= model.halo


@pytest.mark.parametrize("seed", MANY)
def test_user_tiles_and_fixed_networks_cover_the_frame(seed: int) -> None:
    noise = np.random.default_rng(seed)
    model = a_model(noise)
    tile = sizes(noise, 300)
    height, width = sizes(noise, 3000)
    wanted = TilePlanner(model).plan(height, width, None, tile)
    for axis, side in zip((wanted.rows, wanted.columns), tile, strict=True):
        check(axis, 1)
        assert axis.side >= min(side, axis.length)
    fixed = dataclasses.replace(model, fixed_size=tile)
    obeyed = TilePlanner(fixed).plan(height, width, None, (5, 5))
    assert obeyed.tile == tile
    check(obeyed.rows, 1)
    check(obeyed.columns, 1)


def test_a_frame_that_fits_is_not_tiled() -> None:
    plan = TilePlanner(MODEL).plan(1080, 1920, 1080 * 1920)
    assert plan.whole
    assert len(plan) == 1
    assert TilePlanner(MODEL).plan(1080, 1920).whole


def test_a_frame_that_does_not_fit_is_divided_into_strips_of_full_width() -> None:
    plan = TilePlanner(MODEL).plan(1000, 1000, 600_000)
    assert plan.tile == (510, 1000)
    assert plan.rows.starts == (0, 490)
    assert plan.rows.cuts == (0, 500, 1000)


def test_strips_become_rectangles_where_overlap_dominates() -> None:
    plan = TilePlanner(MODEL).plan(2000, 8000, 400_000)
    assert len(plan.columns.starts) > 1
    assert len(plan.rows.starts) > 1
    assert plan.tile_pixels <= 400_000
    assert plan.pixels < 1.1 * 2000 * 8000


@pytest.mark.parametrize("seed", range(30))
def test_no_other_division_computes_fewer_pixels(seed: int) -> None:
    noise = np.random.default_rng(seed)
    height, width = (int(each) for each in noise.integers(200, 1500, 2))
    model = dataclasses.replace(MODEL, multiple_of=int(noise.choice([1, 4])))
    most = int(noise.integers(150 * 150, 600 * 600))
    found = TilePlanner(model).plan(height, width, most)
    assert not found.blended
    for sides in itertools.product(range(64, height + 1, 23), range(64, width + 1, 23)):
        other = TilePlanner(model).plan(height, width, None, sides)
        if other.tile_pixels <= most:
            assert found.pixels <= other.pixels


@pytest.mark.parametrize("grid", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(12))
def test_exact_tiles_equal_the_whole_frame_bit_for_bit(grid: int, seed: int) -> None:
    noise = np.random.default_rng(seed)
    network = Convolutions(depth=int(noise.integers(1, 4)), grid=grid, seed=seed)
    height, width = (int(each) for each in noise.integers(grid, 150, 2))
    least = 2 * network.halo + grid
    tile = tuple(int(each) for each in noise.integers(least, least + 50, 2))
    plan = TilePlanner(network.model).plan(height, width, None, tile)
    assert not plan.blended
    image = frame(height, width, seed=seed)
    assert np.array_equal(upscaled(network, image, plan), network(image))


def test_a_halo_one_too_small_would_show() -> None:
    network = Convolutions(depth=3)
    model = dataclasses.replace(network.model, halo=network.halo - 1)
    image = frame(82, 40)
    plan = TilePlanner(model).plan(82, 40, None, (30, 40))
    assert plan.rows.starts == (0, 26, 52)  # the overlap happens to be the minimum
    assert not np.array_equal(upscaled(network, image, plan), network(image))


@pytest.mark.parametrize("seed", range(8))
def test_tiles_chosen_for_memory_equal_the_whole_frame(seed: int) -> None:
    noise = np.random.default_rng(seed)
    network = Convolutions(depth=2, grid=int(noise.choice([1, 2])), seed=seed)
    height, width = (int(each) for each in noise.integers(150, 330, 2))
    plan = TilePlanner(network.model).plan(height, width, 100 * 100)
    assert len(plan) > 1
    image = frame(height, width, seed=seed)
    assert np.array_equal(upscaled(network, image, plan), network(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (15, 17), (40, 1)])
def test_frames_below_the_minimum_are_reflected_up_to_it(size: tuple[int, int]) -> None:
    network = Convolutions(depth=1)
    model = dataclasses.replace(network.model, minimum=16)
    plan = TilePlanner(model).plan(*size)
    assert plan.tile == tuple(max(side, 16) for side in size)
    image = frame(*size)
    out = upscaled(network, image, plan, model)
    rows, columns = (mirrored(side, 16) for side in size)
    expected = network(image[rows][:, columns])[: 2 * size[0], : 2 * size[1]]
    assert np.array_equal(out, expected)


def mirrored(length: int, least: int) -> list[int]:
    """Return indices that go up and down a length."""
    walk = list(range(length)) + list(range(length - 2, 0, -1))
    return [walk[i % len(walk)] for i in range(max(length, least))]


@pytest.mark.parametrize("tile", [None, 64, 90, 128])
def test_global_networks_are_blended_without_a_seam(tile: tuple[int, int] | int | None) -> None:
    """Tiles of a gradient differ in their means; the ramp limits the steps between them."""
    across = np.linspace(0, 255, 300)
    image = np.broadcast_to(across[None, :, None] / 2 + across[:, None, None] / 2, (300, 300, 3))
    image = np.ascontiguousarray(image.astype(np.uint8))
    plan = TilePlanner(Pooling.model).plan(300, 300, 100 * 100, tile and (tile, tile))
    assert plan.blended
    assert len(plan) > 4
    out = upscaled(Pooling(), image, plan).astype(int)
    cropped = dataclasses.replace(
        plan,
        rows=dataclasses.replace(plan.rows, ramp=0),
        columns=dataclasses.replace(plan.columns, ramp=0),
    )
    hard = upscaled(Pooling(), image, cropped).astype(int)
    # Means of neighbors differ by this much, over 32 output pixels; a smooth rise is 1.5 times as
    # steep in its middle. The image itself rises by 1, and each of two roundings moves a pixel by
    # up to half a level.
    gap = max(np.diff(plan.rows.starts)) / 300 * 255 / 4
    bound = 1.5 * gap / 32 + 1 + 2
    assert 0.8 * gap > bound
    for axis in (0, 1):
        assert np.abs(np.diff(out, axis=axis)).max() <= bound
        assert np.abs(np.diff(hard, axis=axis)).max() >= 0.8 * gap


def test_a_blended_constant_stays_constant() -> None:
    image = np.full((200, 300, 3), 200, np.uint8)
    plan = TilePlanner(Pooling.model).plan(200, 300, 80 * 80)
    assert (upscaled(Pooling(), image, plan) == 200).all()


def test_tiles_are_blended_only_where_exact_ones_cost_too_much() -> None:
    wide = dataclasses.replace(MODEL, halo=40)
    assert TilePlanner(wide).plan(1000, 1000, 150_000).pixels <= 1.5 * 1000 * 1000
    assert not TilePlanner(wide).plan(1000, 1000, 150_000).blended
    assert TilePlanner(wide).plan(1000, 1000, 20_000).blended
    # With the user's tile, tiles are exact whenever possible.
    assert not TilePlanner(wide).plan(1000, 1000, None, (90, 90)).blended
    assert TilePlanner(wide).plan(1000, 1000, None, (80, 80)).blended


def test_a_tile_is_enlarged_so_that_the_last_start_is_on_the_grid() -> None:
    model = dataclasses.replace(MODEL, multiple_of=8, halo=8)
    plan = TilePlanner(model).plan(205, 205, None, (64, 64))
    assert plan.tile == (69, 69)
    assert (205 - 69) % 8 == 0


def test_fixed_batches_count_against_memory() -> None:
    model = dataclasses.replace(MODEL, fixed_batch=4)
    plan = TilePlanner(model).plan(1000, 1000, 400_000)
    assert plan.batch == 4
    assert plan.tile_pixels <= 400_000


def test_smaller_plans_end_at_the_smallest_tile() -> None:
    plan = TilePlanner(MODEL).plan(500, 700)
    seen = [plan.tile_pixels]
    while (smaller := TilePlanner(MODEL).smaller(plan)) is not None:
        plan = smaller
        assert plan.tile_pixels <= max(seen[-1] // 2, 2 * SMALLEST**2)
        seen.append(plan.tile_pixels)
    assert plan.tile_pixels <= 2 * SMALLEST**2


def test_the_batch_is_halved_before_the_tile() -> None:
    plan = dataclasses.replace(TilePlanner(MODEL).plan(500, 700, 100_000), batch=4)
    smaller = TilePlanner(MODEL).smaller(plan)
    assert smaller == dataclasses.replace(plan, batch=2)


def test_nothing_is_smaller_than_a_fixed_tile() -> None:
    model = dataclasses.replace(MODEL, fixed_size=(64, 64))
    assert TilePlanner(model).smaller(TilePlanner(model).plan(100, 100)) is None


def test_an_empty_frame_or_tile_is_rejected() -> None:
    with pytest.raises(InvalidInputError, match="frame must be at least 1x1 pixels, found 5x0"):
        TilePlanner(MODEL).plan(0, 5)
    with pytest.raises(InvalidInputError, match="tile must be at least 1x1 pixels"):
        TilePlanner(MODEL).plan(5, 5, None, (0, 3))


@pytest.mark.parametrize("seed", range(20))
def test_if_nothing_fits_the_tile_is_the_smallest(seed: int) -> None:
    noise = np.random.default_rng(seed)
    height, width = sizes(noise, 5000)
    model = dataclasses.replace(MODEL, halo=10)
    plan = TilePlanner(model).plan(height, width, 1)
    # Spreading enlarges a side by less than a grid step for each tile.
    for side, length in zip(plan.tile, (height, width), strict=True):
        assert side <= min(length, 2 * SMALLEST)


def test_planning_the_largest_frames_is_fast() -> None:
    plan = TilePlanner(dataclasses.replace(MODEL, halo=0)).plan(65_500, 65_500, 64 * 64)
    assert plan.tile_pixels <= 2 * 64 * 64
    assert plan.pixels < 1.1 * 65_500**2


PLENTY = 1 << 40


def test_host_and_device_memory_both_limit_tiles() -> None:
    planner = TilePlanner(MODEL, max_pixels=30_000)
    assert planner.plan(300, 300, PLENTY).tile_pixels <= 30_000
    assert planner.plan(300, 300, 10_000).tile_pixels <= 10_000
    assert planner.plan(100, 100, PLENTY).whole


@pytest.mark.parametrize("step", [1, 8])
@pytest.mark.parametrize("size", [(20, 30), (96, 128), (97, 128), (500, 90), (90, 700), (640, 640)])
@pytest.mark.parametrize("tile", [None, (40, 40), (400, 400)])
def test_no_tile_is_larger_than_allowed(
    size: tuple[int, int], step: int, tile: tuple[int, int] | None
) -> None:
    model = dataclasses.replace(MODEL, multiple_of=step)
    planner = TilePlanner(model, (96, 128))
    plan = planner.plan(*size, PLENTY, tile)
    while True:
        assert plan.tile[0] <= 96
        assert plan.tile[1] <= 128
        smaller = planner.smaller(plan)
        if smaller is None:
            break
        assert smaller.tile_pixels < plan.tile_pixels
        plan = smaller
    assert plan.tile_pixels < 96 * 128


def test_a_fixed_size_overrules_the_tile_and_cannot_shrink() -> None:
    planner = TilePlanner(dataclasses.replace(MODEL, fixed_size=(64, 96), fixed_batch=1))
    plan = planner.plan(100, 100, 1, (20, 20))
    assert plan.tile == (64, 96)
    assert planner.smaller(plan) is None


PLANNER = TilePlanner(MODEL)
PIXELS = 1 << 20


def test_frames_are_divided_by_the_tuned_tile() -> None:
    plan = PLANNER.plan(200, 300, PIXELS, None, Tuning(tile=(64, 96), batch=3))
    assert plan.tile == (64, 96)
    assert plan.batch == 3


def test_the_users_tile_comes_first() -> None:
    plan = PLANNER.plan(200, 300, PIXELS, (80, 80), Tuning(tile=(64, 96)))
    assert plan.tile == (80, 80)


def test_a_tuned_tile_or_batch_that_exceeds_memory_is_not_used() -> None:
    tuned = Tuning(tile=(64, 96), batch=4)
    assert PLANNER.plan(200, 300, 2 * 64 * 96, None, tuned).batch == 2
    short = PLANNER.plan(200, 300, 64 * 96 - 1, None, tuned)
    assert short.tile_pixels < 64 * 96
    assert short.batch == 1


def test_a_frame_that_is_not_tiled_has_batch_1() -> None:
    plan = PLANNER.plan(200, 300, PIXELS, None, Tuning(batch=4))
    assert plan.whole
    assert plan.batch == 1


def test_a_fixed_batch_is_not_tuned() -> None:
    model = dataclasses.replace(MODEL, fixed_batch=2)
    assert TilePlanner(model).plan(200, 300, PIXELS, (64, 64), Tuning(batch=4)).batch == 2
