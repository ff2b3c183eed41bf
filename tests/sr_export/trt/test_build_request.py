from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sr_deploy.bundle import schema
from sr_deploy.bundle.manifest import Latent
from sr_deploy.bundle.plan_store import Shapes
from sr_deploy.errors import InvalidInputError
from sr_export.trt.build_request import (
    BuildRequest,
    BuildSettings,
    PrecisionRecipe,
    ShapeOptions,
    recipes,
)
from tests.sr_deploy.manifests import MODEL

EIGHT = ("EXPLICIT_BATCH", "FP16", "INT8")
TEN = ("EXPLICIT_BATCH", "STRONGLY_TYPED", "FP16", "INT8", "BF16")
ELEVEN = ("STRONGLY_TYPED", "TF32")


def test_a_version_without_strong_typing_gets_flags() -> None:
    found = recipes("int8", typed_file=True, halves={"fp16"}, abilities=EIGHT)
    assert found == (
        PrecisionRecipe("asked", "lowered", ("EXPLICIT_BATCH",), ("INT8", "FP16")),
        PrecisionRecipe("mixed", "lowered", ("EXPLICIT_BATCH",), ("INT8",)),
    )
    found = recipes("fp32", typed_file=True, halves=(), abilities=EIGHT)
    assert found == (PrecisionRecipe("asked", "lowered", ("EXPLICIT_BATCH",)),)


def test_a_version_with_strong_typing_uses_the_files_types() -> None:
    found = recipes("fp16", typed_file=True, halves={"fp16"}, abilities=TEN)
    assert found == (
        PrecisionRecipe("asked", "none", ("STRONGLY_TYPED",)),
        PrecisionRecipe("mixed", "mixed", ("STRONGLY_TYPED",)),
    )


def test_a_version_with_strong_typing_only_gets_no_flags() -> None:
    found = recipes("int8", typed_file=True, halves={"fp16"}, abilities=ELEVEN)
    assert [(each.creation, each.flags) for each in found] == [((), ()), ((), ())]


@pytest.mark.parametrize(("abilities", "count"), [(EIGHT, 0), (TEN, 1), (ELEVEN, 0)])
def test_bf16_from_the_fp32_file_needs_a_flag(abilities: tuple[str, ...], count: int) -> None:
    assert len(recipes("bf16", typed_file=False, halves=(), abilities=abilities)) == count


def test_a_build_request_survives_json() -> None:
    order = BuildRequest(
        onnx="a.onnx",
        recipe=PrecisionRecipe("mixed", "mixed", ("STRONGLY_TYPED",)),
        exact=False,
        shapes=Shapes((1, 2, 3), (1, 4, 5), (1, 6, 7)),
        settings=BuildSettings(
            optimization_level=2, version_compatible=True, compatibility="ampere"
        ),
        timing_cache="t",
        device=1,
    )
    sent = json.loads(json.dumps(dataclasses.asdict(order)))
    assert schema.decode(BuildRequest, sent, "order") == order


PLENTY = 1 << 36


def shapes(
    options: ShapeOptions, free: int = PLENTY, pixel_format: Any = "rgb24", **model: Any
) -> Shapes:
    return options.shapes(dataclasses.replace(MODEL, **model), pixel_format, free)


def test_the_default_is_any_frame_up_to_1080p() -> None:
    assert shapes(ShapeOptions()) == Shapes((1, 64, 64), (1, 1080, 1920), (1, 1080, 1920))


def test_the_default_is_limited_by_memory() -> None:
    found = shapes(ShapeOptions(), free=1 << 28)
    assert found.most[1] * found.most[2] <= (1 << 27) / MODEL.bytes_per_pixel
    assert found.most[1] * found.most[2] > 0.5 * (1 << 27) / MODEL.bytes_per_pixel


def test_a_frame_size_is_the_only_shape() -> None:
    assert shapes(ShapeOptions(frame=(720, 1280))) == Shapes.exactly((1, 720, 1280))


def test_yuv_frames_have_rows_for_chroma() -> None:
    assert shapes(ShapeOptions(frame=(720, 1280)), pixel_format="nv12").best == (1, 1080, 1280)


def test_tiles_and_batches() -> None:
    assert shapes(ShapeOptions(tile=(256, 320), batch=4)) == Shapes.exactly((4, 256, 320))


def test_a_range_is_used_unchanged() -> None:
    limits = ((1, 64, 64), (1, 720, 1280), (2, 1080, 1920))
    assert shapes(ShapeOptions(limits=limits)) == Shapes(*limits)


def test_a_fixed_size_is_the_only_shape() -> None:
    assert shapes(ShapeOptions(), fixed_size=(64, 48), fixed_batch=1) == Shapes.exactly((1, 64, 48))


@pytest.mark.parametrize(
    ("options", "model", "text"),
    [
        (ShapeOptions(tile=(64, 64)), {"fixed_size": (32, 32)}, "32x32"),
        (ShapeOptions(batch=2), {"fixed_batch": 1}, "1.*2"),
        (ShapeOptions(tile=(8, 64)), {"minimum": 16}, "16x16.*8x64"),
        (ShapeOptions(limits=((1, 8, 8),) * 3), {"minimum": 16}, "16x16"),
    ],
)
def test_unsupported_shapes_are_rejected(
    options: ShapeOptions, model: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidInputError, match=text):
        shapes(options, **model)


LATENT = Latent(size=100, height=64, width=64)


def test_shapes_of_a_generator() -> None:
    most = (16, 1, 100)
    assert shapes(ShapeOptions(), latent=LATENT) == Shapes((1, 1, 100), most, most)
    assert shapes(ShapeOptions(batch=3), latent=LATENT).most == (3, 1, 100)
    image = 64 * 64 * MODEL.bytes_per_pixel
    assert shapes(ShapeOptions(), free=10 * image, latent=LATENT).most == (5, 1, 100)
    assert shapes(ShapeOptions(), free=1, latent=LATENT).most == (1, 1, 100)


@pytest.mark.parametrize(
    "options",
    [
        ShapeOptions(frame=(64, 64)),
        ShapeOptions(tile=(64, 64)),
        ShapeOptions(limits=((1, 1, 100),) * 3),
    ],
)
def test_a_generator_rejects_frame_options(options: ShapeOptions) -> None:
    with pytest.raises(InvalidInputError, match="--batch"):
        shapes(options, latent=LATENT)
