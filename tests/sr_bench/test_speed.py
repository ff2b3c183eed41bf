"""The selection of configurations, sizes and targets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sr_bench import configurations, speed
from sr_bench.configurations import DEFAULT
from sr_bench.records import Configuration
from sr_bench.speed import BenchRequest
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import BundleError, ExportError, InvalidInputError, NotFoundError
from tests.sr_bench.conftest import Tiny
from tests.sr_deploy.manifests import MODEL

ALL = BenchRequest(
    backends=None,
    precisions=None,
    sizes=[(16, 12)],
    batches=[1],
    modes=[],
    pythons={},
    ground_truth=None,
    low_resolution=None,
    with_ceilings=False,
)
ONNXRUNTIME = Configuration("sr-deploy", "onnxruntime", "fp32")


def _selected(
    tiny: Tiny, *, with_torch: bool = True, quick: bool = False, **changes: object
) -> list[Configuration]:
    request = dataclasses.replace(ALL, **changes)
    bundle = Bundle.open(tiny.bundle)
    return speed.select(bundle, request, "cpu", with_torch=with_torch, quick=quick)


def test_a_full_run_measures_all_and_the_baseline_is_stock_torch(tiny: Tiny) -> None:
    found = _selected(tiny)
    assert tuple(found[:5]) == configurations.torch_configurations("cpu")
    assert found[5] == DEFAULT
    assert ONNXRUNTIME in found[6:]


def test_a_quick_run_measures_few_configurations(tiny: Tiny) -> None:
    found = _selected(tiny, quick=True)
    baseline, strong, default, *engines = found
    assert baseline == configurations.torch_configurations("cpu")[0]
    assert (strong.backend, strong.precision) == ("channels_last", "bf16")
    assert default == DEFAULT
    assert {each.precision for each in engines} == {"fp32"}


def test_a_quick_run_measures_everything_that_is_requested(tiny: Tiny) -> None:
    requested = {"backends": ["torch"], "precisions": ["bf16"]}
    assert _selected(tiny, quick=True, **requested) == _selected(tiny, **requested)


def test_a_quick_run_has_smaller_frames_for_larger_networks() -> None:
    work = (89.0, 400.0, 10_000.0)
    models = [dataclasses.replace(MODEL, gflop_per_megapixel=each) for each in work]
    assert [speed.quick_size(each) for each in models] == [(480, 270), (256, 256), (128, 128)]


def test_without_a_checkpoint_there_is_no_torch(tiny: Tiny) -> None:
    assert {each.runtime for each in _selected(tiny, with_torch=False)} == {"sr-deploy"}


def test_the_baseline_is_independent_of_requested_precisions(tiny: Tiny) -> None:
    found = _selected(tiny, backends=["torch"], precisions=["bf16"])
    assert [str(each) for each in found] == [
        "PyTorch eager FP32",
        "PyTorch channels_last BF16",
        "PyTorch compiled BF16",
    ]


def test_the_default_is_independent_of_requested_precisions(tiny: Tiny) -> None:
    found = _selected(tiny, precisions=["fp32"], with_torch=False)
    assert found[-1] == DEFAULT
    assert {each.precision for each in found[:-1]} == {"fp32"}


def test_the_default_can_be_requested_alone_or_with_torch(tiny: Tiny) -> None:
    assert _selected(tiny, backends=["default"]) == [DEFAULT]
    beside = _selected(tiny, backends=["torch", "default"], precisions=["bf16"])
    assert [str(each) for each in beside[1:]] == [
        "PyTorch channels_last BF16",
        "PyTorch compiled BF16",
        "sr-deploy default",
    ]


def test_torch_alone_without_a_checkpoint_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="--checkpoint"):
        _selected(tiny, backends=["torch"], with_torch=False)


def test_only_requested_backends_are_measured(tiny: Tiny) -> None:
    assert _selected(tiny, backends=["onnxruntime"], precisions=["fp32"]) == [ONNXRUNTIME]


def test_the_checkpoint_of_a_bundle_is_named_or_lies_beside_it(tiny: Tiny) -> None:
    with speed.opened_targets([tiny.bundle]) as ((bundle, checkpoint),):
        assert bundle.folder == tiny.bundle
        assert checkpoint == tiny.checkpoint.resolve()
    with speed.opened_targets([tiny.bundle, tiny.checkpoint]) as (pair,):
        assert pair[1] == tiny.checkpoint


def test_a_path_that_is_neither_bundle_nor_checkpoint_is_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        speed.opened_targets([Path("nowhere")]).__enter__()
    with pytest.raises(BundleError, match=str(tmp_path)):
        speed.opened_targets([tmp_path]).__enter__()
    other = tmp_path / "other.pth"
    other.write_bytes(b"no checkpoint")
    with pytest.raises(InvalidInputError, match=r"other\.pth"):
        speed.opened_targets([tiny.bundle, other]).__enter__()
    with pytest.raises(ExportError, match=r"other\.pth.*sr-export"):
        speed.opened_targets([other]).__enter__()
