"""Bytes are shuffled in the place of floats, and frames stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sr_deploy import Engine
from sr_deploy.backends.openvino.pixel_shuffle_pass import shuffle_bytes
from tests.sr_deploy import networks

_NEAREST = {
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}
_LINEAR = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}


def write(
    path: Path,
    *,
    side: int = 2,
    channels: int = 3,
    mode: str = "CRD",
    base: dict[str, str] | None = None,
    bias: bool = True,
    int8: bool = True,
    seen: bool = False,
    unshuffled: int = 1,
    bias_axes: int = 4,
    kind: type[Any] = np.float16,
) -> Path:
    """Write a network as the exporter does: two convolutions, a pixel shuffle, perhaps a base.

    Args:
        path: The file.
        side: Of a block.
        channels: Of the frames.
        mode: Of the pixel shuffle.
        base: How the image is enlarged that is added; None: none is.
        bias: Whether the last convolution has one.
        int8: Whether it computes in INT8.
        seen: Whether what is shuffled goes elsewhere, too.
        unshuffled: By how much the features are smaller than the image.
        bias_axes: 3: another bias is added, without an axis for the batch.
        kind: Of weights.
    """
    random = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        names = []
        for each in inputs:
            names.append(each if isinstance(each, str) else f"c{len(constants)}")
            if not isinstance(each, str):
                constants[names[-1]] = each
        output = f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, names, [output], output, **attributes))
        return output

    def half(value: float | NDArray[Any]) -> NDArray[Any]:
        return np.asarray(value, np.float16)

    def quantized(value: str | NDArray[Any], scale: NDArray[Any], **axis: int) -> str:
        pair = half(scale), np.zeros(np.shape(scale), np.int8)
        return add("DequantizeLinear", add("QuantizeLinear", value, *pair, **axis), *pair, **axis)

    image = add("Cast", "pixels", to=TensorProto.FLOAT16)
    image = add("Mul", add("Transpose", image, perm=[0, 3, 1, 2]), half(1 / 255))
    side *= unshuffled
    outputs = channels * side**2
    value = add("SpaceToDepth", image, blocksize=unshuffled) if unshuffled > 1 else image
    weights = half(random.normal(0, 0.3, (8, channels * unshuffled**2, 3, 3)))
    value = add("Relu", add("Conv", value, weights, half(random.normal(0, 0.1, 8)), pads=[1] * 4))
    weights = half(random.normal(0, 0.2, (outputs, 8, 3, 3)))
    last: list[str | NDArray[Any]] = [value, weights]
    if int8:
        scales = np.abs(weights).max((1, 2, 3)) / 127
        last = [quantized(value, half(1 / 50)), quantized(weights, scales, axis=0)]
    if bias:
        last.append(half(random.normal(0, 0.2, outputs)))
    if kind is not np.float16:
        last[1] = add("Cast", weights.astype(kind), to=TensorProto.FLOAT16)
    made = add("Conv", *last, pads=[1] * 4)
    if bias_axes != 4:
        made = add("Add", made, half(random.normal(0, 0.2, (outputs, 1, 1))))
    value = add("DepthToSpace", made, blocksize=side, mode=mode)
    if seen:
        value = add("Add", value, add("ReduceMean", made, np.array([1, 2, 3]), keepdims=1))
    if base is not None:
        larger = side // unshuffled
        scales = np.array([1, 1, larger, larger], np.float32)
        value = add("Add", value, add("Resize", image, "", scales, **base))
    value = add("Round", add("Clip", add("Mul", value, half(255)), half(0), half(255)))
    add("Cast", add("Transpose", value, perm=[0, 2, 3, 1]), to=TensorProto.UINT8)
    nodes[-1].output[0] = "upscaled"
    pixels, upscaled = ["n", "h", "w", channels], ["n", None, None, channels]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, pixels)],
        [helper.make_tensor_value_info("upscaled", TensorProto.UINT8, upscaled)],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def frames(count: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 21, 34, channels), np.uint8)


def read(path: Path, shape: tuple[int, ...]) -> Any:
    model = openvino.Core().read_model(path)
    model.reshape({model.inputs[0]: list(shape)})
    return model


def computed(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    configuration = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = openvino.Core().compile_model(model, "CPU", configuration)(pixels)[0]
    return np.array(found)


def shuffled_types(model: Any) -> list[str]:
    """Return the types of what is shuffled or split."""
    return [
        node.input_value(0).get_element_type().get_type_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("DepthToSpace", "Split")
    ]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "form",
    [
        {"base": _NEAREST},
        {},
        {"bias": False},
        {"int8": False},
        {"side": 3, "base": _NEAREST},
        {"side": 4, "base": _NEAREST},
        {"channels": 1, "base": _NEAREST},
        {"channels": 1, "side": 4},
    ],
    ids=str,
)
def test_results_are_unchanged(tmp_path: Path, form: dict[str, Any], count: int) -> None:
    pixels = frames(count, form.get("channels", 3))
    path = write(tmp_path / "net.onnx", **form)
    expected = computed(read(path, pixels.shape), pixels)
    model = read(path, pixels.shape)
    shuffle_bytes(model)
    assert shuffled_types(model) == ["u8"]
    found = computed(model, pixels)
    # Without a base, OpenVINO multiplies by white within the convolution, which rounds otherwise.
    differs = np.abs(found.astype(int) - expected)
    assert differs.max() <= ("base" not in form)
    assert differs.mean() < 0.02
    assert len(np.unique(found)) > 100


@pytest.mark.parametrize(
    "form",
    [
        {"base": _LINEAR},
        {"base": _LINEAR, "side": 4},
        {"mode": "DCR"},
        {"seen": True},
        {"base": _NEAREST, "unshuffled": 2},
        {"bias": False, "bias_axes": 3},
        {"kind": np.float64, "int8": False},  # as those in bfloat16, which numpy does not have
    ],
    ids=str,
)
def test_unknown_patterns_stay_unchanged(tmp_path: Path, form: dict[str, Any]) -> None:
    pixels = frames(1, 3)[:, :20]
    model = read(write(tmp_path / "net.onnx", **form), pixels.shape)
    before = [node.get_name() for node in model.get_ordered_ops()]
    shuffle_bytes(model)
    assert [node.get_name() for node in model.get_ordered_ops()] == before


def test_streaming_uses_one_compiled_network_from_the_first_frame(tmp_path: Path) -> None:
    """So that a video that goes on after a kill is the one that it would have been."""
    folder = networks.bundle(tmp_path / "net.srd", networks.convolutions, ("rgb24",))
    image = frames(1, 3)[0]
    with Engine(folder, backend="openvino", precision="fp32", streaming=True) as engine:
        engine.upscale(image)
        with engine._session.pool("rgb24").lane() as lane:
            assert lane._inference._special is not None  # type: ignore[attr-defined]
