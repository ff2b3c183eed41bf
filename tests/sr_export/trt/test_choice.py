from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sr_deploy.bundle.manifest import Latent
from sr_deploy.bundle.plan_store import Shapes
from sr_deploy.errors import InvalidInputError
from sr_export.trt.choice import Choice
from tests.sr_deploy.manifests import MODEL

PLENTY = 1 << 36


def shapes(choice: Choice, free: int = PLENTY, pixel_format: Any = "rgb24", **model: Any) -> Shapes:
    return choice.shapes(dataclasses.replace(MODEL, **model), pixel_format, free)


def test_by_default_any_frame_up_to_1080p_goes_through_whole() -> None:
    assert shapes(Choice()) == Shapes((1, 64, 64), (1, 1080, 1920), (1, 1080, 1920))


def test_what_memory_does_not_allow_is_cut() -> None:
    found = shapes(Choice(), free=1 << 28)
    assert found.most[1] * found.most[2] <= (1 << 27) / MODEL.bytes_per_pixel
    assert found.most[1] * found.most[2] > 0.5 * (1 << 27) / MODEL.bytes_per_pixel


def test_a_frame_is_built_for_exactly() -> None:
    assert shapes(Choice(frame=(720, 1280))) == Shapes.exactly((1, 720, 1280))


def test_a_frame_of_yuv_has_its_colour_below() -> None:
    assert shapes(Choice(frame=(720, 1280)), pixel_format="nv12").best == (1, 1080, 1280)


def test_tiles_and_batches() -> None:
    assert shapes(Choice(tile=(256, 320), batch=4)) == Shapes.exactly((4, 256, 320))


def test_a_range_is_taken_as_it_is() -> None:
    limits = ((1, 64, 64), (1, 720, 1280), (2, 1080, 1920))
    assert shapes(Choice(limits=limits)) == Shapes(*limits)


def test_a_network_of_one_size_gets_that() -> None:
    assert shapes(Choice(), fixed_size=(64, 48), fixed_batch=1) == Shapes.exactly((1, 64, 48))


@pytest.mark.parametrize(
    ("choice", "model", "text"),
    [
        (Choice(tile=(64, 64)), {"fixed_size": (32, 32)}, "32x32"),
        (Choice(batch=2), {"fixed_batch": 1}, "batches of 1 only, not of 2"),
        (Choice(tile=(8, 64)), {"minimum": 16}, "from 16x16 pixels on, not 64x8"),
        (Choice(limits=((1, 8, 8),) * 3), {"minimum": 16}, "from 16x16"),
    ],
)
def test_what_the_network_does_not_take_is_said(
    choice: Choice, model: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidInputError, match=text):
        shapes(choice, **model)


LATENT = Latent(size=100, height=64, width=64)


def test_a_generator_makes_up_to_a_batch_of_images() -> None:
    most = (16, 1, 100)
    assert shapes(Choice(), latent=LATENT) == Shapes((1, 1, 100), most, most)
    assert shapes(Choice(batch=3), latent=LATENT).most == (3, 1, 100)
    image = 64 * 64 * MODEL.bytes_per_pixel
    assert shapes(Choice(), free=10 * image, latent=LATENT).most == (5, 1, 100)
    assert shapes(Choice(), free=1, latent=LATENT).most == (1, 1, 100)


@pytest.mark.parametrize(
    "choice", [Choice(frame=(64, 64)), Choice(tile=(64, 64)), Choice(limits=((1, 1, 100),) * 3)]
)
def test_a_generator_has_no_frames(choice: Choice) -> None:
    with pytest.raises(InvalidInputError, match="a generator takes numbers, no frames"):
        shapes(choice, latent=LATENT)
