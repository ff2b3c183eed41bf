"""Every contender makes the same picture of a frame, each in its own way."""

from __future__ import annotations

import numpy as np
import pytest

from sr_bench import contenders
from sr_bench.contenders import TORCH, Job
from sr_bench.records import Contender
from sr_deploy import backends
from sr_deploy.bundle import Bundle
from sr_deploy.engine import Engine
from sr_deploy.errors import InvalidInputError
from sr_export import samples
from tests.bench.conftest import Tiny

# A level for each rounding that differs. BF16 has 8 significant bits, so near white one step of it
# is a level itself, and the network rounds at each of its three layers.
TOLERANCE = {"fp32": 1, "bf16": 5}


def test_the_engine_is_there_in_every_precision_that_runs_here(tiny: Tiny) -> None:
    found = contenders.engines(Bundle.open(tiny.bundle), None, None)
    for name in backends.available():
        computed = backends.create(name).precisions(None)
        ours = {each.precision for each in found if each.backend == name}
        assert ours == {"fp32", "bf16"}.intersection(computed)  # all that the bundle has


def test_what_is_asked_for_is_chosen(tiny: Tiny) -> None:
    found = contenders.engines(Bundle.open(tiny.bundle), ["onnxruntime"], ["fp32", "int8"])
    assert found == [Contender("sr-deploy", "onnxruntime", "fp32")]


def test_nothing_that_runs_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="int8 cannot be had"):
        contenders.engines(Bundle.open(tiny.bundle), None, ["int8"])


@pytest.mark.parametrize(
    "contender",
    [*TORCH, Contender("sr-deploy", "onnxruntime", "fp32")],
    ids=str,
)
def test_all_make_the_same_picture(contender: Contender, tiny: Tiny) -> None:
    frame = samples.batch(1, 33, 47, 3)[0]
    with Engine(tiny.bundle, precision="fp32") as engine:
        expected = engine.upscale(frame)
    job = Job(contender, str(tiny.bundle), str(tiny.checkpoint), threads=1)
    with contenders.opened(job) as upscale:
        found = upscale(frame)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    difference = np.abs(found.astype(int) - expected).max()
    assert difference <= TOLERANCE[contender.precision]


def test_strong_torch_keeps_its_pages_and_stock_torch_does_not() -> None:
    kept = {str(each): Job(each, "", None, 1).environment() for each in TORCH}
    assert kept["PyTorch eager FP32"] == {}
    assert kept["PyTorch channels_last FP32"] == {"GLIBC_TUNABLES": contenders.KEEP_PAGES}
