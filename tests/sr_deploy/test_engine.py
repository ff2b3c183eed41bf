from __future__ import annotations

import asyncio
import dataclasses
import gc
import importlib
import json
import logging
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from numpy.typing import NDArray

import sr_deploy
from sr_deploy import Engine, backends, errors, machine
from sr_deploy.backends.base import Footprint, HostNetwork, LoadRequest
from sr_deploy.backends.host import HostLane
from sr_deploy.bundle.tuning import Tuning
from sr_deploy.errors import (
    BackendError,
    BackendMissingError,
    BundleError,
    InvalidInputError,
    NotFoundError,
    OutOfMemoryError,
)
from sr_deploy.tiling import planner
from tests.sr_deploy import networks
from tests.sr_deploy.oracles import Convolutions, Inference, frame

NAMES = ("openvino", "onnxruntime")
KINDS = [(7, 9), (7, 9, 1), (7, 9, 2), (7, 9, 3), (7, 9, 4), (1, 1), (1, 30, 3), (30, 1, 4)]


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of nearest upsampling, whose results are known."""
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "nearest.srd", networks.nearest)


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "gray.srd"
    return networks.bundle(folder, networks.nearest, ("gray8", "gray16"))


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "random.srd")


def image(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def repeated(picture: NDArray[Any], scale: int = 2) -> NDArray[Any]:
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bundle", ["repeating", "gray"])
def test_every_kind_of_image_comes_back_scaled(
    name: str, dtype: Any, bundle: str, request: pytest.FixtureRequest
) -> None:
    with Engine(request.getfixturevalue(bundle), backend=name) as engine:
        for shape in KINDS:
            picture = image(*shape, dtype=dtype)
            before = picture.copy()
            result = engine.upscale(picture)
            assert result.dtype == dtype
            assert np.array_equal(result, repeated(picture))
            assert np.array_equal(picture, before)


def test_images_need_not_be_contiguous(repeating: Path) -> None:
    whole = image(20, 24, 5)
    with Engine(repeating) as engine:
        for picture in (
            whole[::2, 1::3, :3],
            whole[::-1, ::-1, 2::-1],
            whole[..., 0].T,
            whole.transpose(1, 0, 2)[..., 1:],
            np.asfortranarray(whole[..., :4]),
            np.broadcast_to(whole[:1, :, :3], (9, 24, 3)),
        ):
            assert np.array_equal(engine.upscale(picture), repeated(picture))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_images_may_be_read_only(repeating: Path, backend: str) -> None:
    """Pillow's arrays are read-only."""
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    with Engine(repeating, backend=backend) as engine:
        expected = engine.upscale(image)
        image.flags.writeable = False
        np.testing.assert_array_equal(engine.upscale(image), expected)


def test_the_result_is_written_to_out(repeating: Path) -> None:
    picture = image(7, 9, 3)
    with Engine(repeating) as engine:
        for out in (
            np.zeros((14, 18, 3), np.uint8),
            np.zeros((28, 36, 6), np.uint8)[::2, ::2, ::2],
            np.zeros((14, 18, 3), np.uint8, order="F"),
        ):
            assert engine.upscale(picture, out) is out
            assert np.array_equal(out, repeated(picture))
        plain = np.zeros((14, 18), np.uint8)
        engine.upscale(picture[..., 0], out=plain)
        assert np.array_equal(plain, repeated(picture[..., 0]))


def test_out_may_be_the_image_itself_at_scale_1(tmp_path: Path) -> None:
    path = networks.bundle(tmp_path / "one.srd", scale=1)
    picture = image(60, 70, 3)
    with Engine(path, tile=20) as engine:
        expected = engine.upscale(picture)
        assert np.array_equal(engine.upscale(picture, out=picture), expected)


def test_a_constant_alpha_is_filled_and_not_run(repeating: Path) -> None:
    picture = image(10, 10, 4)
    picture[..., 3] = 200
    with Engine(repeating) as engine:
        runs = count_runs(engine)
        result = engine.upscale(picture)
        assert np.array_equal(result, repeated(picture))
        assert len(runs) == 1


def count_runs(engine: Engine) -> list[Any]:
    """Replace the lane of an engine's first network by one that records its inputs."""
    pool = engine._session.pool("rgb24")
    lane: Any = pool._idle.get()
    runs: list[Any] = []

    class Counting:
        def run(self, *arguments: Any) -> None:
            runs.append(arguments)
            lane.run(*arguments)

        def close(self) -> None:
            lane.close()

    pool._idle.put(Counting())
    return runs


@pytest.mark.parametrize("name", NAMES)
def test_tiles_equal_the_whole_frame_within_a_level(name: str, random: Path) -> None:
    with Engine(random, backend=name) as whole, Engine(random, backend=name, tile=(40, 28)) as cut:
        for shape in ((130, 90, 3), (41, 300), (90, 64, 4)):
            picture = image(*shape)
            # For other shapes a backend may use other kernels, with another order of sums.
            difference = whole.upscale(picture).astype(int) - cut.upscale(picture)
            assert np.abs(difference).max() <= 1


def test_16_bits_are_computed_with_16_bits(random: Path) -> None:
    picture = image(30, 30, 3)
    deep = picture.astype(np.uint16) * 257
    with Engine(random) as engine:
        shallow_result, deep_result = engine.upscale(picture), engine.upscale(deep)
    # The same network on the same image: only the rounding to 8 bits differs.
    assert np.abs(deep_result / 257 - shallow_result).max() <= 0.5 + 1 / 257
    assert len(np.unique(deep_result)) > 256


def test_fixed_sizes_and_batches_are_obeyed_for_frames_of_any_size(tmp_path: Path) -> None:
    path = networks.bundle(
        tmp_path / "fixed.srd", networks.nearest, fixed_size=(48, 40), fixed_batch=2
    )
    for name in NAMES:
        with Engine(path, backend=name) as engine:
            for shape in ((48, 40, 3), (1, 1, 3), (30, 100, 3), (100, 30, 3), (200, 170, 3)):
                picture = image(*shape)
                assert np.array_equal(engine.upscale(picture), repeated(picture))


def test_a_network_with_a_minimum_takes_smaller_frames(tmp_path: Path) -> None:
    path = networks.bundle(tmp_path / "least.srd", networks.nearest, minimum=16)
    with Engine(path) as engine:
        picture = image(3, 5, 3)
        assert np.array_equal(engine.upscale(picture), repeated(picture))


def test_threads_share_an_engine(random: Path) -> None:
    pictures = [image(20 + 3 * i, 30, 3) for i in range(12)]
    with Engine(random) as engine:
        expected = [engine.upscale(each) for each in pictures]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(engine.upscale, pictures))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_same_frame_gives_the_same_result_again_and_again(random: Path) -> None:
    picture = image(40, 50, 3)
    with Engine(random) as engine:
        pool = engine._session.pool("rgb24")
        with pool.lane() as lane:
            # Compiles the network for this shape.
            cast("Any", lane)._inference._price = 0.0
        first = engine.upscale(picture)
        assert all(np.array_equal(engine.upscale(picture), first) for _ in range(3))


def test_spec_describes_the_configuration(random: Path) -> None:
    with Engine(random, backend="onnxruntime", threads=1, memory="1GiB") as engine:
        spec = engine.spec
        assert (spec.backend, spec.precision, spec.device) == ("onnxruntime", "fp32", "cpu")
        assert (spec.scale, spec.channels, spec.threads, spec.memory) == (2, 3, 1, 1 << 30)
        assert "architecture='Compact'" in repr(spec)
        assert repr(engine).startswith("<Engine Spec(")
        with pytest.raises(dataclasses.FrozenInstanceError):
            spec.scale = 3  # type: ignore[misc]
    assert repr(engine).startswith("<closed Engine")


def test_upscale_after_close_is_an_error(repeating: Path) -> None:
    engine = Engine(repeating)
    engine.close()
    engine.close()
    with pytest.raises(InvalidInputError, match="closed"):
        engine.upscale(image(4, 4, 3))


def test_an_engine_that_is_not_closed_is_closed_by_the_garbage_collector(repeating: Path) -> None:
    engine = Engine(repeating)
    session = engine._session
    frames = engine.stream([image(4, 4, 3)])
    del engine
    gc.collect()
    assert not session.closed, "the stream still needs the engine"
    assert len(list(frames)) == 1
    del frames
    gc.collect()
    assert session.closed


def test_an_engine_that_is_open_at_exit_does_not_disturb_it(repeating: Path) -> None:
    code = (
        "import sys, numpy, sr_deploy\n"
        "engine = sr_deploy.Engine(sys.argv[1])\n"
        "print(engine.upscale(numpy.zeros((3, 4), numpy.uint8)).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(repeating)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("(6, 8)", "")


def test_an_asynchronous_context_closes_the_engine(repeating: Path) -> None:
    async def program() -> Engine:
        async with Engine(repeating) as engine:
            async for result in engine.astream([image(4, 4, 3)]):
                assert result.shape == (8, 8, 3)
        return engine

    assert asyncio.run(program())._session.closed


def test_constant_colors_are_computed_by_the_network(random: Path) -> None:
    """Only a constant alpha is filled in."""
    with Engine(random, precision="fp32") as engine:
        assert (engine.upscale(np.full((8, 9, 4), 77, np.uint8))[..., 3] == 77).all()
        assert (engine.upscale(np.full((8, 9, 3), 77, np.uint8)) != 77).any()


class OnGpu:
    """An image in GPU memory, with what an engine reads before it needs a GPU."""

    __cuda_array_interface__: ClassVar[dict[str, Any]] = {"shape": (4, 4, 3)}


def test_a_cpu_engine_rejects_images_in_gpu_memory(repeating: Path) -> None:
    with Engine(repeating) as engine, pytest.raises(InvalidInputError, match="tensorrt"):
        engine.upscale(OnGpu())


def test_close_waits_for_the_frame_in_flight_and_rejects_waiting_threads(repeating: Path) -> None:
    engine = Engine(repeating)
    pool = engine._session.pool("rgb24")
    errors: list[Exception] = []

    def late() -> None:
        try:
            engine.upscale(image(4, 4, 3))
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    closer = threading.Thread(target=engine.close)
    waiter = threading.Thread(target=late)
    with pool.lane():
        closer.start()
        closer.join(0.05)
        assert closer.is_alive()
        waiter.start()
    closer.join(10)
    waiter.join(10)
    assert not closer.is_alive()
    assert not waiter.is_alive()
    assert all(isinstance(error, InvalidInputError) for error in errors)
    assert len(errors) == 1


def test_memory_decides_the_tile_and_the_frame_still_comes_out(
    repeating: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = image(300, 400, 3)
    monkeypatch.setattr(machine, "resident_memory", lambda: 0)
    footprint = Footprint(0, 1000.0)
    # Other tests import the backend anew: the one in sys.modules is the one that engines load.
    backend = importlib.import_module("sr_deploy.backends.openvino.backend")
    monkeypatch.setattr(backend.OpenVinoNetwork, "footprint", property(lambda _: footprint))
    frames = picture.nbytes * 5
    for pixels in (120_000, 60_000, 10_000):
        budget = frames + int(pixels * (1000 + 15)) + 1
        with Engine(repeating, backend="openvino", memory=budget) as engine:
            runs = count_runs(engine)
            assert np.array_equal(engine.upscale(picture), repeated(picture))
            ((_, plan, _),) = runs
            assert plan.tile_pixels <= pixels
            assert plan.whole is (pixels == 120_000)
            # Memory reserved by the caller is not used.
            if pixels == 60_000:
                engine.upscale(picture, reserve=20_000_000)
                assert runs[1][1].tile_pixels <= pixels - 20_000_000 / 1015


def test_the_error_for_a_too_large_frame_has_the_memory_needed(repeating: Path) -> None:
    with (
        Engine(repeating, memory="300MiB") as engine,
        pytest.raises(OutOfMemoryError, match=r"30000x3000.* GiB.*--memory"),
    ):
        engine.upscale(np.broadcast_to(np.uint8(3), (3000, 30000, 3)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("how", "lanes"),
    [
        ({"streaming": True, "threads": 2}, 2),
        ({"streaming": True, "threads": 1}, 1),
        ({"streaming": True, "threads": 2, "lanes": 1}, 1),
        ({"streaming": True, "threads": 2, "tuning": Tuning(lanes=3)}, 3),
        ({"streaming": True, "threads": 2, "tuning": Tuning(lanes=1)}, 1),
        ({"threads": 2}, 1),
    ],
)
def test_streaming_computes_two_frames_at_once_by_default(
    repeating: Path, name: str, how: dict[str, Any], lanes: int
) -> None:
    with Engine(repeating, backend=name, **how) as engine:
        assert engine.spec.lanes == lanes


class ShortOfMemory(HostNetwork):
    """A backend whose network runs out of memory above a number of pixels."""

    name = "short"

    def __init__(self, most_pixels: int) -> None:
        self.device = "fake"
        self.lanes = 1
        self.footprint = Footprint(0, 1.0)
        self.network = Convolutions(depth=1)
        self.inference = Inference(self.network, most_pixels)

    def precisions(self, _device: str | None) -> tuple[str, ...]:
        return ("fp32",)

    def load(self, _job: LoadRequest) -> ShortOfMemory:
        return self

    def open_lane(self) -> HostLane:
        return HostLane(self.inference, self.network.model, "rgb24")

    def close(self) -> None:
        pass


def test_out_of_memory_makes_the_tiles_smaller_with_one_warning(
    random: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = ShortOfMemory(10_000)
    monkeypatch.setattr(backends, "candidates", lambda *_: [backend])
    picture = frame(200, 300)
    with caplog.at_level(logging.WARNING), Engine(random) as engine:
        assert np.array_equal(engine.upscale(picture), backend.network(picture))
        (warning,) = caplog.records
        assert "300x200" in warning.getMessage()
        tried = len(backend.inference.shapes)
        # The smaller tile is kept for the next frame.
        assert np.array_equal(engine.upscale(picture), backend.network(picture))
        assert all(
            height * width <= 10_000 for _, height, width, _ in backend.inference.shapes[tried:]
        )
        assert len(caplog.records) == 1


def test_out_of_memory_overrules_a_tile_that_the_user_asked_for(
    random: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ShortOfMemory(10_000)
    monkeypatch.setattr(backends, "candidates", lambda *_: [backend])
    picture = frame(300, 300)
    with Engine(random, tile=150) as engine:
        assert np.array_equal(engine.upscale(picture), backend.network(picture))


def test_out_of_memory_with_the_smallest_tile_is_an_error(
    random: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ShortOfMemory(100)
    monkeypatch.setattr(backends, "candidates", lambda *_: [backend])
    with Engine(random) as engine, pytest.raises(OutOfMemoryError, match="too large for this"):
        engine.upscale(frame(200, 300))
    _, height, width, _ = backend.inference.shapes[-1]
    assert height * width <= 2 * planner.SMALLEST**2


def test_unavailable_precisions_are_rejected_with_the_available_ones(random: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"int8.*fp32"):
        Engine(random, precision="int8")
    with pytest.raises(InvalidInputError, match="bf16"):
        Engine(random, backend="onnxruntime", precision="bf16")
    with pytest.raises(InvalidInputError, match=r"'fp8'.*auto.*fp32"):
        Engine(random, precision="fp8")


def test_bf16_is_not_fp32(tmp_path: Path) -> None:
    if "bf16" not in backends.create("openvino").precisions(None):
        pytest.skip("this CPU has no BF16")
    path = networks.bundle(tmp_path / "both.srd", precisions=("fp32", "bf16"))
    picture = image(40, 40, 3)
    with Engine(path, precision="fp32") as plain, Engine(path, backend="openvino") as half:
        assert half.spec.precision == "bf16"
        difference = plain.upscale(picture).astype(int) - half.upscale(picture)
    # BF16 has 8 significant bits: close, but not equal.
    assert 0 < np.abs(difference).mean() < 2


def test_auto_is_the_fastest_on_the_backend(tmp_path: Path) -> None:
    path = networks.bundle(tmp_path / "net.srd", networks.quantized, ("rgb24",), ("fp32", "int8"))
    for name, precision in (("openvino", "int8"), ("onnxruntime", "fp32")):
        with Engine(path, backend=name) as engine:
            assert engine.spec.precision == precision


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_16_bits_fall_back_to_fp32(
    tmp_path: Path, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = networks.bundle(tmp_path / "net.srd", networks.nearest, ("rgb24", "rgb48"))
    shallow = networks.bundle(tmp_path / "other.srd", networks.nearest, ("rgb24",), ("fp16",))
    manifests = [json.loads((each / "manifest.json").read_text()) for each in (path, shallow)]
    manifests[0]["variants"] += manifests[1]["variants"]
    (path / "manifest.json").write_text(json.dumps(manifests[0]))
    (shallow / "fp16-rgb24.onnx").rename(path / "fp16-rgb24.onnx")
    picture = image(9, 7, 3, dtype=np.uint16)
    with caplog.at_level(logging.DEBUG), Engine(path, precision=precision) as engine:
        assert np.array_equal(engine.upscale(picture), repeated(picture))
    assert (re.search(r"rgb48.*fp32", caplog.text) is not None) is (precision == "fp16")


def test_networks_that_openvino_cannot_run_fall_back_to_onnxruntime_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = networks.bundle(tmp_path / "unusual.srd", networks.unusual)
    with caplog.at_level(logging.WARNING), Engine(path) as engine:
        assert engine.spec.backend == "onnxruntime"
        for dtype in (np.uint8, np.uint16):
            picture = image(9, 7, 3, dtype=dtype)
            assert np.array_equal(engine.upscale(picture), repeated(picture))
    (warning,) = caplog.records
    assert re.search(r"OpenVINO.*fp32-rgb24\.onnx.*Det\b.*onnxruntime", warning.getMessage())
    with pytest.raises(BackendError, match="Det"):
        Engine(path, backend="openvino")


class Refusing(ShortOfMemory):
    """A backend that can run no network."""

    name = "refusing"

    def load(self, _job: LoadRequest) -> ShortOfMemory:
        raise BackendError(f"{self.name}: not this network")


def test_if_no_backend_can_run_the_network_the_error_is_the_best_backends(
    random: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Refusing(1), Refusing(1)
    first.name = "best"
    monkeypatch.setattr(backends, "candidates", lambda *_: [first, second])
    with pytest.raises(BackendError, match="best: not this network"):
        Engine(random)
    monkeypatch.setattr(backends, "candidates", lambda *_: [first, second, ShortOfMemory(1000)])
    with caplog.at_level(logging.WARNING), Engine(random) as engine:
        assert engine.spec.backend == "short"
    (warning,) = caplog.messages
    assert re.search("best: not this network.*short", warning)


class Picky(ShortOfMemory):
    """A backend that fails for some precisions, and lacks the memory for others."""

    def __init__(self, name: str, refused: str = "", too_large: str = "") -> None:
        super().__init__(1_000_000)
        self.name, self.refused, self.too_large = name, refused.split(), too_large.split()
        self.asked: list[str] = []

    def precisions(self, _device: str | None) -> tuple[str, ...]:
        return ("int8", "fp16", "fp32")

    def load(self, job: LoadRequest) -> ShortOfMemory:
        self.asked.append(f"{job.precision} {job.pixel_format}")
        if job.precision in self.refused:
            raise BackendError(f"{self.name}: no {job.precision} here")
        if job.precision in self.too_large:
            raise OutOfMemoryError(f"{self.name}: {job.precision} is too large")
        return self


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "several.srd"
    return networks.bundle(folder, precisions=("fp32", "fp16", "int8"))


@pytest.mark.parametrize(
    ("refused", "tried", "warnings"),
    [
        ("", ["int8"], []),
        ("int8", ["int8", "fp16"], ["best: no int8 here.*fp16"]),
        ("int8 fp16", ["int8", "fp16", "fp32"], ["best: no int8 here.*fp32"]),
    ],
)
def test_a_precision_that_fails_falls_back_to_the_next_of_the_same_backend(
    several: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: str,
    tried: list[str],
    warnings: list[str],
) -> None:
    best, other = Picky("best", refused), Picky("other")
    monkeypatch.setattr(backends, "candidates", lambda *_: [best, other])
    with caplog.at_level(logging.WARNING), Engine(several) as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("best", tried[-1])
        assert best.asked == [f"{each} rgb24" for each in tried]
        assert len(caplog.messages) == len(warnings)
        assert all(map(re.search, warnings, caplog.messages))
        # Other pixel formats are tried on their own.
        best.asked.clear()
        engine.upscale(image(9, 7, 3, dtype=np.uint16))
        assert best.asked == [f"{each} rgb48" for each in tried]
        assert engine.spec.precision == tried[-1]
    assert other.asked == []


def test_the_next_backend_is_tried_after_all_precisions_fail(
    several: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best, other = Picky("best", "int8 fp16 fp32"), Picky("other", "int8")
    monkeypatch.setattr(backends, "candidates", lambda *_: [best, other])
    with caplog.at_level(logging.WARNING), Engine(several) as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("other", "fp16")
    assert len(best.asked) == 3
    first, second = caplog.messages
    assert re.search("other: no int8 here.*fp16", first)
    assert re.search("best: no int8 here.*other", second)


def test_a_requested_precision_has_no_fallback(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = Picky("only", "int8")
    monkeypatch.setattr(backends, "candidates", lambda *_: [only])
    with pytest.raises(BackendError, match="only: no int8 here"):
        Engine(several, precision="int8")
    assert only.asked == ["int8 rgb24"]


def test_where_memory_is_too_small_for_a_precision_larger_ones_are_not_tried(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, other = Picky("best", too_large="int8"), Picky("other")
    monkeypatch.setattr(backends, "candidates", lambda *_: [best, other])
    with Engine(several) as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("other", "int8")
    assert best.asked == ["int8 rgb24"]


def test_the_networks_of_other_formats_free_their_caches(random: Path) -> None:
    with Engine(random) as engine:
        engine.upscale(image(40, 40, 3))
        shallow = engine._session.pool("rgb24")._idle.queue[0]
        released = []
        shallow._inference.release = lambda: released.append(True)
        engine.upscale(image(40, 40, 3))
        assert not released
        engine.upscale(image(40, 40, 3, dtype=np.uint16))
        assert released


def test_a_16_bit_frame_needs_a_16_bit_variant(tmp_path: Path) -> None:
    path = networks.bundle(tmp_path / "shallow.srd", formats=("rgb24",))
    with Engine(path) as engine, pytest.raises(BundleError, match=r"rgb48.*rgb24"):
        engine.upscale(image(4, 4, 3, dtype=np.uint16))


def test_files_that_were_changed_are_not_run(tmp_path: Path) -> None:
    path = networks.bundle(tmp_path / "changed.srd")
    with (path / "fp32-rgb24.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BundleError, match="SHA-256"):
        Engine(path)


def test_the_16_bit_file_is_read_on_first_use(tmp_path: Path) -> None:
    path = networks.bundle(tmp_path / "lazy.srd")
    (path / "fp32-rgb48.onnx").unlink()
    with Engine(path) as engine:
        engine.upscale(image(4, 4, 3))
        with pytest.raises(NotFoundError, match="rgb48"):
            engine.upscale(image(4, 4, 3, dtype=np.uint16))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"backend": "magic"}, InvalidInputError, "'magic'"),
        ({"threads": 0}, InvalidInputError, r"threads.*\b1\b.*\b0"),
        ({"tile": 0}, InvalidInputError, r"tile.*\b1\b.*\b0"),
        ({"tile": 2.5}, InvalidInputError, r"2\.5"),
        ({"tile": (4, 5, 6)}, InvalidInputError, r"\(4, 5, 6\)"),
        ({"memory": "lots"}, InvalidInputError, "'lots'"),
        ({"device": "tpu"}, BackendError, "'tpu'"),
    ],
)
def test_invalid_arguments_are_named(
    random: Path, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Engine(random, **arguments)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.srd"):
        Engine(tmp_path / "none.srd")


def test_without_a_backend_the_error_says_what_to_install(
    random: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_installed", lambda _: False)
    with pytest.raises(BackendMissingError, match="pip install"):
        Engine(random)


def test_importing_is_cheap_and_the_version_is_the_packages() -> None:
    """A fresh interpreter imports no backend, no package of the exporter, and not even numpy."""
    code = (
        "import sys, sr_deploy; first = set(sys.modules); sr_deploy.Engine; "
        "print(*sorted({m.split('.')[0] for m in sys.modules})); print('numpy' in first)"
    )
    answer = subprocess.run(
        [sys.executable, *sys_flags(), "-c", code], capture_output=True, text=True, check=True
    )
    loaded, numpy_first = answer.stdout.splitlines()
    assert numpy_first == "False"
    heavy = {"openvino", "onnxruntime", "torch", "onnx", "spandrel", "PIL"}
    assert not heavy & set(loaded.split())
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert f'version = "{sr_deploy.__version__}"' in project


def test_the_package_exports_the_whole_public_api() -> None:
    for name in sr_deploy.__all__:
        assert getattr(sr_deploy, name) is not None
    assert dir(sr_deploy) == sorted(sr_deploy.__all__)
    found = {name for name, each in vars(errors).items() if isinstance(each, type)}
    assert {*found, "Engine", "Spec", "YuvFrame", "DeviceArray", "Tuning"} <= {*sr_deploy.__all__}
    with pytest.raises(AttributeError, match="Engines"):
        sr_deploy.Engines  # noqa: B018


def sys_flags() -> list[str]:
    return ["-S"] if sys.flags.no_site else []


@pytest.mark.parametrize(("name", "most"), [("lanes", 256), ("threads", 4096)])
def test_lanes_and_threads_have_the_bounds_of_the_tuning(
    repeating: Path, name: str, most: int
) -> None:
    for value in (0, most + 1):
        with pytest.raises(InvalidInputError, match=f"{name}.*{most}.*{value}"):
            Engine(repeating, **{name: value})
        if value:
            with pytest.raises(BundleError):
                Tuning(**{name: value})
