from __future__ import annotations

import dataclasses
import json

import pytest

from sr_deploy.bundle import schema
from sr_deploy.bundle.plan_store import Shapes
from sr_export.trt.build_request import BuildRequest, BuildSettings, Recipe, recipes

EIGHT = ("EXPLICIT_BATCH", "FP16", "INT8")
TEN = ("EXPLICIT_BATCH", "STRONGLY_TYPED", "FP16", "INT8", "BF16")
ELEVEN = ("STRONGLY_TYPED", "TF32")


def test_what_has_precision_flags_and_no_types_gets_flags() -> None:
    found = recipes("int8", typed_file=True, halves={"fp16"}, abilities=EIGHT)
    assert found == (
        Recipe("asked", "lowered", ("EXPLICIT_BATCH",), ("INT8", "FP16")),
        Recipe("mixed", "lowered", ("EXPLICIT_BATCH",), ("INT8",)),
    )
    found = recipes("fp32", typed_file=True, halves=(), abilities=EIGHT)
    assert found == (Recipe("asked", "lowered", ("EXPLICIT_BATCH",)),)


def test_what_knows_types_takes_them_from_the_file() -> None:
    found = recipes("fp16", typed_file=True, halves={"fp16"}, abilities=TEN)
    assert found == (
        Recipe("asked", "none", ("STRONGLY_TYPED",)),
        Recipe("mixed", "mixed", ("STRONGLY_TYPED",)),
    )


def test_what_knows_nothing_else_is_told_nothing() -> None:
    found = recipes("int8", typed_file=True, halves={"fp16"}, abilities=ELEVEN)
    assert [(each.creation, each.flags) for each in found] == [((), ()), ((), ())]


@pytest.mark.parametrize(("abilities", "count"), [(EIGHT, 0), (TEN, 1), (ELEVEN, 0)])
def test_bf16_without_a_file_of_its_own_needs_a_flag(
    abilities: tuple[str, ...], count: int
) -> None:
    assert len(recipes("bf16", typed_file=False, halves=(), abilities=abilities)) == count


def test_an_order_survives_the_way_to_another_process() -> None:
    order = BuildRequest(
        onnx="a.onnx",
        recipe=Recipe("mixed", "mixed", ("STRONGLY_TYPED",)),
        exact=False,
        shapes=Shapes((1, 2, 3), (1, 4, 5), (1, 6, 7)),
        settings=BuildSettings(level=2, version_compatible=True, reach="ampere"),
        timing_cache="t",
        device=1,
    )
    sent = json.loads(json.dumps(dataclasses.asdict(order)))
    assert schema.decode(BuildRequest, sent, "order") == order
