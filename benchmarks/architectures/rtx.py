"""Portable plans of one network: what NVIDIA's parser and builder say, on a machine without a GPU.

A network is exported as `sr-export` does, without its measurements: the graph equals the network at
every tested shape, FP16 is typed, and INT8 is calibrated on a few tiles. Each is built for frames
of up to 1080p, or for tiles if the network needs more than 8 GiB.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from architectures.cells import build
from sr_deploy.backends.tensorrt import contexts
from sr_deploy.bundle.manifest import Model
from sr_deploy.cli import console
from sr_deploy.errors import ExportError, SrDeployError
from sr_export import photos
from sr_export.checkpoint.state_dict import strippings
from sr_export.graph import cost, pixels, to_onnx, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models.network import FAILURES
from sr_export.models.ranges import Ranges
from sr_export.models.recognize import recognize
from sr_export.quantize.half import VariantRecipe
from sr_export.quantize.placement import layers
from sr_export.quantize.quantizer import Quantizer
from sr_export.trt import builder
from sr_export.trt.build_request import (
    PORTABLE_MEMORY,
    BuildRequest,
    BuildSettings,
    ShapeOptions,
    recipes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    import onnx
    from numpy.typing import NDArray

    from architectures.cells import Cell
    from sr_deploy.bundle.manifest import PixelFormat, Precision
    from sr_deploy.bundle.plan_store import Compatibility
    from sr_export.models.network import Network

_COST_SIDE = 128
_TILES = 4
_TILE_SIDE = 48

FORMS = ("FP32", "FP16", "FP16 Turing", "FP16 NV12", "INT8")


@dataclass(frozen=True)
class Form:
    """A form of a network, with its column's name."""

    name: str
    precision: Precision
    frames: PixelFormat
    compatibility: Compatibility = "rtx"


class PlanResult(TypedDict, total=False):
    """The result of one build: either `error`, or all other keys.

    Attributes:
        error: The reason of a failure, as the library gives it.
        shape: Largest batch, height and width.
        seconds: Processor seconds of parsing and building.
        bytes: Size of the plan.
        memory: GPU memory for intermediates, in bytes.
    """

    error: str
    shape: tuple[int, int, int]
    seconds: float
    bytes: int
    memory: int


class PlanResults(TypedDict, total=False):
    """The results of one network.

    Attributes:
        error: The reason why there is no graph.
        library: Version of the library.
        plans: Results by form.
    """

    error: str
    library: str
    plans: dict[str, PlanResult]


def build_plans(cell: Cell, forms: Collection[str] = FORMS) -> PlanResults:
    """Export a network in several forms, and build a plan of each."""
    try:
        module, spec = build(cell)
        network = recognize(strippings(module.state_dict()), spec or None, Ranges())
        model, limits = _exported(network)
    except (SrDeployError, RuntimeError) as error:
        return {"error": console.describe(error)}
    described = _described(network, model, limits)
    plans: dict[str, PlanResult] = {}
    for form, graph in _graphs(model, network.channels, limits):
        if form.name in forms:
            try:
                plans[form.name] = _plan(graph(), described, form)
            except SrDeployError as error:
                plans[form.name] = {"error": console.describe(error)}
    version: str = contexts.library("tensorrt_rtx").__version__
    return {"library": version, "plans": plans}


def _exported(network: Network) -> tuple[onnx.ModelProto, verify.InputLimits]:
    """Return the graph of the first strategy that is correct."""
    failure: SrDeployError = ExportError("no strategy")
    for strategy in to_onnx.strategies(network):
        limits = verify.InputLimits(network.minimum, strategy.grid, strategy.size, strategy.batch)
        padded = to_onnx.Padded(network, strategy.grid).eval()

        def reference(image: NDArray[Any], padded: to_onnx.Padded = padded) -> NDArray[Any]:
            try:
                with torch.inference_mode():
                    result: NDArray[Any] = padded(torch.from_numpy(image)).numpy()
            except FAILURES as error:
                raise ExportError(str(error)) from error
            return result

        try:
            model = to_onnx.export(network, strategy)
            run = OnnxRunner(model)
            least = verify.smallest_side(run, reference, limits, network.channels)
            limits = replace(limits, minimum=least)
            for shape in verify.shapes(limits):
                verify.compare(run, reference, shape, network.channels)
        except ExportError as error:
            failure = error
        else:
            return model, limits
    raise failure


def _described(network: Network, model: onnx.ModelProto, limits: verify.InputLimits) -> Model:
    side = max(_COST_SIDE, limits.minimum)
    spent = cost.measure(model, limits.fixed_size or (side, side))
    return Model(
        architecture=network.architecture,
        scale=network.scale,
        channels=network.channels,
        halo=None,
        multiple_of=limits.grid,
        minimum=limits.minimum,
        fixed_size=limits.fixed_size,
        fixed_batch=limits.fixed_batch,
        parameters=network.parameters,
        gflop_per_megapixel=spent.operations / 1e3,
        bytes_per_pixel=spent.bytes,
    )


def _graphs(
    model: onnx.ModelProto, channels: int, limits: verify.InputLimits
) -> Iterator[tuple[Form, Callable[[], onnx.ModelProto]]]:
    """Yield the forms of a network with functions that make their graphs."""
    frames = pixels.formats(3 if channels == 3 else 1)[0]
    half = VariantRecipe(model, "fp16")
    yield Form("FP32", "fp32", frames), lambda: pixels.wrap(model, frames)
    yield Form("FP16", "fp16", frames), lambda: half.graph(frames)
    yield Form("FP16 Turing", "fp16", frames, "turing"), lambda: half.graph(frames)
    if channels == 3 and limits.fixed_size is None and limits.fixed_batch in (None, 1):
        yield Form("FP16 NV12", "fp16", "nv12"), lambda: half.graph("nv12")
    if layers(model):
        yield Form("INT8", "int8", frames), lambda: _quantized(model, frames, channels, limits)


def _quantized(
    model: onnx.ModelProto, frames: PixelFormat, channels: int, limits: verify.InputLimits
) -> onnx.ModelProto:
    side = max(_TILE_SIDE, limits.minimum)
    tiles = list(photos.batch(_TILES, *(limits.fixed_size or (side, side)), channels))
    quantizer = Quantizer(model, tiles, "minmax", lambda _: None)
    network = quantizer.quantize(quantizer.layers, fitted=False)
    return VariantRecipe(network, "fp16").graph(frames)


def _plan(graph: onnx.ModelProto, described: Model, form: Form) -> PlanResult:
    """Build one plan.

    Raises:
        SrDeployError: the library rejects the graph.
    """
    trt = contexts.library("tensorrt_rtx")
    shapes = ShapeOptions().shapes(described, form.frames, PORTABLE_MEMORY)
    recipe, *_ = recipes(
        form.precision, typed_file=True, halves={"fp16"}, abilities=builder.abilities(trt)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(graph.SerializeToString())
        request = BuildRequest(
            onnx=str(path),
            recipe=recipe,
            exact=form.precision == "fp32",
            shapes=shapes,
            settings=BuildSettings(compatibility=form.compatibility),
            timing_cache=None,
            device=None,
        )
        started = time.process_time()
        built = builder.build(trt, request, lambda _: None)
    return {
        "shape": shapes.most,
        "seconds": round(time.process_time() - started, 1),
        "bytes": len(built.content),
        "memory": built.memory,
    }
