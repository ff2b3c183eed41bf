"""Networks whose images are not RGB in [0, 1], made to take and give that.

Some networks take or give [-1, 1] (tanh), [0, 255], normalised or BGR images. The difference is an
affine map per channel on each side; it goes into the graph, so that a bundle always holds RGB in
[0, 1].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_export import photos
from sr_export.metrics import psnr
from sr_export.models.restoration import shrunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

UNIT = (0.0, 1.0)
_SIGNED = (-1.0, 1.0)
_USUAL = (UNIT, _SIGNED, (0.0, 255.0))
# A network in the wrong range restores worse, if only by a tenth of a decibel; less than this, in
# decibels, is what two ranges that fit equally well differ by.
_TELLING_GAIN = 0.05
# Below this the output does not resemble the image in any range: the weights are untrained.
_RESEMBLANCE = 15.0
# How far from gray the darkest and the brightest values of a tanh are.
_NEAR_ENDS = 0.8


@dataclass(frozen=True)
class Ranges:
    """What a network takes and gives, where we take and give RGB in [0, 1]."""

    input: tuple[float, float] = UNIT
    """The values of black and white that go in, before `mean` and `std`."""
    output: tuple[float, float] = UNIT
    """The values of black and white that come out."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from the input, per channel or one for all."""
    std: tuple[float, ...] = (1.0,)
    """What the input is then divided by."""
    bgr: bool = False
    """Channels are in the order blue, green, red."""

    def __str__(self) -> str:
        if self.plain:
            return "0 to 1 in and out"
        texts = ["{:g} to {:g} in, {:g} to {:g} out".format(*self.input, *self.output)]
        if (self.mean, self.std) != ((0.0,), (1.0,)):
            texts.append(f"mean {self.mean}, std {self.std}")
        return ", ".join([*texts, *(["BGR"] if self.bgr else [])])

    @property
    def plain(self) -> bool:
        """Whether nothing needs to be done."""
        return self == Ranges()

    def input_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what images are multiplied with, and what is then added, before they go in."""
        low, high = self.input
        mean, std = np.array(self.mean), np.array(self.std)
        return _plane((high - low) / std), _plane((low - mean) / std)

    def output_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the same for what comes out."""
        low, high = self.output
        return _plane(np.array([1 / (high - low)])), _plane(np.array([-low / (high - low)]))

    def around(self, run: Run) -> Run:
        """Return a function on [0, 1] for one on the network's own ranges."""
        if self.plain:
            return run
        order = slice(None, None, -1) if self.bgr else slice(None)

        def ranged(image: NDArray[np.float32]) -> NDArray[np.float32]:
            scale, shift = self.input_map()
            output = run(np.ascontiguousarray(image[:, order] * scale + shift))
            scale, shift = self.output_map()
            return np.ascontiguousarray((output * scale + shift)[:, order])

        return ranged

    def put_into(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return a copy of a float NCHW model that takes and gives [0, 1]."""
        ranged = onnx.ModelProto()
        ranged.CopyFrom(model)
        if self.plain:
            return ranged
        graph = ranged.graph
        source, result = graph.input[0].name, graph.output[0].name
        _rename(graph, source, "ranged_input")
        _rename(graph, result, "ranged_output")
        before = _affine(source, "ranged_input", *self.input_map(), self.bgr, flip_first=True)
        after = _affine("ranged_output", result, *self.output_map(), self.bgr, flip_first=False)
        nodes = [*before[0], *graph.node, *after[0]]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend([*before[1], *after[1]])
        onnx.checker.check_model(ranged)
        return ranged


def _plane(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32).reshape(1, -1, 1, 1)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value inside the graph; the graph's own input or output keeps its name."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _affine(
    source: str,
    target: str,
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    bgr: bool,
    *,
    flip_first: bool,
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and constants for `source * scale + shift`, with the channels turned round."""
    stem = f"{target}_affine"
    steps: list[tuple[str, str, NDArray[Any]]] = [("Mul", "scale", scale), ("Add", "shift", shift)]
    if bgr:
        flip = ("Gather", "order", np.array([2, 1, 0], np.int64))
        steps.insert(0 if flip_first else len(steps), flip)
    nodes, constants = [], []
    for i, (operator, name, constant) in enumerate(steps):
        output = target if i == len(steps) - 1 else f"{stem}_{name}_out"
        attributes: dict[str, Any] = {"axis": 1} if operator == "Gather" else {}
        inputs = [source, f"{stem}_{name}"]
        nodes.append(
            helper.make_node(operator, inputs, [output], f"{stem}_{name}_node", **attributes)
        )
        constants.append(numpy_helper.from_array(constant, f"{stem}_{name}"))
        source = output
    return nodes, constants


def guess(run: Run, channels: int, scale: int, size: tuple[int, int]) -> Ranges:
    """Find the ranges in which a network restores photos best.

    Photos are made small and enlarged again by the network, once for each pair of usual ranges.
    Weights that are untrained, or that make other pictures of photos, restore nothing in any range.
    Then [0, 1] is taken, or [-1, 1] where the output shows that it ends in tanh.

    Args:
        run: the network, NCHW float32 in and out, in its own ranges.
        channels: of its images.
        scale: how much it enlarges.
        size: a (height, width) that it takes.
    """
    height, width = size
    originals = photos.batch(3, height * scale, width * scale, channels)
    small = np.stack([shrunk(image, height, width) for image in originals])
    found = {}
    for given, taken in itertools.product(_USUAL, _USUAL):
        ranged = Ranges(input=given, output=taken).around(run)
        found[given, taken] = _restoration(ranged, photos.as_float(small), originals)
    best = max(found, key=lambda pair: found[pair])
    if found[best] < _RESEMBLANCE and _ends_in_tanh(run, photos.as_float(small)):
        return Ranges(input=_SIGNED, output=_SIGNED)
    if found[best] < _RESEMBLANCE or found[best] - found[UNIT, UNIT] < _TELLING_GAIN:
        return Ranges()
    return Ranges(input=best[0], output=best[1])


def _ends_in_tanh(run: Run, images: NDArray[np.float32]) -> bool:
    """Return whether images in [-1, 1] come near both ends of that and never leave it."""
    outputs = [run(2 * image[None] - 1) for image in images]
    low, high = min(map(np.min, outputs)), max(map(np.max, outputs))
    return bool(-1 <= low < -_NEAR_ENDS and _NEAR_ENDS < high <= 1)


def _restoration(run: Run, small: NDArray[np.float32], originals: NDArray[np.uint8]) -> float:
    """Return the mean PSNR of restored images, each run alone."""
    found = []
    for i, original in enumerate(originals):
        output = run(small[i : i + 1])[0].transpose(1, 2, 0)
        if not np.isfinite(output).all():
            return -np.inf
        found.append(psnr(original.astype(np.float32), output.clip(0, 1) * 255))
    return float(np.mean(found))
