"""Generators of the field's Keras tutorials, compared with Keras's own output."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sr_deploy import Engine
from sr_deploy.errors import CheckpointError
from sr_export import cli
from sr_export.checkpoint import keras_file
from sr_export.models.network import from_module

os.environ["KERAS_BACKEND"] = "torch"
h5py = pytest.importorskip("h5py")
keras: Any = pytest.importorskip("keras")
from sr_export.models import keras_model  # noqa: E402

L = keras.layers
Model = Any

pytestmark = pytest.mark.filterwarnings("ignore")  # of Keras, about its own files


def _randomized(model: Model) -> Model:
    """Random weights, and statistics of normalization that matter."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        spread = random.random(weight.shape) - 0.4
        weight.assign(
            0.5 + random.random(weight.shape) if "variance" in weight.name else spread / 4
        )
    return model


def _upsampling() -> Model:
    """SRGAN: 9x9 convolutions at both ends, a residual block, and UpSampling2D."""
    image = keras.Input((24, 20, 3))
    first = L.PReLU(shared_axes=[1, 2])(L.Conv2D(6, 9, padding="same")(image))
    inner = L.BatchNormalization(momentum=0.5)(L.Conv2D(6, 3, padding="same")(first))
    grown = L.UpSampling2D(2)(L.Add()([first, inner]))
    return keras.Model(image, L.Conv2D(3, 9, padding="same", activation="tanh")(grown))


def _encoder() -> Model:
    """Halves twice with BatchNormalization and LeakyReLU, doubles thrice; odd and even kernels."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for kernel in (3, 4):
        model.add(L.Conv2D(6, kernel, strides=2, padding="same"))
        model.add(L.BatchNormalization())
        model.add(L.LeakyReLU(negative_slope=0.2))
    for kernel in (3, 4, 5):
        model.add(L.Conv2DTranspose(6, kernel, strides=2, padding="same", activation="relu"))
    model.add(L.Conv2D(3, 5, padding="same"))
    model.add(L.Activation("tanh"))
    return model


def _same_size() -> Model:
    return keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.Dropout(0.3),
            L.Conv2D(1, 3, padding="same", activation="tanh"),
        ]
    )


def _latent() -> Model:
    return keras.Sequential(
        [
            keras.Input((12,)),
            L.Dense(4 * 4 * 6, use_bias=False),
            L.BatchNormalization(),
            L.LeakyReLU(),
            L.Reshape((4, 4, 6)),
            L.Conv2DTranspose(5, 5, strides=2, padding="same", use_bias=False),
            L.ReLU(),
            L.Conv2D(3, 7, padding="same", activation="tanh"),
        ],
        name="latent",
    )


def _unusual() -> Model:
    """Pooling, skips, depthwise layers, and operators that run as they are."""
    image = keras.Input((None, None, 3))
    deep = L.DepthwiseConv2D(3, padding="same", activation="relu")(image)
    deep = L.MaxPooling2D(2)(L.Conv2D(8, 3, padding="same", activation="relu")(deep))
    deep = L.UpSampling2D(2, interpolation="bilinear")(deep)
    deep = L.Concatenate()([deep, image])
    deep = L.LayerNormalization()(deep)
    gate = L.Dense(11, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(deep))
    deep = L.Multiply()([deep, gate])
    return keras.Model(image, 0.5 * L.Conv2D(3, 1)(deep) + image)


def _gan(generator: Callable[[], Model]) -> Model:
    """A generator in front of its discriminator, as both are trained together."""
    inner = generator()
    side = inner.output_shape[1:]
    image = keras.Input(side)
    judge = L.Dense(1)(L.Flatten()(L.Conv2D(4, 3, strides=2)(image)))
    return keras.Sequential([inner, keras.Model(image, judge, name="discriminator")])


def _output(model: Model, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keras's output, NCHW."""
    found = np.asarray(model.predict_on_batch(values))
    return found.transpose(0, 3, 1, 2)


def _saved(model: Model, folder: Path, suffix: str) -> Path:
    path = folder / f"model{suffix}"
    model.save(path)
    return path


def _load(path: Path, *arch_file: str, key: str | None = None) -> keras_model.KerasGenerator:
    file = keras_file.read(path, builds=bool(arch_file))
    return keras_model.load_model(file, arch_file, key)


@pytest.mark.parametrize(
    ("make", "scale", "grid", "suffix"),
    [
        (_upsampling, 2, 1, ".keras"),
        (_upsampling, 2, 1, ".h5"),
        (_encoder, 2, 4, ".keras"),
        (_encoder, 2, 4, ".h5"),
        (_same_size, 1, 1, ".h5"),
        (_unusual, 1, 2, ".keras"),
    ],
)
def test_networks_of_images(
    make: Callable[[], Model], scale: int, grid: int, suffix: str, tmp_path: Path
) -> None:
    model = _randomized(make())
    found = _load(_saved(model, tmp_path, suffix))
    network = from_module(found.module, found.name, found.size)
    assert (network.scale, network.grid, network.fixed_size) == (scale, grid, None)
    size = model.input_shape[1:3] if model.input_shape[1] else (14, 18)
    image = np.random.default_rng(1).random((2, *size, network.channels), np.float32)
    with torch.inference_mode():
        given = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
        result = network.module(given).numpy()
    np.testing.assert_allclose(result, _output(model, image), atol=2e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_generator_of_random_numbers(suffix: str, tmp_path: Path) -> None:
    model = _randomized(_latent())
    found = _load(_saved(model, tmp_path, suffix))
    assert found.latent == 12
    noise = np.random.default_rng(1).random((3, 12), np.float32)
    with torch.inference_mode():
        result = found.module(torch.from_numpy(noise)).numpy()
    np.testing.assert_allclose(result, _output(model, noise), atol=2e-5)


def test_generators_inside_of_gans(tmp_path: Path) -> None:
    found = _load(_saved(_randomized(_gan(_latent)), tmp_path, ".keras"))
    assert (found.name, found.latent) == ("Keras latent", 12)
    found = _load(_saved(_randomized(_gan(_upsampling)), tmp_path, ".h5"))
    # the discriminator needs one size, the generator does not
    assert from_module(found.module, "generator", found.size).scale == 2
    assert found.size is None


def test_a_size_that_is_needed_is_kept(tmp_path: Path) -> None:
    image = keras.Input((8, 12, 3))
    flat = L.Dense(8 * 12 * 3)(L.Flatten()(image))
    model = _randomized(keras.Model(image, L.Add()([image, L.Reshape((8, 12, 3))(flat)])))
    assert _load(_saved(model, tmp_path, ".keras")).size == (8, 12)


@pytest.mark.slow
def test_an_export_runs_like_keras(tmp_path: Path) -> None:
    model = _randomized(_upsampling())
    path = _saved(model, tmp_path, ".keras")
    ranges = ["--input-range", "0", "1", "--output-range", "-1", "1"]
    assert cli.main([str(path), "--precision", "fp32", *ranges]) == 0
    frame = np.random.default_rng(1).integers(0, 256, (24, 20, 3), np.uint8)
    expected = _output(model, frame[None].astype(np.float32) / 255)[0].transpose(1, 2, 0)
    with Engine(tmp_path / "model.srd") as engine:
        levels = engine.upscale(frame).astype(np.float32)
    # half a level of rounding
    assert np.abs(levels - (expected + 1) / 2 * 255).max() < 0.6


_PROGRAM = """
import keras

def build(features=6):
    return keras.Sequential([
        keras.Input((None, None, 3)),
        keras.layers.Conv2D(features, 3, padding="same", activation="relu"),
        keras.layers.Lambda(lambda x: 2 * x),
        keras.layers.Conv2D(3, 3, padding="same"),
    ])
"""


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_weights_for_a_model_that_a_program_builds(suffix: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    space: dict[str, Any] = {}
    exec(_PROGRAM, space)
    model = _randomized(space["build"](5))
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    with pytest.raises(CheckpointError, match=r"(Lambda|without a model).*--arch-file"):
        _load(path)
    found = _load(path, f"{program}:build", "features=5")
    image = np.random.default_rng(1).random((1, 7, 9, 3), np.float32)
    with torch.inference_mode():
        result = found.module(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(result, _output(model, image), atol=2e-5)
    with pytest.raises(CheckpointError, match=r"do not fit build"):
        _load(path, f"{program}:build", "features=4")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"class_name": "TFOpLambda"}, "TFOpLambda"),
        ({"class_name": "Sub", "module": "trainer.layers"}, "class 'Sub'"),
        (
            {"class_name": "Sub", "module": "keras.layers", "registered_name": "Mine>Sub"},
            "Mine>Sub",
        ),
        ({"class_name": "function", "module": "builtins", "config": "exec"}, "'exec' of builtins"),
    ],
)
def test_classes_of_other_programs_are_not_loaded(
    change: dict[str, str], fact: str, tmp_path: Path
) -> None:
    path = _saved(_same_size(), tmp_path, ".h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1] |= change
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(CheckpointError, match=f"{fact}.*--arch-file"):
        _load(path)


def _linked(file: Any) -> None:
    file["elsewhere"] = h5py.ExternalLink("/etc/secret.h5", "/weights")


def _external(file: Any) -> None:
    file.create_dataset("raw", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def _huge(file: Any) -> None:
    file.create_dataset("huge", (1 << 34,), "f4", chunks=(1024,))


@pytest.mark.parametrize("attack", [_linked, _external, _huge])
def test_files_that_read_others_or_claim_too_much(
    attack: Callable[[Any], None], tmp_path: Path
) -> None:
    path = _saved(_same_size(), tmp_path, ".h5")
    with h5py.File(path, "r+") as file:
        attack(file)
    with pytest.raises(CheckpointError, match=r"another|claim"):
        _load(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = _saved(_same_size(), tmp_path, ".h5")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        _load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{")
        archive.writestr("model.weights.h5", b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        _load(path)


def test_old_sequential_models(tmp_path: Path) -> None:
    """Keras 2 wrote the size into the first layer, Keras 2.1 the layers without a name."""
    model = _randomized(_same_size())
    path = _saved(model, tmp_path, ".h5")
    with h5py.File(path, "r+") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"][1:]
        old = [
            {"class_name": each["class_name"], "config": each["config"] | {"dtype": "float32"}}
            for each in layers
        ]
        for each in old:
            for key in [key for key in each["config"] if key.endswith("_initializer")]:
                del each["config"][key]
        old[0]["config"]["batch_input_shape"] = [None, 16, 16, 1]
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": old})
    found = _load(path)
    image = np.random.default_rng(1).random((1, 16, 16, 1), np.float32)
    with torch.inference_mode():
        result = found.module(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(result, _output(model, image), atol=2e-5)
