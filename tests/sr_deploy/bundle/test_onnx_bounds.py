"""Hostile ONNX files are refused before anything loads them, honest ones never."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from sr_deploy.bundle import onnx_bounds
from sr_deploy.errors import BundleError
from tests.fuzz.hostile_onnx import HOSTILE, OUTSIDE, loop, nested_branches, nested_functions


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    path = saved(make(), tmp_path)
    start = time.monotonic()
    with pytest.raises(BundleError, match=r"network\.onnx") as caught:
        onnx_bounds.check(path, external=False)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert "not a valid ONNX" not in str(caught.value)


@pytest.mark.parametrize("make", OUTSIDE.values(), ids=OUTSIDE)
def test_weights_in_other_files_are_refused_in_bundles(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="another file"):
        onnx_bounds.check(saved(make(), tmp_path))


@pytest.mark.parametrize(
    "make", [lambda: loop(100), lambda: nested_functions(50, 1), lambda: nested_branches(20)]
)
def test_loops_functions_and_branches_are_allowed(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    onnx_bounds.check(saved(make(), tmp_path))


def test_damaged_files_are_refused_or_pass(tmp_path: Path) -> None:
    path = saved(loop(100), tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with contextlib.suppress(BundleError):
            onnx_bounds.check(path)
    random.seed(0)
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(3):
            changed[random.randrange(len(whole))] = random.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(BundleError):
            onnx_bounds.check(path)


NODES = """
    Relu(x)
    Conv(x, w)
    Conv<pads=[1,2,3,4], strides=[2,1], dilations=[1,2]>(x, w)
    Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w)
    ConvTranspose<strides=[3,2], pads=[1,0,1,0], output_padding=[1,1]>(x, v)
    ConvTranspose<strides=[2,2], output_shape=[21,25]>(x, v)
    MaxPool<kernel_shape=[3,2], strides=[2,2]>(x)
    GlobalAveragePool(x)
    MatMul(x, m)
    Gemm<transB=1>(m, m)
    Einsum<equation="bchw,wn->bnhc">(x, m)
    Concat<axis=-1>(x, x, x)
    Add(x, b)
    Mul(b, x)
    Reshape(x, to)
    Flatten<axis=2>(x)
    Transpose<perm=[0,2,3,1]>(x)
    Unsqueeze(x, axes)
    Squeeze(x, first)
    Gather<axis=1>(x, at)
    GatherND(x, places)
    Slice(x, starts, ends, two, steps)
    Pad(x, pads)
    Resize(x, none, scales)
    Resize(x, none, none, sizes)
    Expand(b, to4)
    Tile(x, four)
    DepthToSpace<blocksize=2>(x)
    SpaceToDepth<blocksize=2>(x)
    ReduceMean<axes=[1,-1], keepdims=0>(x)
    ReduceSum(x, axes)
    ArgMax<axis=1>(x)
    Shape(x)
    ConstantOfShape(four)
    OneHot(at, depth, values)
    Range(from, until, by)
"""
CONSTANTS = {
    "w": np.ones((6, 4, 3, 3), np.float32),
    "v": np.ones((4, 5, 3, 3), np.float32),
    "m": np.ones((12, 7), np.float32),
    "b": np.ones((4, 1, 1), np.float32),
    "to": np.array([0, -1, 6]),
    "to4": np.array([2, 4, 5, 6]),
    "axes": np.array([1, 3]),
    "first": np.array([0]),
    "at": np.array([[0, 1, 2]]),
    "places": np.array([[0, 1], [0, 2], [0, 3]]),
    "starts": np.array([-1, 2]),
    "ends": np.array([-(2**62), 1000]),
    "two": np.array([3, 1]),
    "steps": np.array([-1, 1]),
    "pads": np.array([0, 0, 1, 2, 0, 0, 3, 4]),
    "scales": np.array([1, 1, 2.5, 0.5], np.float32),
    "sizes": np.array([1, 4, 30, 3]),
    "four": np.array([1, 2, 3, 4]),
    "depth": np.array(5),
    "values": np.array([0, 1], np.float32),
    "from": np.array(3),
    "until": np.array(20),
    "by": np.array(4),
}


@pytest.mark.parametrize("call", [each.strip() for each in NODES.strip().splitlines()])
def test_shapes_equal_those_of_onnx(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the shape inference of onnx."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4,10,12] x) => (float[] y) {{ y = {call.replace("none", "")} }}"""
    model = onnx.parser.parse_model(text)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].ClearField("type")
    for name, value in CONSTANTS.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    dims = inferred.graph.output[0].type.tensor_type.shape.dim

    found = onnx_bounds.sizes(saved(model, tmp_path))

    assert all(each.dim_value for each in dims), "onnx does not know"
    assert found["y"].shape == tuple(each.dim_value for each in dims)


def test_sizes_that_the_graph_computes_are_known(tmp_path: Path) -> None:
    """The pattern of exporters: an image is resized to a multiple of its own size."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,H,W] x) => (float[1,3,R,C] y)
        <int64[1] last = {2}, int64[1] end = {4}, int64[2] three = {3, 3}> {
            shape = Shape(x)
            sides = Slice(shape, last, end)
            large = Mul(sides, three)
            first = Shape<end=2>(x)
            all = Concat<axis=0>(first, large)
            y = Expand(x, all)
        }"""
    )
    found = onnx_bounds.sizes(saved(model, tmp_path))
    assert found["y"].shape == (1, 3, 192, 192)
