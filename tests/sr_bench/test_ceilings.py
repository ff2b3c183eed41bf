"""Ceilings are what the best kernel reached in its best try."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import onnxruntime
import pytest

from sr_bench import ceilings
from sr_bench.timings import Ceiling
from sr_deploy.bundle import schema


def test_the_higher_one_counts() -> None:
    before = {"fp32": Ceiling("a", (1.0, 3.0)), "int8": Ceiling("b", (5.0,))}
    after = {"fp32": Ceiling("c", (2.0, 2.0)), "bf16": Ceiling("d", (4.0,))}
    assert ceilings.joined(before, after) == before | {"bf16": after["bf16"]}
    assert ceilings.joined(after, before)["fp32"] == before["fp32"]
    assert ceilings.joined() == {}


def test_what_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ceilings.measured("a toaster", 1) == {}


def test_kernels_try_for_every_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ceilings, "_TRY_SECONDS", 0.0)
    monkeypatch.setattr(ceilings, "_COPY_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "_SIDE", 64)
    monkeypatch.setattr(ceilings, "_CHANNELS", (8,))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    ceilings.main("cpu", 1)
    told = json.loads(sys.stdout.getvalue())
    found = schema.decode(dict[str, Ceiling], told, "ceilings")
    assert {"copy", "fp32", "bf16", "int8"} <= found.keys()
    assert all(each.best > 0 and each.how for each in found.values())


def test_a_copy_reaches_every_byte() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "_COPY_BYTES", 1001)
        copy = ceilings._copy(3)
        copy()
    target = copy.__closure__  # the arrays that it copies
    assert target is not None
    parts = next(each.cell_contents for each in target if isinstance(each.cell_contents, list))
    assert sum(len(into) for into, _ in parts) == 1001
    assert all(np.array_equal(into, source) for into, source in parts)


@pytest.mark.parametrize("quantised", [True, False])
def test_the_convolutions_are_what_they_are_counted_as(quantised: bool) -> None:
    graph = ceilings._convolutions(8, quantised=quantised)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (fed,), (fetched,) = session.get_inputs(), session.get_outputs()
    assert fed.shape == fetched.shape == [1, 8, 64, 64]
