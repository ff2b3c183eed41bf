from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_deploy.errors import InvalidInputError, OutOfMemoryError
from sr_deploy.runtime import channels

DEEP = [np.uint8, np.uint16]


def image(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def through(
    picture: NDArray[Any], network: int, run: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """Run all passes like the engine."""
    out = np.zeros((2 * picture.shape[0], 2 * picture.shape[1], picture.shape[2]), picture.dtype)
    for each in channels.passes(picture.shape[2], network):
        taken = each.take(picture)
        assert taken.shape[2] == network
        assert taken.flags.c_contiguous
        each.give(run(taken), out)
    return out


def doubled(taken: NDArray[Any]) -> NDArray[Any]:
    return taken.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("dtype", DEEP)
@pytest.mark.parametrize("network", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_kind_of_image_comes_back_as_it_is_from_a_network_that_repeats_pixels(
    depth: int, network: int, dtype: Any
) -> None:
    picture = image(5, 7, depth, dtype=dtype)
    assert np.array_equal(through(picture, network, doubled), doubled(picture))


def test_a_contiguous_rgb_image_is_not_copied() -> None:
    picture = image(4, 4, 3)
    (only,) = channels.passes(3, 3)
    assert np.shares_memory(only.take(picture), picture)


@pytest.mark.parametrize(
    ("depth", "network", "runs"),
    [(1, 1, 1), (1, 3, 1), (2, 1, 2), (2, 3, 2), (3, 3, 1), (3, 1, 3), (4, 3, 2), (4, 1, 4)],
)
def test_images_need_the_fewest_passes(depth: int, network: int, runs: int) -> None:
    passes = channels.passes(depth, network)
    assert len(passes) == runs
    assert [each.alpha for each in passes] == [False] * (runs - 1) + [depth in (2, 4)]


def test_gray_from_an_rgb_network_is_the_rounded_average() -> None:
    (only,) = channels.passes(1, 3)
    out = np.zeros((1, 3, 1), np.uint8)
    only.give(np.array([[[10, 10, 11], [10, 11, 11], [255, 255, 255]]], np.uint8), out)
    assert out.ravel().tolist() == [10, 11, 255]


def test_averages_of_tall_results_reach_the_last_row() -> None:
    (only,) = channels.passes(1, 3)
    result = image(150, 2, 1, dtype=np.uint16).repeat(3, axis=2)
    out = np.zeros((150, 2, 1), np.uint16)
    only.give(result, out)
    assert np.array_equal(out, result[..., :1])


def test_a_constant_alpha_is_detected() -> None:
    picture = image(3, 3, 4)
    color, alpha = channels.passes(4, 3)
    assert (color.alpha, alpha.alpha) == (False, True)
    assert alpha.constant(picture) is None
    picture[..., 3] = 77
    assert alpha.constant(picture) == 77


@pytest.mark.parametrize(
    ("shape", "seen"), [((4, 5), (4, 5, 1)), ((4, 5, 1), (4, 5, 1)), ((1, 1, 4), (1, 1, 4))]
)
def test_images_are_viewed_with_channels_without_a_copy(
    shape: tuple[int, ...], seen: tuple[int, ...]
) -> None:
    picture = image(*shape)
    found = channels.checked_image(picture)
    assert found.shape == seen
    assert np.shares_memory(found, picture)


@pytest.mark.parametrize("shape", [(), (5,), (4, 5, 5), (4, 5, 0), (0, 5), (5, 0, 3), (1, 4, 5, 3)])
def test_a_wrong_shape_is_named_with_the_allowed_ones(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"\(H, W\) and \(H, W, C\)") as caught:
        channels.checked_image(np.zeros(shape, np.uint8))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, bool, np.uint32, object])
def test_a_wrong_dtype_is_named_with_the_allowed_ones(dtype: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"uint8.*uint16") as caught:
        channels.checked_image(np.zeros((4, 5), dtype))
    assert str(np.dtype(dtype)) in str(caught.value)


@pytest.mark.parametrize("thing", [[[1, 2]], None, "photo.png"])
def test_other_types_are_named(thing: object) -> None:
    with pytest.raises(InvalidInputError, match=type(thing).__name__):
        channels.checked_image(thing)


def test_the_other_byte_order_is_understood() -> None:
    picture = image(4, 5, 3, dtype=np.uint16)
    swapped = picture.astype(picture.dtype.newbyteorder())
    (only,) = channels.passes(3, 3)
    assert np.array_equal(only.take(channels.checked_image(swapped)), picture)
    assert channels.checked_result(None, swapped, 2).dtype == np.uint16


def test_a_new_result_has_the_images_kind() -> None:
    assert channels.checked_result(None, image(3, 4), 2).shape == (6, 8)
    assert channels.checked_result(None, image(3, 4, 1), 2).shape == (6, 8, 1)
    assert channels.checked_result(None, image(3, 4, 4, dtype=np.uint16), 3).shape == (9, 12, 4)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((6, 8, 4), np.uint8),
        np.zeros((3, 4, 3), np.uint8),
        np.zeros((6, 8, 3), np.uint16),
        [1],
    ],
)
def test_an_out_of_another_shape_or_dtype_is_rejected(out: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\(6, 8, 3\).*uint8"):
        channels.checked_result(out, image(3, 4, 3), 2)


def test_a_failed_allocation_is_an_out_of_memory_error() -> None:
    wide = np.broadcast_to(np.uint8(0), (1 << 28, 1 << 28))
    with pytest.raises(OutOfMemoryError, match=r"\(536870912, 536870912\)"):
        channels.checked_result(None, wide, 2)


def test_a_read_only_out_is_rejected() -> None:
    out = np.zeros((6, 8, 3), np.uint8)
    out.flags.writeable = False
    with pytest.raises(InvalidInputError, match="read-only"):
        channels.checked_result(out, image(3, 4, 3), 2)


@pytest.mark.parametrize(
    ("shape", "strides"), [((6, 8), (0, 1)), ((6, 8), (4, 1)), ((6, 8, 3), (24, 3, 0))]
)
def test_an_out_that_overlaps_itself_is_rejected(
    shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    out = np.lib.stride_tricks.as_strided(np.zeros(1000, np.uint8), shape, strides)
    with pytest.raises(InvalidInputError, match=re.escape(str(strides))):
        channels.checked_result(out, image(3, 4, *shape[2:]), 2)


@pytest.mark.parametrize(
    "view",
    [
        lambda whole: whole[:6, :8, :3],
        lambda whole: whole[6:0:-1, 8:0:-1, 3:0:-1],
        lambda whole: whole[::2, ::2, ::2][:6, :8],
        lambda whole: whole.swapaxes(0, 1)[:6, :8, :3],
        lambda whole: whole.transpose(2, 0, 1)[:6, :8, :3],
    ],
)
def test_an_out_can_be_any_ordinary_view(view: Any) -> None:
    out = view(np.zeros((20, 20, 20), np.uint8))[:6, :8, :3]
    assert channels.checked_result(out, image(3, 4, 3), 2) is out


def test_an_out_of_one_row_can_have_any_stride() -> None:
    out = np.lib.stride_tricks.as_strided(np.zeros(1000, np.uint8), (1, 8), (0, 1))
    assert channels.checked_result(out, image(1, 8), 1) is out
