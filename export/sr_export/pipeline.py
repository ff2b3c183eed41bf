"""The way from a checkpoint to the files of a bundle, each step checked before the next."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sr_deploy.errors import CheckpointError, ExportError
from sr_export import generator_export, photos
from sr_export.bundle_writer import Exported, write
from sr_export.checkpoint import load, state_dict
from sr_export.graph import foreign_onnx, padding, to_onnx, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models import custom, generators, network
from sr_export.models.ranges import Ranges, guess
from sr_export.options import Options
from sr_export.quantize import qat
from sr_export.quantize.calibration_data import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Check, Manifest
    from sr_export.quantize.qat import Start

    Run = Callable[[NDArray[Any]], NDArray[Any]]
    Report = Callable[[str], None]


def build(options: Options, folder: Path, report: Report, *, skip: int = 0) -> Manifest:
    """Write a bundle's files into a folder and return its manifest, which is written last.

    Args:
        options: what the user asked for.
        folder: an empty folder.
        report: called with what is being done, as it begins.
        skip: how many of the ways to export crashed this process in earlier tries.

    Raises:
        CheckpointError: there is no network to export.
        ExportError: no way of exporting it holds.
    """
    torch.manual_seed(0)
    report("reading the checkpoint")
    content = load.read(
        Path(options.checkpoint), ema=options.ema, key=options.key, trust=options.trust
    )
    if isinstance(content, load.Weights):
        generator = generators.find(
            content.tensors,
            architecture=options.architecture,
            arch_file=options.arch_file,
            latent=options.latent,
            ranges=options.ranges,
        )
        if generator is not None:
            taken = "; ".join(each for each in (content.taken, generator.how) if each)
            return generator_export.build(generator, options, taken, folder, report)
    if isinstance(content, load.Onnx):
        taken = "the whole file"
        exported = _convert_foreign(foreign_onnx.read(content.path), options, report)
    else:
        taken, found = _network(content, options)
        exported = _export(found, options, report, skip)
        if isinstance(content, load.Weights) and content.trained:
            names = _constants(found, content)
            placed = qat.placed(exported.model, names, content.trained)
            exported = replace(exported, trained=placed)
    return write(exported, options, taken, folder, report)


def calibrated(weights: Mapping[str, torch.Tensor], report: Report) -> dict[str, Start]:
    """Return how a network would compute in INT8, for a training to go on from there.

    Args:
        weights: Of a network that is recognised by them, and takes and gives [0, 1].
        report: Called with what is being done, as it begins.

    Returns:
        By the names of weights, all layers that can compute in INT8; but not those that share
        their weights, or whose weights are equal to others.

    Raises:
        CheckpointError: there is no network to export.
        ExportError: no way of exporting it holds.
    """
    plain = {name: each.detach().cpu().clone() for name, each in weights.items()}
    content = load.Weights(plain, "the network")
    options = Options(checkpoint="network.pth", name="network", ranges=Ranges())
    _, found = _network(content, options)
    exported = _export(found, options, report, skip=0)
    layers = qat.layers(exported.model, _constants(found, content))
    material = gather(
        None,
        channels=exported.channels,
        scale=exported.scale,
        minimum=exported.limits.minimum,
        fixed_size=exported.limits.fixed_size,
        low_resolution=False,
        seed=options.seed,
        report=report,
    )
    return qat.calibrated(exported.model, layers, material.tiles, report)


def _constants(found: network.Network, content: load.Weights) -> dict[str, str]:
    """Return what the graph calls weights, by what the checkpoint calls them."""
    names = qat.names(found.module, content.tensors)
    return {name: to_onnx.PARAMETERS + each for name, each in names.items()}


def _network(
    content: load.Weights | load.Scripted | load.Program, options: Options
) -> tuple[str, network.Network]:
    """Return what was taken of a checkpoint, in words, and the network that it makes."""
    if isinstance(content, load.Weights):
        candidates = state_dict.strippings(content.tensors)
        if options.arch_file:
            source, *pairs = options.arch_file
            path, _, name = source.rpartition(":")
            found = custom.from_file(Path(path), name, candidates, network.arguments(name, pairs))
        else:
            found = network.recognise(candidates, options.architecture, options.ranges)
        return "; ".join(each for each in (content.taken, found.how) if each), found
    if isinstance(content, load.Program):
        return "the whole file", custom.from_program(content.program)
    return "the whole file", custom.from_module(content.module, "TorchScript")


def _export(found: network.Network, options: Options, report: Report, skip: int) -> Exported:
    """Try one way of exporting after the other, until one holds."""
    run = _torch_runner(found.module)
    _check_repeatable(run, found)
    ranges = (
        options.ranges
        or found.ranges
        or guess(run, found.channels, found.scale, found.probe_size())
    )
    failures: list[tuple[str, str]] = []
    for number, strategy in enumerate(to_onnx.strategies(found)):
        if number < skip:
            failures.append((str(strategy), "the exporter crashed"))
            continue
        report(f"exporting {found.architecture}: {strategy}")
        reference = ranges.around(_torch_runner(to_onnx.Padded(found, strategy.grid)))
        limits = verify.Tolerances(found.minimum, strategy.grid, strategy.size, strategy.batch)
        try:
            model = ranges.put_into(to_onnx.export(found, strategy))
            limits, checks = _checked(model, reference, limits, found.channels, report)
        except ExportError as error:
            failures.append((str(strategy), str(error)))
            continue
        return Exported(
            model=model,
            reference=reference,
            architecture=found.architecture,
            scale=found.scale,
            channels=found.channels,
            # A frozen TorchScript module has constants, and no parameters.
            parameters=found.parameters
            or sum(math.prod(each.dims) for each in model.graph.initializer),
            ranges=ranges,
            limits=limits,
            checks=checks,
        )
    raise ExportError(f"{found.architecture} cannot be exported. {_listed(failures)}")


def _check_repeatable(run: Run, found: network.Network) -> None:
    """Refuse a network that draws random numbers: no graph of it could be compared with it."""
    image = photos.as_float(photos.batch(1, *found.probe_size(), found.channels))
    # A network may write into its input.
    first, second = run(image.copy()), run(image.copy())
    difference = float(np.abs(first - second).max())
    if difference > verify.TOLERANCE:
        raise CheckpointError(
            f"{found.architecture} gives two results for one image ({difference:.3g} apart, where "
            "white is 1): it draws random numbers, so nothing exported of it could be verified"
        )


def _listed(failures: list[tuple[str, str]]) -> str:
    """Return the reasons of failures, each once, with the ways that failed for it."""
    reasons = dict.fromkeys(reason for _, reason in failures)
    ways = {each: [way for way, reason in failures if reason == each] for each in reasons}
    return "; ".join(f"{reason} ({' / '.join(ways[reason])})" for reason in reasons)


def _convert_foreign(found: foreign_onnx.Foreign, options: Options, report: Report) -> Exported:
    ranges = options.ranges or guess(
        found.reference, found.channels, found.scale, found.probe_size()
    )
    reference = ranges.around(found.reference)
    model = ranges.put_into(padding.pad_inside(found.model, found.grid, found.scale))
    limits = verify.Tolerances(1, found.grid, found.fixed_size, found.fixed_batch)
    limits, checks = _checked(model, reference, limits, found.channels, report)
    return Exported(
        model=model,
        reference=reference,
        architecture="ONNX",
        scale=found.scale,
        channels=found.channels,
        parameters=found.parameters,
        ranges=ranges,
        limits=limits,
        checks=checks,
    )


def _checked(
    model: onnx.ModelProto, reference: Run, limits: verify.Tolerances, channels: int, report: Report
) -> tuple[verify.Tolerances, tuple[Check, ...]]:
    """Compare a graph with its reference; return the limits with the smallest side found."""
    run = OnnxRunner(model)
    report("verifying: the smallest size")
    minimum = verify.smallest_side(run, reference, limits, channels)
    limits = verify.Tolerances(minimum, limits.grid, limits.fixed_size, limits.fixed_batch)
    checks = []
    for shape in verify.shapes(limits):
        report("verifying: batch {}, {}x{}".format(*shape))
        checks.append(verify.compare(run, reference, shape, channels))
    return limits, tuple(checks)


def _torch_runner(module: torch.nn.Module) -> Run:
    def run(image: NDArray[Any]) -> NDArray[Any]:
        try:
            with torch.inference_mode():
                return module(torch.from_numpy(image)).numpy()
        except custom.FAILURES as error:
            shape = "x".join(map(str, image.shape))
            raise ExportError(f"the network itself fails at {shape}: {error}") from error

    return run
