"""Operations and bytes are counted, and shares of the ceiling follow from them."""

from __future__ import annotations

import dataclasses

import pytest

from sr_bench import work
from sr_bench.timings import Ceiling, Run, Timing
from sr_deploy.bundle.bundle import Bundle
from tests.sr_bench.conftest import Tiny
from tests.sr_bench.examples import DEFAULT, EAGER, FULL, WORK, row

CEILINGS = {
    "fp32": Ceiling("", (1.0, 2.0)),
    "bf16": Ceiling("", (4.0,)),
    "copy": Ceiling("", (8.0,)),
}


def test_a_call_is_counted_from_the_graph(tiny: Tiny) -> None:
    """Three convolutions 3x3: of 3 to 8, of 8 to 8, and of 8 to 12 channels, at 20x10 pixels."""
    found = work.count(Bundle.open(tiny.bundle), (20, 10), 2)
    assert found is not None
    products = 3 * 8 + 8 * 8 + 8 * 12
    assert found.operations == 2 * 200 * 2 * 9 * products
    assert found.activations == 2 * 200 * (3 + 8 + 8 + 8 + 8 + 12)
    assert found.frame_bytes == 2 * 200 * 3 * (1 + 4)  # one byte a value, at scale 2
    biases, slopes = 8 + 8 + 12, 8 + 8
    assert found.weights == 9 * products + biases + slopes
    assert found.int8_share == 0.0


def test_arithmetic_or_memory_sets_the_limit() -> None:
    seconds, bound = work.least(WORK, "fp32", CEILINGS) or (0.0, "")
    assert (seconds, bound) == (1e6 / 2e9, "arithmetic")
    light = dataclasses.replace(WORK, operations=0.0)
    seconds, bound = work.least(light, "fp32", CEILINGS) or (0.0, "")
    assert (seconds, bound) == ((WORK.frame_bytes + 4 * WORK.weights) / 8e9, "memory")


def test_what_is_not_in_int8_has_its_own_ceiling() -> None:
    mixed = dataclasses.replace(WORK, int8_share=0.75)
    ceilings = CEILINGS | {"int8": Ceiling("", (8.0,))}
    seconds, _ = work.least(mixed, "int8", ceilings) or (0.0, "")
    assert seconds == pytest.approx(0.75 * 1e6 / 8e9 + 0.25 * 1e6 / 4e9)


def test_fp16_computes_in_fp32_where_there_are_no_kernels() -> None:
    assert work.least(WORK, "fp16", CEILINGS) == work.least(WORK, "fp32", CEILINGS)
    ceilings = CEILINGS | {"fp16": Ceiling("", (4.0,))}
    assert work.least(WORK, "fp16", ceilings) == (1e6 / 4e9, "arithmetic")


@pytest.mark.parametrize("missing", ["copy", "bf16"])
def test_what_was_not_measured_has_no_share(missing: str) -> None:
    bout = FULL.series[0].bouts[1]
    ceilings = {name: each for name, each in CEILINGS.items() if name != missing}
    assert work.share(DEFAULT, bout, CEILINGS) is not None
    assert work.share(DEFAULT, bout, ceilings) is None
    assert work.share(DEFAULT, dataclasses.replace(bout, work=None), CEILINGS) is None


def test_the_network_alone_is_compared_where_it_was_timed() -> None:
    bout = FULL.series[0].bouts[1]
    share = work.share(DEFAULT, bout, CEILINGS)
    assert share is not None
    assert share.value == pytest.approx(1e6 / 4e9 / 0.9e-3)  # of 0.9 ms, not of 1.0
    whole = row(EAGER, (2.0,))
    found = work.share(whole, Run((64, 32), 1, (whole,), WORK), CEILINGS)
    assert found == work.CeilingShare(pytest.approx(1e6 / 2e9 / 2e-3), "arithmetic")
    assert Timing("upscale", ((2.0,),)) == whole.upscale
