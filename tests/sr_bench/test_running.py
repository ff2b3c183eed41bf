"""What is measured follows from what is wished and what is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sr_bench import contenders, running
from sr_bench.jobs import DEFAULT
from sr_bench.records import Configuration
from sr_bench.running import BenchRequest
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import BundleError, ExportError, InvalidInputError, NotFoundError
from tests.sr_bench.conftest import Tiny

ALL = BenchRequest(
    backends=None,
    precisions=None,
    sizes=[(16, 12)],
    batches=[1],
    forms=[],
    pythons={},
    ground_truth=None,
    low_resolution=None,
    with_ceilings=False,
)
ONNXRUNTIME = Configuration("sr-deploy", "onnxruntime", "fp32")


def _chosen(tiny: Tiny, *, with_torch: bool = True, **changes: object) -> list[Configuration]:
    wish = dataclasses.replace(ALL, **changes)
    return running.chosen(Bundle.open(tiny.bundle), wish, "cpu", with_torch=with_torch)


def test_by_default_all_is_measured_and_the_baseline_is_stock_torch(tiny: Tiny) -> None:
    found = _chosen(tiny)
    assert tuple(found[:5]) == contenders.torch("cpu")
    assert found[5] == DEFAULT
    assert ONNXRUNTIME in found[6:]


def test_without_a_checkpoint_there_is_no_torch(tiny: Tiny) -> None:
    assert {each.runtime for each in _chosen(tiny, with_torch=False)} == {"sr-deploy"}


def test_of_torch_the_baseline_stays_whatever_precision_is_wished(tiny: Tiny) -> None:
    found = _chosen(tiny, backends=["torch"], precisions=["bf16"])
    assert [str(each) for each in found] == [
        "PyTorch eager FP32",
        "PyTorch channels_last BF16",
        "PyTorch compiled BF16",
    ]


def test_the_default_stays_whatever_precision_is_wished(tiny: Tiny) -> None:
    found = _chosen(tiny, precisions=["fp32"], with_torch=False)
    assert found[-1] == DEFAULT
    assert {each.precision for each in found[:-1]} == {"fp32"}


def test_the_default_can_be_wished_alone_or_beside_torch(tiny: Tiny) -> None:
    assert _chosen(tiny, backends=["default"]) == [DEFAULT]
    beside = _chosen(tiny, backends=["torch", "default"], precisions=["bf16"])
    assert [str(each) for each in beside[1:]] == [
        "PyTorch channels_last BF16",
        "PyTorch compiled BF16",
        "sr-deploy default",
    ]


def test_torch_alone_without_a_checkpoint_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="PyTorch's rows need the checkpoint"):
        _chosen(tiny, backends=["torch"], with_torch=False)


def test_only_wished_backends_are_measured(tiny: Tiny) -> None:
    assert _chosen(tiny, backends=["onnxruntime"], precisions=["fp32"]) == [ONNXRUNTIME]


def test_a_bundle_brings_the_checkpoint_that_is_named_or_beside(tiny: Tiny) -> None:
    with running.targets([tiny.bundle]) as ((bundle, checkpoint),):
        assert bundle.folder == tiny.bundle
        assert checkpoint == tiny.checkpoint.resolve()
    with running.targets([tiny.bundle, tiny.checkpoint]) as (pair,):
        assert pair[1] == tiny.checkpoint


def test_what_is_neither_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such bundle or checkpoint"):
        running.targets([Path("nowhere")]).__enter__()
    with pytest.raises(BundleError, match="not a bundle"):
        running.targets([tmp_path]).__enter__()
    other = tmp_path / "other.pth"
    other.write_bytes(b"no checkpoint")
    with pytest.raises(InvalidInputError, match="not the file that"):
        running.targets([tiny.bundle, other]).__enter__()
    with pytest.raises(ExportError, match=r"other\.pth: could not be exported: sr-export: "):
        running.targets([other]).__enter__()
