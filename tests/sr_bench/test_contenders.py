"""Every contender makes the same picture of a frame, each in its own way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sr_bench import bare, contenders
from sr_bench.engine_runner import EngineRunner
from sr_bench.jobs import DEFAULT, WorkerSpec
from sr_bench.records import Configuration
from sr_bench.torch_runner import TorchRunner
from sr_deploy import backends
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.engine import Engine
from sr_deploy.errors import BackendError, InvalidInputError
from sr_export import photos
from tests.sr_bench.conftest import Tiny

# A level for each rounding that differs. BF16 has 8 significant bits, so near white one step of it
# is a level itself, and the network rounds at each of its three layers.
TOLERANCE = {"fp32": 1, "bf16": 5}
TORCH = contenders.torch("cpu")
EAGER = [each for each in TORCH if each.backend != "compiled"]
ONNXRUNTIME = Configuration("sr-deploy", "onnxruntime", "fp32")


def _job(contender: Configuration, tiny: Tiny) -> WorkerSpec:
    return WorkerSpec(contender, str(tiny.bundle), str(tiny.checkpoint), threads=1)


def test_the_engine_is_there_in_every_precision_that_runs_here(tiny: Tiny) -> None:
    found = contenders.engines(Bundle.open(tiny.bundle), None, None)
    for name in backends.available():
        computed = backends.create(name).precisions(None)
        ours = {each.precision for each in found if each.backend == name}
        assert ours == {"fp32", "bf16"}.intersection(computed)  # all that the bundle has


def test_what_is_asked_for_is_chosen(tiny: Tiny) -> None:
    found = contenders.engines(Bundle.open(tiny.bundle), ["onnxruntime"], ["fp32", "int8"])
    assert found == [Configuration("sr-deploy", "onnxruntime", "fp32")]


def test_nothing_that_runs_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="int8 cannot be had"):
        contenders.engines(Bundle.open(tiny.bundle), None, ["int8"])


def test_a_backend_that_lives_elsewhere_is_asked_there(tiny: Tiny, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny.bundle)
    pythons = {"onnxruntime": sys.executable}
    found = contenders.engines(bundle, ["onnxruntime"], None, None, pythons)
    assert found == contenders.engines(bundle, ["onnxruntime"], None)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BackendError, match="cannot use the backend onnxruntime: no such module"):
        contenders.engines(bundle, ["onnxruntime"], None, None, {"onnxruntime": str(broken)})


def test_on_a_gpu_the_strong_forms_are_in_half_precision() -> None:
    assert {each.precision for each in contenders.torch("cuda")[1:]} == {"fp32", "fp16"}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return photos.batch(2, 33, 47, 3)


@pytest.fixture(scope="module")
def expected(frames: np.ndarray, tiny: Tiny) -> np.ndarray:
    with Engine(tiny.bundle, precision="fp32") as engine:
        return np.stack([engine.upscale(frame) for frame in frames])


@pytest.mark.parametrize("contender", [*EAGER, ONNXRUNTIME, DEFAULT], ids=str)
def test_all_make_the_same_picture(
    contender: Configuration, frames: np.ndarray, expected: np.ndarray, tiny: Tiny
) -> None:
    opened = contenders.opened(_job(contender, tiny))
    try:
        for count in (1, 2):
            found = opened.upscale(frames[:count])
            assert found.shape == expected[:count].shape
            assert found.dtype == np.uint8
            assert found.flags.c_contiguous
            difference = np.abs(found.astype(int) - expected[:count]).max()
            precision = (opened.ran or contender).precision
            assert difference <= TOLERANCE[precision]
    finally:
        opened.close()


def test_the_default_says_what_it_turned_out_to_be(tiny: Tiny) -> None:
    opened = EngineRunner(_job(DEFAULT, tiny))
    assert opened.ran is not None
    assert opened.ran.backend == backends.available()[0]
    assert EngineRunner(_job(ONNXRUNTIME, tiny)).ran is None


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_backends_called_bare_make_the_same_picture(
    backend: str, frames: np.ndarray, expected: np.ndarray, tiny: Tiny
) -> None:
    job = _job(Configuration("sr-deploy", backend, "fp32"), tiny)
    run = bare.call(Bundle.open(tiny.bundle), backend, "fp32", job, frames[:, None])
    assert run is not None
    for index in (0, 1):
        found = run(index)
        assert isinstance(found, np.ndarray)
        assert np.abs(found[0].astype(int) - expected[index]).max() <= 1  # rounding


def test_what_cannot_be_called_bare_is_left_out(frames: np.ndarray, tiny: Tiny) -> None:
    job = _job(ONNXRUNTIME, tiny)
    assert bare.call(Bundle.open(tiny.bundle), "tensorrt", "fp32", job, frames[:, None]) is None


@pytest.mark.parametrize("contender", [TORCH[0], ONNXRUNTIME], ids=str)
def test_the_network_takes_most_of_a_call(
    contender: Configuration, frames: np.ndarray, tiny: Tiny
) -> None:
    opened = contenders.opened(_job(contender, tiny))
    opened.upscale(frames)
    calls = [opened.staged(frames[:1]) for _ in range(20)]
    assert all(each >= 0 for stages in calls for each in stages.values())
    # At 33x47 nothing else takes as long; of twenty calls, other programs disturb some.
    least = {name: min(stages[name] for stages in calls) for name in calls[0]}
    assert least["network"] == max(least.values())


def test_measuring_stages_leaves_the_engine_as_it_was(frames: np.ndarray, tiny: Tiny) -> None:
    opened = EngineRunner(_job(ONNXRUNTIME, tiny))
    before = opened.upscale(frames)
    opened.staged(frames)
    (lane,) = opened._engine._session.pool("rgb24")._idle.queue
    assert "run" not in vars(lane)
    np.testing.assert_array_equal(opened.upscale(frames), before)


def test_settling_compiles_for_the_size_at_once(frames: np.ndarray, tiny: Tiny) -> None:
    opened = EngineRunner(_job(Configuration("sr-deploy", "openvino", "fp32"), tiny))
    opened.upscale(frames[:1])
    (lane,) = opened._engine._session.pool("rgb24")._idle.queue
    assert lane._inference._special is None
    opened.settle(frames[:1])
    assert lane._inference._special is not None


def test_an_engine_overlaps_and_a_script_does_not(frames: np.ndarray, tiny: Tiny) -> None:
    engine = EngineRunner(_job(ONNXRUNTIME, tiny))
    results = engine.through(iter(frames))
    assert results is not None
    np.testing.assert_array_equal(np.stack(list(results)), engine.upscale(frames))
    assert TorchRunner(_job(TORCH[0], tiny)).through(iter(frames)) is None


def test_the_network_alone_takes_ready_tensors(frames: np.ndarray, tiny: Tiny) -> None:
    opened = TorchRunner(_job(TORCH[1], tiny))
    call: Callable[[int], object] = opened.network(frames[:, None])
    assert call(1).shape == (1, 3, 66, 94)  # type: ignore[attr-defined]
    assert opened.device_memory() is None


def test_a_device_that_torch_lacks_is_told(tiny: Tiny) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    job = WorkerSpec(TORCH[0], str(tiny.bundle), str(tiny.checkpoint), 1, device="cuda")
    with pytest.raises(BackendError, match="sees no device 'cuda'"):
        TorchRunner(job)


def test_the_checkpoint_is_the_one_that_is_named_or_lies_beside(tiny: Tiny, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny.bundle)
    assert contenders.checkpoint_of(bundle, []) == tiny.checkpoint.resolve()
    assert contenders.checkpoint_of(bundle, [tiny.checkpoint]) == tiny.checkpoint
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    assert contenders.checkpoint_of(bundle, [other, tiny.checkpoint]) == tiny.checkpoint
    with pytest.raises(InvalidInputError, match=r"other\.pth: not the file that .* was made from"):
        contenders.checkpoint_of(bundle, [other])


def test_a_bundle_that_is_alone_has_no_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    alone = tmp_path / "alone.srd"
    alone.symlink_to(tiny.bundle)
    bundle = Bundle(tmp_path / "nowhere.srd", Bundle.open(alone).manifest)
    assert contenders.checkpoint_of(bundle, []) is None
    (tmp_path / "tiny.pth").write_bytes(b"another")
    assert contenders.checkpoint_of(bundle, []) is None  # of the same name, but not the same


@pytest.mark.parametrize("wrong", [True, False])
def test_what_freezing_makes_another_network_of_is_compiled_without(
    frames: np.ndarray, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    import torch
    from torch._inductor import config as inductor

    frozen: list[bool] = []

    def compiled(module: Callable[..., torch.Tensor], **_: object) -> Callable[..., torch.Tensor]:
        frozen.append(inductor.freezing)
        added = 0.5 if wrong and inductor.freezing else 0.0
        return lambda image: module(image) + added

    monkeypatch.setattr(torch, "compile", compiled)
    with inductor.patch(freezing=False):  # undoes what the runner sets
        opened = TorchRunner(_job(Configuration("torch", "compiled", "fp32"), tiny))
        first = opened.upscale(frames[:1])
        opened.settle(frames[:1])
    assert frozen == ([True, False] if wrong else [True])
    assert np.array_equal(opened.upscale(frames[:1]), first) != wrong
    right = TorchRunner(_job(TORCH[1], tiny)).upscale(frames[:1])
    assert np.array_equal(opened.upscale(frames[:1]), right)
