"""Ceilings are the best rates of several kernels; shares are relative to them."""

from __future__ import annotations

import dataclasses
import io
import json
import sys

import numpy as np
import onnxruntime
import pytest

from sr_bench import ceilings
from sr_bench.records import BenchRun, Ceiling, Timing
from sr_deploy.bundle import schema
from sr_deploy.bundle.bundle import Bundle
from tests.sr_bench.conftest import Tiny
from tests.sr_bench.examples import DEFAULT, EAGER, FULL, WORK, row


def test_the_higher_one_counts() -> None:
    before = {"fp32": Ceiling("a", (1.0, 3.0)), "int8": Ceiling("b", (5.0,))}
    after = {"fp32": Ceiling("c", (2.0, 2.0)), "bf16": Ceiling("d", (4.0,))}
    assert ceilings.joined(before, after) == before | {"bf16": after["bf16"]}
    assert ceilings.joined(after, before)["fp32"] == before["fp32"]
    assert ceilings.joined() == {}


def test_an_unknown_device_has_no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ceilings.measured("a toaster", 1) == {}


def test_every_precision_has_kernels(
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


@pytest.mark.parametrize("quantized", [True, False])
def test_the_convolutions_match_their_counted_work(quantized: bool) -> None:
    graph = ceilings._convolutions(8, quantized=quantized)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (fed,), (fetched,) = session.get_inputs(), session.get_outputs()
    assert fed.shape == fetched.shape == [1, 8, 64, 64]


CEILINGS = {
    "fp32": Ceiling("", (1.0, 2.0)),
    "bf16": Ceiling("", (4.0,)),
    "copy": Ceiling("", (8.0,)),
}


def test_a_call_is_counted_from_the_graph(tiny: Tiny) -> None:
    """Three convolutions 3x3: of 3 to 8, of 8 to 8, and of 8 to 12 channels, at 20x10 pixels."""
    found = ceilings.count(Bundle.open(tiny.bundle), (20, 10), 2)
    assert found is not None
    products = 3 * 8 + 8 * 8 + 8 * 12
    assert found.operations == 2 * 200 * 2 * 9 * products
    assert found.activations == 2 * 200 * (3 + 8 + 8 + 8 + 8 + 12)
    assert found.frame_bytes == 2 * 200 * 3 * (1 + 4)  # one byte a value, at scale 2
    biases, slopes = 8 + 8 + 12, 8 + 8
    assert found.weights == 9 * products + biases + slopes
    assert found.int8_share == 0.0


def test_arithmetic_or_memory_sets_the_limit() -> None:
    seconds, bound = ceilings.least_seconds(WORK, "fp32", CEILINGS) or (0.0, "")
    assert (seconds, bound) == (1e6 / 2e9, "arithmetic")
    light = dataclasses.replace(WORK, operations=0.0)
    seconds, bound = ceilings.least_seconds(light, "fp32", CEILINGS) or (0.0, "")
    assert (seconds, bound) == ((WORK.frame_bytes + 4 * WORK.weights) / 8e9, "memory")


def test_layers_outside_int8_have_their_own_ceiling() -> None:
    mixed = dataclasses.replace(WORK, int8_share=0.75)
    rates = CEILINGS | {"int8": Ceiling("", (8.0,))}
    seconds, _ = ceilings.least_seconds(mixed, "int8", rates) or (0.0, "")
    assert seconds == pytest.approx(0.75 * 1e6 / 8e9 + 0.25 * 1e6 / 4e9)


def test_fp16_computes_in_fp32_where_there_are_no_kernels() -> None:
    assert ceilings.least_seconds(WORK, "fp16", CEILINGS) == ceilings.least_seconds(
        WORK, "fp32", CEILINGS
    )
    rates = CEILINGS | {"fp16": Ceiling("", (4.0,))}
    assert ceilings.least_seconds(WORK, "fp16", rates) == (1e6 / 4e9, "arithmetic")


@pytest.mark.parametrize("missing", ["copy", "bf16"])
def test_without_a_rate_there_is_no_share(missing: str) -> None:
    bout = FULL.series[0].bouts[1]
    rates = {name: each for name, each in CEILINGS.items() if name != missing}
    assert ceilings.share(DEFAULT, bout, CEILINGS) is not None
    assert ceilings.share(DEFAULT, bout, rates) is None
    assert ceilings.share(DEFAULT, dataclasses.replace(bout, work=None), CEILINGS) is None


def test_the_network_alone_is_compared_if_timed() -> None:
    bout = FULL.series[0].bouts[1]
    share = ceilings.share(DEFAULT, bout, CEILINGS)
    assert share is not None
    assert share.value == pytest.approx(1e6 / 4e9 / 0.9e-3)  # of 0.9 ms, not of 1.0
    whole = row(EAGER, (2.0,))
    found = ceilings.share(whole, BenchRun((64, 32), 1, (whole,), WORK), CEILINGS)
    assert found == ceilings.CeilingShare(pytest.approx(1e6 / 2e9 / 2e-3), "arithmetic")
    assert Timing("upscale", ((2.0,),)) == whole.upscale
