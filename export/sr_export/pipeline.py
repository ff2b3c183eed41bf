"""From a checkpoint to the files of a bundle: read, recognize, export, verify, write."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sr_deploy import images
from sr_deploy.errors import CheckpointError, ExportError
from sr_export import generator_export, photos
from sr_export.bundle_writer import Exported, write
from sr_export.checkpoint import keras_file, load
from sr_export.checkpoint.state_dict import strippings
from sr_export.graph import foreign_onnx, pixel_values, to_onnx, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models import generators
from sr_export.models.custom import load_module
from sr_export.models.network import FAILURES, Network, from_module, from_program
from sr_export.models.ranges import Ranges
from sr_export.models.readings import NetworkProbe, PixelVerdict, decide, options_text
from sr_export.models.recognize import recognize
from sr_export.models.restoration import Expected
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
    expected = _expected(options)
    if isinstance(content, load.Onnx):
        found = _export_onnx(content.path, options, expected, report)
        return write(found, options, taken, folder, report)
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
            network = recognize(candidates, options.architecture, options.ranges, expected)
    elif isinstance(content, load.Keras):
        report("running the Keras model")
        keras = _keras(content.path, options)
        if isinstance(keras, generators.Generator):
            return generator_export.build(keras, options, taken, folder, report)
        network = keras
    elif isinstance(content, load.Program):
        network = from_program(content.program, options.network_output)
    else:
        network = from_module(content.module, "TorchScript")
    report("testing the pixel values")
    exported = _export(network, options, _decided(network, options, expected), report, skip)
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
    exported = _export(network, options, PixelVerdict(Ranges()), report, skip=0)
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


def _expected(options: Options) -> Expected | None:
    """Read the image and the result that the user gave."""
    if options.expect is None:
        return None
    return Expected(*(images.read(path).eight_bits() for path in options.expect))


def _require_steady(network: Network) -> None:
    """Check that a network returns the same finite image twice.

    Raises:
        CheckpointError: It draws random numbers, or returns NaN.
    """
    run = _torch_runner(network.module)
    image = photos.as_float(photos.batch(1, *network.probe_size(), network.channels))
    first, second = run(image.copy()), run(image.copy())  # the network may write into its input
    if not np.isfinite(first).all():
        raise CheckpointError(f"{network.architecture} returns NaN or infinity for a photo")
    difference = float(np.abs(first - second).max())
    if difference > verify.TOLERANCE:
        raise CheckpointError(
            f"{network.architecture} returns different results for the same image (by "
            f"{difference:.3g}, where white is 1): it draws random numbers, so an export could not "
            "be verified"
        )


def _decided(network: Network, options: Options, expected: Expected | None) -> PixelVerdict:
    """Return the pixel values of a network.

    Raises:
        CheckpointError: They are unknown, or do not reproduce the user's result.
    """
    _require_steady(network)
    fixed = network.fixed_size is not None
    probe = NetworkProbe(
        run=_torch_runner(network.module),
        channels=network.channels,
        scale=network.scale,
        size=network.probe_size(),
        grid=network.grid,
        fixed=fixed,
        expected=expected,
    )
    found = _verdict(probe, options, network.ranges, settled=network.settled)
    if network.settled and not network.restores:
        found = replace(found, restores=expected is not None and found.restores)
    found = replace(found, assumed=(*network.assumed, *found.assumed) if not found.proven else ())
    return _accepted(found, network.architecture, options)


def _verdict(
    probe: NetworkProbe, options: Options, known: Ranges | None, *, settled: bool = False
) -> PixelVerdict:
    """Return the user's pixel values if there are any, else those that fit best."""
    if options.ranges is None:
        return decide(probe, known, settled=settled)
    chosen = options.ranges
    if settled and known is not None:  # those inside the network are applied by its module
        chosen = replace(chosen, residual=known.residual)
    if probe.expected is None:
        return PixelVerdict(chosen)
    return decide(probe, chosen, settled=True)


def _accepted(found: PixelVerdict, name: str, options: Options) -> PixelVerdict:
    """Return a verdict that permits an export.

    Raises:
        CheckpointError: The network restores no photo, or does not reproduce the user's result.
    """
    if found.restores or options.accept or (options.ranges and options.expect is None):
        return found
    if options.expect is not None:
        raise CheckpointError(
            f"{name}: no pixel values and settings reproduce {options.expect[1]}; the closest is "
            f"{found.best}. --accept exports that one"
        )
    raise CheckpointError(
        f"{name}: restores no photo, whatever its pixel values are; the best is {found.best}. Is "
        "it trained? Give an image and the result of your own program with --expect INPUT OUTPUT, "
        "or the pixel values, such as --input-range -1 1 --output-range -1 1; --accept exports "
        f"it with {options_text(found.ranges)}"
    )


def _export(
    network: Network, options: Options, decided: PixelVerdict, report: Report, skip: int
) -> Exported:
    """Try the export strategies in turn, and return the first graph that is correct."""
    report("testing the network")
    ranges = decided.ranges
    channels = ranges.image_channels(network.channels)
    failures: dict[str, list[str]] = {}
    for number, strategy in enumerate(to_onnx.strategies(network)):
        if number < skip:
            failures.setdefault("the exporter crashed", []).append(str(strategy))
            continue
        report(f"exporting {network.architecture}: {strategy}")
        padded = _torch_runner(to_onnx.Padded(network, strategy.grid))
        reference = ranges.around(padded, network.channels)
        limits = _limits(
            verify.InputLimits(network.minimum, strategy.grid, strategy.size, strategy.batch),
            ranges.enlarge,
        )
        try:
            model = to_onnx.export(network, strategy)
            model = pixel_values.put_into(model, ranges, network.scale)
            limits, checks = _verify(model, reference, limits, channels, report)
        except ExportError as error:
            failures.setdefault(str(error), []).append(str(strategy))
            continue
        return Exported(
            model=model,
            reference=reference,
            architecture=network.architecture,
            scale=network.scale * ranges.enlarge,
            channels=channels,
            # A frozen TorchScript module has constants in place of parameters.
            parameters=network.parameters or _count_weights(model),
            ranges=ranges,
            limits=limits,
            checks=checks,
            how=network.how,
            assumed=decided.assumed,
            proven=decided.proven,
        )
    reasons = "; ".join(f"{reason} ({' / '.join(tried)})" for reason, tried in failures.items())
    raise ExportError(f"{network.architecture} cannot be exported. {reasons}")


def _limits(limits: verify.InputLimits, factor: int) -> verify.InputLimits:
    """Return the limits of the images that are enlarged by a factor before the network."""
    size = limits.fixed_size
    if size is not None:
        size = (size[0] // factor, size[1] // factor)
    grid = limits.grid // math.gcd(limits.grid, factor)
    return replace(limits, minimum=-(-limits.minimum // factor), grid=grid, fixed_size=size)


def _export_onnx(
    path: Path, options: Options, expected: Expected | None, report: Report
) -> Exported:
    """Return the graph of an ONNX file in the form of our own exports, verified."""
    report("testing the network")
    found = foreign_onnx.read(path, options.network_output)
    probe = NetworkProbe(
        run=found.reference,
        channels=found.channels,
        scale=found.scale,
        size=found.probe_size(),
        fixed=found.fixed_size is not None,
        expected=expected,
    )
    known = Ranges() if found.bytes else None
    decided = _accepted(_verdict(probe, options, known, settled=found.bytes), path.name, options)
    ranges = decided.ranges
    channels = ranges.image_channels(found.channels)
    reference = ranges.around(found.reference, found.channels)
    model = pixel_values.put_into(found.model, ranges, found.scale)
    limits = verify.InputLimits(1, found.grid, found.fixed_size, found.fixed_batch)
    limits = _limits(limits, ranges.enlarge)
    limits, checks = _verify(model, reference, limits, channels, report)
    return Exported(
        model=model,
        reference=reference,
        architecture="ONNX",
        scale=found.scale * ranges.enlarge,
        channels=channels,
        parameters=found.parameters,
        ranges=ranges,
        limits=limits,
        checks=checks,
        how=found.choice,
        assumed=decided.assumed,
        proven=decided.proven,
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
