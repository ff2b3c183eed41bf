"""Every runner produces the same image of a frame, in its own way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sr_bench import configurations
from sr_bench.configurations import DEFAULT, WorkerSpec
from sr_bench.engine_runner import EngineRunner, direct_call
from sr_bench.records import Configuration
from sr_bench.torch_runner import TorchRunner
from sr_bench.worker import open_runner
from sr_deploy import backends
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.engine import Engine
from sr_deploy.errors import BackendError
from sr_export import photos
from tests.sr_bench.conftest import Tiny

# A level for each rounding that differs. BF16 has 8 significant bits, so near white one step of it
# is a level itself, and the network rounds at each of its three layers.
TOLERANCE = {"fp32": 1, "bf16": 5}
TORCH = configurations.torch_configurations("cpu")
EAGER = [each for each in TORCH if each.backend != "compiled"]
ONNXRUNTIME = Configuration("sr-deploy", "onnxruntime", "fp32")


def _spec(configuration: Configuration, tiny: Tiny) -> WorkerSpec:
    return WorkerSpec(configuration, str(tiny.bundle), str(tiny.checkpoint), threads=1)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return photos.batch(2, 33, 47, 3)


@pytest.fixture(scope="module")
def expected(frames: np.ndarray, tiny: Tiny) -> np.ndarray:
    with Engine(tiny.bundle, precision="fp32") as engine:
        return np.stack([engine.upscale(frame) for frame in frames])


@pytest.mark.parametrize("configuration", [*EAGER, ONNXRUNTIME, DEFAULT], ids=str)
def test_all_runners_produce_the_same_image(
    configuration: Configuration, frames: np.ndarray, expected: np.ndarray, tiny: Tiny
) -> None:
    runner = open_runner(_spec(configuration, tiny))
    try:
        for count in (1, 2):
            found = runner.upscale(frames[:count])
            assert found.shape == expected[:count].shape
            assert found.dtype == np.uint8
            assert found.flags.c_contiguous
            difference = np.abs(found.astype(int) - expected[:count]).max()
            precision = (runner.resolved or configuration).precision
            assert difference <= TOLERANCE[precision]
    finally:
        runner.close()


def test_the_default_reports_its_backend_and_precision(tiny: Tiny) -> None:
    runner = EngineRunner(_spec(DEFAULT, tiny))
    assert runner.resolved is not None
    assert runner.resolved.backend == next(backends.candidates("auto")).name
    assert EngineRunner(_spec(ONNXRUNTIME, tiny)).resolved is None


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_direct_calls_of_backends_produce_the_same_image(
    backend: str, frames: np.ndarray, expected: np.ndarray, tiny: Tiny
) -> None:
    spec = _spec(Configuration("sr-deploy", backend, "fp32"), tiny)
    run = direct_call(Bundle.open(tiny.bundle), backend, "fp32", spec, frames[:, None])
    assert run is not None
    for index in (0, 1):
        found = run(index)
        assert isinstance(found, np.ndarray)
        assert np.abs(found[0].astype(int) - expected[index]).max() <= 1  # rounding


def test_an_unsupported_backend_has_no_direct_call(frames: np.ndarray, tiny: Tiny) -> None:
    spec = _spec(ONNXRUNTIME, tiny)
    assert direct_call(Bundle.open(tiny.bundle), "tensorrt", "fp32", spec, frames[:, None]) is None


@pytest.mark.parametrize("configuration", [TORCH[0], ONNXRUNTIME], ids=str)
def test_the_network_takes_most_of_a_call(
    configuration: Configuration, frames: np.ndarray, tiny: Tiny
) -> None:
    runner = open_runner(_spec(configuration, tiny))
    runner.upscale(frames)
    calls = [runner.stages(frames[:1]) for _ in range(20)]
    assert all(each >= 0 for stages in calls for each in stages.values())
    # At 33x47 nothing else takes as long; of twenty calls, other programs disturb some.
    least = {name: min(stages[name] for stages in calls) for name in calls[0]}
    assert least["network"] == max(least.values())


def test_measuring_stages_does_not_change_the_engine(frames: np.ndarray, tiny: Tiny) -> None:
    runner = EngineRunner(_spec(ONNXRUNTIME, tiny))
    before = runner.upscale(frames)
    runner.stages(frames)
    (lane,) = runner._engine._session.pool("rgb24")._idle.queue
    assert "run" not in vars(lane)
    np.testing.assert_array_equal(runner.upscale(frames), before)


def test_settling_compiles_for_the_size_immediately(frames: np.ndarray, tiny: Tiny) -> None:
    runner = EngineRunner(_spec(Configuration("sr-deploy", "openvino", "fp32"), tiny))
    runner.upscale(frames[:1])
    (lane,) = runner._engine._session.pool("rgb24")._idle.queue
    assert lane._inference._special is None
    runner.settle(frames[:1])
    assert lane._inference._special is not None


def test_an_engine_overlaps_and_a_script_does_not(frames: np.ndarray, tiny: Tiny) -> None:
    engine = EngineRunner(_spec(ONNXRUNTIME, tiny))
    results = engine.stream(iter(frames))
    assert results is not None
    np.testing.assert_array_equal(np.stack(list(results)), engine.upscale(frames))
    assert TorchRunner(_spec(TORCH[0], tiny)).stream(iter(frames)) is None


def test_the_network_alone_uses_prepared_tensors(frames: np.ndarray, tiny: Tiny) -> None:
    runner = TorchRunner(_spec(TORCH[1], tiny))
    call: Callable[[int], object] = runner.network(frames[:, None])
    assert call(1).shape == (1, 3, 66, 94)  # type: ignore[attr-defined]
    assert runner.device_memory() is None


def test_a_missing_device_is_an_error(tiny: Tiny) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    spec = WorkerSpec(TORCH[0], str(tiny.bundle), str(tiny.checkpoint), 1, device="cuda")
    with pytest.raises(BackendError, match="cuda"):
        TorchRunner(spec)


@pytest.mark.parametrize("wrong", [True, False])
def test_a_network_that_freezing_changes_is_compiled_without(
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
        runner = TorchRunner(_spec(Configuration("torch", "compiled", "fp32"), tiny))
        first = runner.upscale(frames[:1])
        runner.settle(frames[:1])
    assert frozen == ([True, False] if wrong else [True])
    assert np.array_equal(runner.upscale(frames[:1]), first) != wrong
    right = TorchRunner(_spec(TORCH[1], tiny)).upscale(frames[:1])
    assert np.array_equal(runner.upscale(frames[:1]), right)
