"""Run a network as its origin runs it. The runner starts this file in a process of its own.

    python origin.py SPEC.json INPUTS.npz OUTPUTS.npz

SPEC names the origin's folder, the file with the weights, and how the origin's script uses it (see
`catalogue.py`). Each input is an RGB image, uint8 (H, W, 3). For each the outputs hold `exact`, the
network's result in levels, float32, and `image`, uint8, rounded as the origin's script rounds.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if __name__ == "__main__":  # the packages' folder, not this one: origins have any names
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from zoo import colors

if TYPE_CHECKING:
    from collections.abc import Callable

    Network = Callable[[np.ndarray], np.ndarray]  # (1, C, H, W) float32 in the network's range


def main() -> int:
    """Write the outputs of the origin's network for each input."""
    spec_file, inputs, outputs = sys.argv[1:]
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    network = _NETWORKS[spec["kind"]](spec)
    results: dict[str, np.ndarray] = {}
    with np.load(inputs) as images:
        for name, image in images.items():
            exact, rounded = colors.run(image, network, spec)
            results[f"{name}.exact"], results[f"{name}.image"] = exact, rounded
    np.savez(outputs, **results)  # type: ignore[arg-type]
    return 0


def _torch_module(spec: dict[str, Any]) -> Network:
    """Return the origin's class with the weights of the file."""
    import torch

    torch.set_num_threads(1)
    _serve_old_pickles(torch)
    for folder in reversed(spec.get("path", ["."])):
        sys.path.insert(0, str(Path(spec["origin"], folder)))
    loaded: Any = None
    if "class" in spec:
        source = _source(spec)
        arguments = {key: _value(value) for key, value in spec.get("args", {}).items()}
        module = getattr(source, spec["class"])(*spec.get("positional", []), **arguments)
        module.load_state_dict(_state(torch, spec))
    else:
        if "module" in spec:  # the pickled classes are those of the script that trained
            vars(sys.modules["__main__"]).update(vars(_source(spec)))
        loaded = torch.load(spec["file"], map_location="cpu", weights_only=False)
        module = loaded[spec["key"]] if "key" in spec else loaded
    if isinstance(module, torch.nn.DataParallel):
        module = module.module
    module = module.float().eval()

    def run(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            output = module(torch.from_numpy(image), **spec.get("call", {}))
        if not isinstance(output, torch.Tensor):
            output = output[spec.get("output", -1)]
        return output.numpy()

    return run


def _source(spec: dict[str, Any]) -> types.ModuleType:
    """Import the origin's module, or only the definitions of a script or notebook."""
    if not spec.get("definitions"):
        return importlib.import_module(spec["module"])
    file = Path(spec["origin"], spec["module"])
    code = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = (
            cell["source"] for cell in json.loads(code)["cells"] if cell["cell_type"] == "code"
        )
        code = "\n".join("".join(cell) + "\n" for cell in cells)
    module = types.ModuleType("definitions")
    exec(compile(definitions(code), str(file), "exec"), vars(module))  # noqa: S102
    return module


def definitions(code: str) -> ast.Module:
    """Return a script's imports, functions and classes, without what it does when it is run."""
    lines = ["pass" if line.lstrip()[:1] in ("!", "%") else line for line in code.splitlines()]
    kept: list[ast.stmt] = []
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            kept.append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):  # what is not installed is not needed
            passing: list[ast.stmt] = [ast.Pass()]
            caught = ast.ExceptHandler(ast.Name("ImportError", ast.Load()), None, passing)
            kept.append(ast.Try([node], [caught], [], []))
    return ast.fix_missing_locations(ast.Module(kept, []))


def _state(torch: Any, spec: dict[str, Any]) -> dict[str, Any]:
    state = torch.load(spec["file"], map_location="cpu", weights_only=False)
    for key in filter(None, spec.get("key", "").split(".")):
        state = state[key]
    if isinstance(state, torch.nn.Module):
        state = state.state_dict()
    removed = spec.get("remove", "module.")
    return {name.replace(removed, ""): tensor for name, tensor in state.items()}


def _value(value: Any) -> Any:
    """Turn {"namespace": {...}} into an object with attributes, as configurations have them."""
    if isinstance(value, dict) and "namespace" in value:
        return types.SimpleNamespace(**value["namespace"])
    return value


def _serve_old_pickles(torch: Any) -> None:
    """Provide the module that pickles of PyTorch 0.x name."""
    backend = types.ModuleType("torch.nn.backends.thnn")
    vars(backend)["_get_thnn_function_backend"] = lambda: None
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.nn.backends")
    sys.modules.setdefault("torch.nn.backends", types.ModuleType("torch.nn.backends"))
    sys.modules.setdefault("torch.nn.backends.thnn", backend)
    torch.nn.Module.__setstate__ = _with_new_attributes(torch.nn.Module.__setstate__)


def _with_new_attributes(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Give modules that old versions of PyTorch pickled the attributes that came later."""

    def restore(module: Any, state: dict[str, Any]) -> None:
        original(module, state)
        if hasattr(module, "kernel_size") and "padding_mode" not in vars(module):
            module.padding_mode = "zeros"
        if type(module).__name__ == "ReLU" and "inplace" not in vars(module):
            module.inplace = False

    return restore


def _keras_model(spec: dict[str, Any]) -> Network:
    """Return a Keras model without its fixed image size; TensorFlow runs it, else torch."""
    keras = _keras()
    sys.path[:0] = [str(Path(spec["origin"], folder)) for folder in spec.get("path", ["."])]
    if "function" in spec:  # the file holds weights only, or code of another version of Python
        model = _attribute(_source(spec), spec["function"])(*spec.get("positional", []))
        model = getattr(model, spec.get("member", ""), model)
        model.load_weights(spec["file"])
    else:
        model = keras.models.load_model(spec["file"], compile=False)
        freed = type(model).from_config(_freed(model.get_config()))
        freed.set_weights(model.get_weights())
        model = freed

    def run(image: np.ndarray) -> np.ndarray:
        output = model.predict(image.transpose(0, 2, 3, 1), verbose=0)
        if isinstance(output, list | tuple):
            output = output[spec.get("output", -1)]
        return np.asarray(output).transpose(0, 3, 1, 2)

    return run


def _keras() -> Any:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        return importlib.import_module("tensorflow").keras
    except ImportError:
        os.environ["KERAS_BACKEND"] = "torch"
        return importlib.import_module("keras")


def _attribute(source: Any, name: str) -> Any:
    for part in name.split("."):
        source = getattr(source, part)
    return source


def _freed(node: Any, key: str = "") -> Any:
    """Return a model's configuration without heights and widths, nor the shapes of built layers."""
    if isinstance(node, dict):
        return {k: _freed(v, k) for k, v in node.items() if k != "build_config"}
    if not isinstance(node, list | tuple):
        return node
    if key in ("batch_shape", "batch_input_shape") and len(node) == 4:
        return (None, None, None, node[3])
    return type(node)(_freed(item) for item in node)


def _onnx_model(spec: dict[str, Any]) -> Network:
    """Return an ONNX model, run by ONNX Runtime without optimization."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(spec["file"], options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: np.ndarray) -> np.ndarray:
        fed = image.transpose(0, 2, 3, 1) if spec.get("channels_last") else image
        output = session.run(None, {name: fed})[spec.get("output", 0)]
        return output.transpose(0, 3, 1, 2) if spec.get("channels_last") else output

    return run


_NETWORKS = {
    "torch": _torch_module,
    "keras": _keras_model,
    "keras3": _keras_model,
    "onnx": _onnx_model,
}

if __name__ == "__main__":
    raise SystemExit(main())
