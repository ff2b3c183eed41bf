"""ONNX files that ask for all memory, or for work without end: small files, made in code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
BIG = 2**31  # elements: 8 GiB of floats


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    shape: Sequence[int | str] = (1, 3, "h", "w"),
) -> onnx.ModelProto:
    """Return a network from the image `x` to the image `y`."""
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, [None] * 4)],
        list(constants),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=8)


def numbers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def floats(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def added(*nodes: onnx.NodeProto, constants: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """Return a network that adds the sum of a constant `c`, which it computes first."""
    return model(
        [
            *nodes,
            helper.make_node("ReduceSum", ["c"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        constants,
    )


def node(op: str, inputs: str, output: str = "c", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def loop(turns: int | None, doubling: bool = False) -> onnx.ModelProto:
    """Return a network with a loop; None: without a limit."""
    step = node("Concat", "v v", "w", axis=2) if doubling else node("Relu", "v", "w")
    kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "v": FLOAT}
    body = helper.make_graph(
        [node("Identity", "go", "again"), step],
        "body",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, None),
            helper.make_tensor_value_info("w", FLOAT, None),
        ],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    count = "" if turns is None else "turns"
    constants = [yes] if turns is None else [yes, numbers("turns", turns)]
    return model([helper.make_node("Loop", [count, "yes", "x"], ["y"], body=body)], constants)


def doubling(first: str, constants: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """Return a network that doubles a value 34 times."""
    nodes, value = [], first
    for number in range(34):
        nodes.append(node("Concat", f"{value} {value}", f"v{number}", axis=0))
        value = f"v{number}"
    return model(
        [
            *nodes,
            helper.make_node("ReduceMean", [value], ["mean"], keepdims=0),
            helper.make_node("Add", ["x", "mean"], ["y"]),
        ],
        constants,
    )


def nested_functions(count: int, calls: int) -> onnx.ModelProto:
    """Return a network of functions that each call the one before."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for number in range(count):
        nodes, value = [], "a"
        for call in range(calls):
            output = "b" if call == calls - 1 else f"t{call}"
            inner = ("Relu", "") if number == 0 else (f"f{number - 1}", "own")
            nodes.append(helper.make_node(inner[0], [value], [output], domain=inner[1]))
            value = output
        functions.append(helper.make_function("own", f"f{number}", ["a"], ["b"], nodes, opsets))
    top = helper.make_node(f"f{count - 1}", ["x"], ["y"], domain="own")
    return model([top], functions=functions)


def nested_branches(depth: int) -> onnx.ModelProto:
    """Return a network of branches within branches."""
    output = helper.make_tensor_value_info("r", FLOAT, None)
    graph = helper.make_graph([node("Relu", "x", "r")], "g", [], [output])
    for _ in range(depth):
        branch = node("If", "yes", "r", then_branch=graph, else_branch=graph)
        del branch.attribute[1:]
        other = helper.make_graph([node("Relu", "x", "r")], "g", [], [output])
        branch.attribute.append(helper.make_attribute("else_branch", other))
        graph = helper.make_graph([branch], "g", [], [output])
    yes = numpy_helper.from_array(np.array(True), "yes")
    return model([*graph.node, node("Identity", "r", "y")], [yes])


def claimed(*shape: int, location: str = "") -> onnx.ModelProto:
    """Return a network with a constant that claims a shape and has no data."""
    tensor = TensorProto(name="c", dims=shape, data_type=FLOAT)
    if location:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return added(constants=[tensor])


def sparse() -> onnx.ModelProto:
    """Return a network with a sparse constant that is large when it is dense."""
    found = added()
    one = numpy_helper.from_array(np.ones(1, np.float32), "c")
    found.graph.sparse_initializer.append(helper.make_sparse_tensor(one, numbers("at", 5), [BIG]))
    return found


HOSTILE: dict[str, Callable[[], onnx.ModelProto]] = {
    "an endless loop": lambda: loop(2**63 - 1),
    "a loop without a limit": lambda: loop(None),
    "a loop that doubles": lambda: loop(40, doubling=True),
    "ConstantOfShape": lambda: added(node("ConstantOfShape", "s"), constants=[numbers("s", BIG)]),
    "Expand": lambda: added(
        node("Expand", "one s"), constants=[numbers("s", BIG), floats("one", 1)]
    ),
    "Tile": lambda: added(node("Tile", "one s"), constants=[numbers("s", BIG), floats("one", 1)]),
    "Range": lambda: added(
        node("Range", "a b d", "r"),
        node("Cast", "r", to=FLOAT),
        constants=[
            numpy_helper.from_array(np.array(each, np.int64), name)
            for name, each in (("a", 0), ("b", BIG), ("d", 1))
        ],
    ),
    "a size from a computation": lambda: added(
        node("Mul", "s s", "squared"),
        node("Mul", "squared squared", "large"),
        node("ConstantOfShape", "large"),
        constants=[numbers("s", 256)],
    ),
    "an outer product": lambda: added(
        node("MatMul", "column row"),
        constants=[floats("column", 60000, 1), floats("row", 1, 60000)],
    ),
    "broadcasting": lambda: added(
        node("Add", "column row"), constants=[floats("column", 60000, 1), floats("row", 1, 60000)]
    ),
    "Einsum": lambda: added(
        node("Einsum", "row row row", equation="i,j,k->ijk"), constants=[floats("row", 2000)]
    ),
    "random numbers": lambda: added(node("RandomNormal", "", shape=[BIG])),
    "OneHot": lambda: added(
        node("OneHot", "at depth values"),
        constants=[numbers("at", 1), numbers("depth", BIG), floats("values", 2)],
    ),
    "Pad": lambda: model(
        [node("Pad", "x pads", "y")], [numbers("pads", 0, 0, 9999, 9999, 0, 0, 9999, 9999)]
    ),
    "Resize": lambda: model(
        [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"])],
        [numbers("sizes", 1, 3, 30000, 30000)],
    ),
    "Tile of the image": lambda: model(
        [node("Tile", "x repeats", "y")], [numbers("repeats", 1, 1, 500, 500)]
    ),
    "padding of a convolution": lambda: model(
        [node("Conv", "x w", "y", pads=[9999] * 4)], [floats("w", 3, 3, 3, 3)]
    ),
    "a transposed convolution": lambda: model(
        [node("ConvTranspose", "x w", "y", strides=[400, 400])], [floats("w", 3, 3, 3, 3)]
    ),
    "many channels": lambda: model(
        [node("Conv", "x w", "t"), node("ReduceMean", "t", "y", axes=[1])],
        [floats("w", 90000, 3, 1, 1)],
    ),
    "doubling of a constant": lambda: doubling("one", [floats("one", 1)]),
    "doubling of the image": lambda: doubling("x"),
    "a constant without data": lambda: claimed(BIG),
    "a constant of 2**63 elements": lambda: claimed(2**31, 2**31, 2),
    "a sparse constant": sparse,
    "functions that call each other": lambda: nested_functions(3000, 1),
    "functions that double": lambda: nested_functions(40, 2),
}

OUTSIDE: dict[str, Callable[[], onnx.ModelProto]] = {
    "weights outside of the folder": lambda: claimed(4, location="../../../etc/passwd"),
    "weights in a device": lambda: claimed(4, location="/dev/zero"),
}
