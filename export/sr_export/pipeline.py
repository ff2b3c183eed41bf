"""From a checkpoint to the files of a bundle: read, recognize, export, verify, write."""

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
from sr_export.checkpoint import keras_file, load
from sr_export.checkpoint.state_dict import strippings
from sr_export.graph import foreign_onnx, to_onnx, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models import generators
from sr_export.models.custom import load_module
from sr_export.models.network import FAILURES, Network, from_module, from_program
from sr_export.models.ranges import Ranges
from sr_export.models.recognize import recognize
from sr_export.models.restoration import infer_ranges
from sr_export.options import Options
from sr_export.quantize import qat
from sr_export.quantize.calibration_data import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Manifest, OnnxCheck
    from sr_export.quantize.qat import QatStart

    Run = Callable[[NDArray[Any]], NDArray[Any]]
    Report = Callable[[str], None]


def build(options: Options, folder: Path, report: Report, *, skip: int = 0) -> Manifest:
    """Write a bundle's files and return its manifest, which is written last.

    Args:
        options: the user's options.
        folder: an empty folder.
        report: called with the current stage.
        skip: number of export strategies that crashed this process in earlier attempts.

    Raises:
        CheckpointError: there is no network to export.
        ExportError: no strategy results in a correct graph.
    """
    torch.manual_seed(0)
    report("reading the checkpoint")
    content = load.read(
        Path(options.checkpoint), ema=options.ema, key=options.key, trust=options.trust
    )
    taken = content.taken if isinstance(content, load.Weights) else "the whole file"
    if isinstance(content, load.Onnx):
        return write(_export_onnx(content.path, options, report), options, taken, folder, report)
    report("recognizing the network")
    if isinstance(content, load.Weights):
        generator = generators.find(
            content.tensors,
            architecture=options.architecture,
            arch_file=options.arch_file,
            latent=options.latent,
            ranges=options.ranges,
        )
        if generator is not None:
            return generator_export.build(generator, options, taken, folder, report)
        if options.arch_file:
            name, module = load_module(options.arch_file, strippings(content.tensors))
            network = from_module(module, name, output=options.network_output)
        else:
            candidates = strippings(content.tensors)
            network = recognize(candidates, options.architecture, options.ranges)
    elif isinstance(content, load.Keras):
        found = _keras(content.path, options)
        if isinstance(found, generators.Generator):
            return generator_export.build(found, options, taken, folder, report)
        network = found
    elif isinstance(content, load.Program):
        network = from_program(content.program, options.network_output)
    else:
        network = from_module(content.module, "TorchScript")
    exported = _export(network, options, report, skip)
    if isinstance(content, load.Weights) and content.trained:
        names = _constant_names(network, content)
        exported = replace(exported, trained=qat.placed(exported.model, names, content.trained))
    return write(exported, options, taken, folder, report)


def _keras(path: Path, options: Options) -> Network | generators.Generator:
    """Return the network or the generator in a Keras file."""
    file = keras_file.read(path, builds=bool(options.arch_file))
    from sr_export.models import keras_model  # imports Keras

    found = keras_model.load_model(file, options.arch_file, options.key)
    if found.latent is not None:
        return generators.of_module(found.module, found.name, found.latent, options.ranges)
    return from_module(found.module, found.name, found.size, options.network_output)


def calibrated(weights: Mapping[str, torch.Tensor], report: Report) -> dict[str, QatStart]:
    """Return the calibrated INT8 parameters of a network, as the start of an INT8 training.

    Args:
        weights: The weights of a network that is recognized by them, and uses [0, 1].
        report: Called with the current stage.

    Returns:
        By weight name, all layers that can compute in INT8, except those that share weights or
        have equal weights.

    Raises:
        CheckpointError: there is no network to export.
        ExportError: no strategy results in a correct graph.
    """
    plain = {name: each.detach().cpu().clone() for name, each in weights.items()}
    content = load.Weights(plain, "the network")
    options = Options(checkpoint="network.pth", name="network", ranges=Ranges())
    network = recognize(strippings(plain), ranges=options.ranges)
    exported = _export(network, options, report, skip=0)
    layers = qat.layers(exported.model, _constant_names(network, content))
    calibration = gather(
        None,
        channels=exported.channels,
        scale=exported.scale,
        minimum=exported.limits.minimum,
        fixed_size=exported.limits.fixed_size,
        low_resolution=False,
        seed=options.seed,
        report=report,
    )
    return qat.calibrated(exported.model, layers, calibration.tiles, report)


def _constant_names(network: Network, content: load.Weights) -> dict[str, str]:
    """Return the graph's names of weights by the checkpoint's names."""
    names = qat.names(network.module, content.tensors)
    return {name: to_onnx.PARAMETERS + each for name, each in names.items()}


def _export(network: Network, options: Options, report: Report, skip: int) -> Exported:
    """Try the export strategies in turn, and return the first graph that is correct."""
    report("testing the network")
    run = _torch_runner(network.module)
    image = photos.as_float(photos.batch(1, *network.probe_size(), network.channels))
    # The network may write into its input.
    difference = float(np.abs(run(image.copy()) - run(image.copy())).max())
    if difference > verify.TOLERANCE:
        raise CheckpointError(
            f"{network.architecture} returns different results for the same image (by "
            f"{difference:.3g}, where white is 1): it draws random numbers, so an export could not "
            "be verified"
        )
    ranges = (
        options.ranges
        or network.ranges
        or infer_ranges(run, network.channels, network.scale, network.probe_size())
    )
    failures: dict[str, list[str]] = {}
    for number, strategy in enumerate(to_onnx.strategies(network)):
        if number < skip:
            failures.setdefault("the exporter crashed", []).append(str(strategy))
            continue
        report(f"exporting {network.architecture}: {strategy}")
        reference = ranges.around(_torch_runner(to_onnx.Padded(network, strategy.grid)))
        limits = verify.InputLimits(network.minimum, strategy.grid, strategy.size, strategy.batch)
        try:
            model = ranges.put_into(to_onnx.export(network, strategy))
            limits, checks = _verify(model, reference, limits, network.channels, report)
        except ExportError as error:
            failures.setdefault(str(error), []).append(str(strategy))
            continue
        return Exported(
            model=model,
            reference=reference,
            architecture=network.architecture,
            scale=network.scale,
            channels=network.channels,
            # A frozen TorchScript module has constants in place of parameters.
            parameters=network.parameters or _count_weights(model),
            ranges=ranges,
            limits=limits,
            checks=checks,
            how=network.how,
        )
    reasons = "; ".join(f"{reason} ({' / '.join(tried)})" for reason, tried in failures.items())
    raise ExportError(f"{network.architecture} cannot be exported. {reasons}")


def _export_onnx(path: Path, options: Options, report: Report) -> Exported:
    """Return the graph of an ONNX file in the form of our own exports, verified."""
    report("testing the network")
    found = foreign_onnx.read(path, options.network_output)
    known = Ranges() if found.bytes else None
    ranges = (
        options.ranges
        or known
        or infer_ranges(found.reference, found.channels, found.scale, found.probe_size())
    )
    reference = ranges.around(found.reference)
    model = ranges.put_into(found.model)
    limits = verify.InputLimits(1, found.grid, found.fixed_size, found.fixed_batch)
    limits, checks = _verify(model, reference, limits, found.channels, report)
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
        how=found.choice,
    )


def _verify(
    model: onnx.ModelProto,
    reference: Run,
    limits: verify.InputLimits,
    channels: int,
    report: Report,
) -> tuple[verify.InputLimits, tuple[OnnxCheck, ...]]:
    """Compare a graph with its reference; return its limits, with the measured minimum."""
    run = OnnxRunner(model)
    report("verifying: the smallest size")
    limits = replace(limits, minimum=verify.smallest_side(run, reference, limits, channels))
    checks = []
    for shape in verify.shapes(limits):
        report("verifying: batch {}, {}x{}".format(*shape))
        checks.append(verify.compare(run, reference, shape, channels))
    return limits, tuple(checks)


def _count_weights(model: onnx.ModelProto) -> int:
    return sum(math.prod(each.dims) for each in model.graph.initializer)


def _torch_runner(module: torch.nn.Module) -> Run:
    """Return a function on arrays that runs a module."""

    def run(image: NDArray[Any]) -> NDArray[Any]:
        try:
            with torch.inference_mode():
                return module(torch.from_numpy(image)).numpy()
        except FAILURES as error:
            shape = "x".join(map(str, image.shape))
            raise ExportError(f"the network itself fails at {shape}: {error}") from error

    return run
