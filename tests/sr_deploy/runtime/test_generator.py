"""Image generation on every backend."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import Engine
from sr_deploy.backends.host import HostLane
from sr_deploy.bundle.manifest import Latent
from sr_deploy.errors import BundleError, InvalidInputError, OutOfMemoryError
from sr_deploy.runtime import generator
from tests.sr_deploy import manifests, networks

BACKENDS = ("openvino", "onnxruntime")
LATENT = Latent(size=5, height=6, width=9)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents") / "g.srd"
    return networks.bundle(folder, networks.generator, ("rgb24",), scale=1, latent=LATENT)


def _expected(noise: np.ndarray, channels: int = 3) -> np.ndarray:
    model = dataclasses.replace(manifests.MODEL, channels=channels, latent=LATENT)
    levels = (noise @ networks.mixing(model) + 128).clip(0, 255)
    return levels.reshape(len(noise), LATENT.height, LATENT.width, channels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_given_noise_makes_its_images(bundle: Path, backend: str) -> None:
    noise = np.random.default_rng(3).normal(size=(37, 5)).astype(np.float32)
    with Engine(bundle, backend=backend) as engine:
        assert engine.spec.latent == LATENT
        images = engine.generate(noise)
        again = engine.generate(noise[:, :, None, None])
    assert images.shape == (37, 6, 9, 3)
    assert images.dtype == np.uint8
    # Half a level of rounding, plus the difference from another order of sums.
    assert np.abs(images - _expected(noise)).max() <= 0.51
    assert np.array_equal(images, again)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gray(tmp_path: Path, backend: str) -> None:
    folder = networks.bundle(
        tmp_path / "g.srd", networks.generator, ("gray8",), scale=1, latent=LATENT
    )
    noise = np.random.default_rng(3).normal(size=(2, 5))[::-1]  # float64, and not contiguous
    with Engine(folder, backend=backend) as engine:
        images = engine.generate(noise)
    assert images.shape == (2, 6, 9, 1)
    assert np.abs(images - _expected(noise.astype(np.float32), 1)).max() <= 0.51


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_determines_the_images(bundle: Path, backend: str) -> None:
    with Engine(bundle, backend=backend) as engine:
        images = engine.generate(count=20, seed=7)
        with Engine(bundle, backend=backend) as other:
            assert np.array_equal(other.generate(count=20, seed=7), images)
        fewer = engine.generate(count=3, seed=7)
        assert not np.array_equal(engine.generate(count=20, seed=8), images)
        assert not np.array_equal(engine.generate(count=9), engine.generate(count=9))
    # Another batch may change the order of sums.
    assert np.abs(np.subtract(fewer, images[:3], dtype=np.int16)).max() <= 1


def test_memory_bounds_the_batch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)
    with Engine(bundle, backend="onnxruntime") as engine:
        whole = engine.generate(noise)
        monkeypatch.setattr(generator, "MOST_AT_ONCE", 2)
        assert np.array_equal(engine.generate(noise), whole)
    with (
        Engine(bundle, backend="onnxruntime", memory=1) as engine,
        pytest.raises(OutOfMemoryError, match="9x6"),
    ):
        engine.generate()


@pytest.mark.parametrize("most", [0, 1, 3])
def test_out_of_memory_errors_halve_the_batch(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    noise = np.random.default_rng(3).normal(size=(21, 5)).astype(np.float32)
    generate, batches = HostLane.generate, []

    def short(lane: HostLane, noise: np.ndarray, into: np.ndarray) -> None:
        if len(noise) > most:
            raise OutOfMemoryError("too large for this test")
        batches.append(len(noise))
        generate(lane, noise, into)

    with Engine(bundle, backend="onnxruntime") as engine:
        whole = engine.generate(noise)
        monkeypatch.setattr(HostLane, "generate", short)
        if most == 0:
            with pytest.raises(OutOfMemoryError, match="for this test"):
                engine.generate(noise)
            return
        # Another batch may change the order of sums.
        assert np.abs(engine.generate(noise).astype(int) - whole).max() <= 1
    assert sum(batches) == 21
    assert max(batches) == {1: 1, 3: 2}[most]


def test_threads_share_an_engine(bundle: Path) -> None:
    found: dict[int, np.ndarray] = {}
    with Engine(bundle, lanes=2) as engine:

        def run(seed: int) -> None:
            found[seed] = engine.generate(count=4, seed=seed)

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed, images in found.items():
            assert np.array_equal(images, engine.generate(count=4, seed=seed))
    assert len(found) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, r"count.*\b1\b.*\b0"),
        ({"seed": -1}, r"seed.*\b0\b.*-1"),
        ({"noise": np.zeros((2, 4))}, r"\(N, 5\).*\(2, 4\)"),
        ({"noise": np.zeros((0, 5))}, r"\(0, 5\)"),
        ({"noise": np.zeros(5)}, r"\(5,\)"),
        ({"noise": np.full((1, 5), np.nan)}, "NaN"),
        ({"noise": [[0.0] * 5]}, "list"),
        ({"noise": np.zeros((1, 5), np.complex64)}, "complex64"),
        ({"noise": np.zeros((1, 5)), "seed": 1}, r"count.*seed"),
    ],
)
def test_invalid_arguments_are_rejected(
    bundle: Path, arguments: dict[str, Any], message: str
) -> None:
    with Engine(bundle) as engine, pytest.raises(InvalidInputError, match=message):
        engine.generate(**arguments)


def test_each_kind_of_network_names_the_other_call(bundle: Path, tmp_path: Path) -> None:
    with Engine(bundle) as engine:
        image = np.zeros((8, 8, 3), np.uint8)
        with pytest.raises(InvalidInputError, match=r"sr-generate.*Engine.generate"):
            engine.upscale(image)
        with pytest.raises(InvalidInputError, match=r"Engine.generate"):
            next(engine.stream([image]))
        assert not engine.takes("nv12", 8, 8)
    upscaler = networks.bundle(tmp_path / "net.srd")
    with Engine(upscaler) as engine:
        assert engine.spec.latent is None
        with pytest.raises(InvalidInputError, match=r"sr-upscale.*Engine.upscale"):
            engine.generate()
    with pytest.raises(InvalidInputError, match="closed"):
        engine.upscale(image)


def test_a_closed_engine_makes_nothing(bundle: Path) -> None:
    engine = Engine(bundle)
    engine.close()
    with pytest.raises(InvalidInputError, match="closed"):
        engine.generate()


def test_a_manifest_of_nonsense_is_refused() -> None:
    with pytest.raises(BundleError, match=r"height.*65536.*\b0"):
        Latent(100, 0, 64)
