"""Keras files: what they contain, and whether it is safe to load.

A `.keras` file is a zip archive with the model as JSON and its weights as HDF5; older `.h5` files
have the JSON among the attributes. The JSON names classes of any Python module, and Lambda layers
hold compiled code. HDF5 can link to other files, and claim arrays that it does not store. A file
with any of these is rejected before Keras sees it.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sr_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MISSING = 'this is a Keras file, which needs Keras: pip install "sr-deploy[keras]"'
_LARGEST_CONFIG = 1 << 26
# Activations that TensorFlow's functions are saved as.
_FUNCTIONS = {"relu", "relu6", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "swish"}
_FUNCTIONS |= {"leaky_relu", "softplus", "softsign", "softmax", "linear", "hard_sigmoid"}
_TENSORFLOW = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
_BUILD_IT = (
    "give a function that builds the same model with Keras's own layers: --arch-file "
    "FILE.py:FUNCTION"
)


@dataclass(frozen=True)
class KerasFile:
    """A Keras file that is safe to load."""

    path: Path
    form: Literal["keras", "h5", "weights", "old-weights"]
    """A model as `.keras`, as `.h5`, or weights without a model in the form of either."""
    config: Any = None
    """The model of an `.h5` file, as Keras 3 understands it."""

    @property
    def suffix(self) -> str:
        """The suffix by which Keras recognizes the form."""
        suffixes = {"keras": ".keras", "weights": ".weights.h5"}
        return suffixes.get(self.form, ".h5")


def read(path: Path, *, builds: bool) -> KerasFile:
    """Check a Keras file.

    Args:
        path: The file.
        builds: Whether the user's program builds the model, so that only weights are read.

    Raises:
        CheckpointError: Keras is missing, or the file is damaged or not safe.
    """
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(f"{path}: {MISSING}") from error
    config: Any = None
    try:
        if zipfile.is_zipfile(path):
            form: Literal["keras", "h5", "weights", "old-weights"] = "keras"
            with zipfile.ZipFile(path) as archive:
                config = archive.read(CONFIG) if not builds else None
                with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
                    _check_hdf5(file, path)
        else:
            with h5py.File(path, "r") as file:
                _check_hdf5(file, path)
                config = file.attrs.get("model_config") if not builds else None
                old = "layer_names" in file.attrs or "model_weights" in file
                form = "h5" if config is not None else "old-weights" if old else "weights"
    except CheckpointError:
        raise
    except Exception as error:  # h5py raises almost anything on damaged files
        raise CheckpointError(f"{path}: the Keras file is damaged ({error})") from error
    if config is None and not builds:
        raise CheckpointError(
            f"{path}: has weights of Keras without a model; {_BUILD_IT}, or save the whole model "
            "with model.save"
        )
    if config is None:
        return KerasFile(path, form)
    return KerasFile(path, form, _modern(_checked(path, config)))


@contextmanager
def named(file: KerasFile) -> Iterator[Path]:
    """Give a path to the file whose suffix Keras understands."""
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"model{file.suffix}"
        shutil.copyfile(file.path, copy)
        if file.form == "h5":
            with h5py.File(copy, "r+") as opened:
                opened.attrs["model_config"] = json.dumps(file.config)
        yield copy


def _modern(config: Any) -> Any:
    """Return the description of an old model as Keras 3 understands it."""
    if isinstance(config, list):
        return [_modern(each) for each in config]
    if not isinstance(config, dict):
        return config
    result = {key: _modern(each) for key, each in config.items()}
    settings = result.get("config")
    if result.get("class_name") == "Sequential" and isinstance(settings, list):  # Keras 2.1
        settings = result["config"] = {"name": "sequential", "layers": settings}
    if not isinstance(settings, dict):
        return result
    if result["class_name"] == "Conv2DTranspose":
        for key, usual in (("groups", 1), ("output_padding", None)):
            if key in settings and settings[key] == usual:
                del settings[key]
    layers = settings.get("layers")
    if result["class_name"] in ("Model", "Functional") and layers and "module" not in result:
        inner = {each["name"] for each in layers if each["class_name"] == "Sequential"}
        for part in ("input_layers", "output_layers"):
            settings[part] = _first_call(settings[part], inner)
        for each in layers:
            each["inbound_nodes"] = _first_call(each["inbound_nodes"], inner)
    if result["class_name"] == "Sequential" and layers:
        first = layers[0]["config"]
        shape = first.get("batch_input_shape")
        if shape and layers[0]["class_name"] != "InputLayer":
            del first["batch_input_shape"]  # Keras 3 would add another axis to it
            name = f"{settings.get('name')}_input"
            entry = {"batch_shape": shape, "dtype": "float32", "name": name}
            layers.insert(0, {"class_name": "InputLayer", "config": entry})
    return result


def _first_call(links: Any, models: set[str]) -> Any:
    """Renumber the calls of inner models: older Keras counted their own construction, too."""
    if not isinstance(links, list):
        return links
    if len(links) > 2 and links[0] in models and isinstance(links[1], int):
        return [links[0], max(links[1] - 1, 0), *links[2:]]
    return [_first_call(each, models) for each in links]


def _checked(path: Path, text: str | bytes) -> Any:
    """Return the description of a model.

    Raises:
        CheckpointError: It contains code, or classes of other programs.
    """
    if len(text) > _LARGEST_CONFIG:
        raise CheckpointError(f"{path}: its description of the model has {len(text)} bytes")
    try:
        config = json.loads(text)
        found = next(filter(None, map(_unsafe, _objects(config))), None)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the Keras file is damaged ({error})") from error
    if found is not None:
        raise CheckpointError(f"{path}: {found}; {_BUILD_IT}")
    return config


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that Keras would build."""
    if isinstance(config, dict):
        if "class_name" in config or "__class__" in config:
            yield config
        for each in config.values():
            yield from _objects(each)
    elif isinstance(config, list):
        for each in config:
            yield from _objects(each)


def _unsafe(described: dict[str, Any]) -> str | None:
    """Return why Keras must not build this object; None: it may."""
    name, module = str(described.get("class_name")), described.get("module")
    if name in ("Lambda", "__lambda__"):
        return "a Lambda layer contains Python code, which sr-export never runs"
    if name in _TENSORFLOW:
        return f"it contains operators of TensorFlow ({name}), which Keras alone does not have"
    if name == "function":
        function = described.get("config")
        known = module == "builtins" and function in _FUNCTIONS
        return None if known else f"it contains the function {function!r} of {module}"
    # Files of Keras 2 have no modules: Keras then knows its own classes only.
    own = module is None or str(module).split(".")[0] == "keras"
    registered = described.get("registered_name")
    if own and (registered is None or registered == name):
        return None
    return f"it contains the class {registered or name!r} of the program that trained it"


def _check_hdf5(file: Any, path: Path) -> None:
    """Check that an HDF5 file reads nothing but itself, and claims no more than it stores.

    Raises:
        CheckpointError: It does.
    """
    import h5py

    claimed = 0
    groups = [file]
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointError(f"{path}: {name!r} links to another place or file")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
                continue
            if item.external or item.is_virtual:
                raise CheckpointError(f"{path}: the array {name!r} is stored in another file")
            claimed += item.nbytes
    size = path.stat().st_size
    if claimed > 100 * size:
        raise CheckpointError(f"{path}: its arrays claim {claimed} bytes, but the file has {size}")
