"""Export a generator to a bundle: compared with its module, in all precisions that are accurate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sr_deploy.bundle import manifest
from sr_deploy.bundle.manifest import Latent, Manifest, Model, OnnxCheck, Variant
from sr_deploy.errors import CheckpointError, ExportError, InvalidInputError
from sr_deploy.runtime.generator import draw_noise
from sr_export import bundle_writer
from sr_export.graph import cost, pixels, to_onnx, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize import variants
from sr_export.quantize.calibration_data import CalibrationData, Example

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from sr_export.models.generators import Generator
    from sr_export.options import Options

    Report = Callable[[str], None]

_BATCHES = (1, 3, 8)
# Numbers of draws for calibration and for the quality check.
_CALIBRATION = 96
_SCENES = 16


def build(
    generator: Generator, options: Options, taken: str, folder: Path, report: Report
) -> Manifest:
    """Write a generator's bundle; the manifest last.

    Args:
        generator: The generator.
        options: The user's options.
        taken: The location of the weights in the checkpoint, for the user.
        folder: An empty folder.
        report: Called with the current stage.

    Raises:
        ExportError: its graph is not correct.
        InvalidInputError: an option does not apply to generators.
    """
    images_only = {"--yuv": options.yuv, "--calibration": options.calibration}
    if given := [name for name, value in images_only.items() if value]:
        raise InvalidInputError(
            f"{', '.join(given)}: not for {generator.architecture}, whose input is random numbers"
        )
    report(f"exporting {generator.architecture}")
    model = to_onnx.export_generator(generator.module, generator.size)
    report("verifying")
    checks = _verified(model, generator)
    report("measuring the cost")
    spent = cost.measure(model, (generator.height, generator.width))
    pixel_format = pixels.formats(generator.channels)[0]
    stored = bundle_writer.store(model, folder / "model.onnx")
    exact = bundle_writer.store(pixels.wrap(model, pixel_format), folder / "fp32.onnx")
    first = Variant(exact.file, exact.sha256, "fp32", pixel_format)
    subject = variants.ExportedNetwork(
        model=model,
        channels=generator.channels,
        scale=1,
        minimum=1,
        fixed_size=None,
        fixed_batch=None,
        operations=spent.operations * generator.height * generator.width,
        calibration=_calibration(generator.size, options.seed),
    )
    offered = variants.build_variants(subject, options, report)
    report("writing")
    written = Manifest(
        schema=manifest.SCHEMA,
        name=options.name,
        created=bundle_writer.now(),
        source=bundle_writer.source_of(options, [taken, generator.how], generator.ranges),
        model=_describe(generator, spent),
        onnx=stored,
        variants=(first, *bundle_writer.store_variants(offered, first, folder)),
        checks=checks,
        int8=offered.int8,
        refused=offered.refused,
        tools=bundle_writer.versions(),
    )
    return bundle_writer.confirm(written, offered, options, folder, report)


def _verified(model: onnx.ModelProto, generator: Generator) -> tuple[OnnxCheck, ...]:
    """Compare the float graph and the 8-bit graph with the module, on new numbers for each batch.

    Raises:
        ExportError: a graph differs.
        CheckpointError: the module returns NaN or infinity.
    """
    run = OnnxRunner(model)
    run_bytes = OnnxRunner(pixels.wrap(model, pixels.formats(generator.channels)[0]))
    checks = []
    for seed, batch in enumerate(_BATCHES):
        noise = draw_noise(generator.size, batch, seed)
        with torch.inference_mode():
            expected = generator.module(torch.from_numpy(noise)).numpy()
        where = f"for a batch of {batch}"
        if not np.isfinite(expected).all():
            raise CheckpointError(f"the network itself returns NaN or infinity {where}")
        error = verify.difference(run(noise), expected, where)
        shape = (batch, generator.channels, generator.height, generator.width)
        checks.append(OnnxCheck(shape, error))
        levels = 255 * expected.clip(0, 1).transpose(0, 2, 3, 1)
        off = float(np.abs(run_bytes(noise) - levels).max())
        if not off <= 0.5 + 255 * verify.TOLERANCE:
            raise ExportError(f"the 8-bit graph is {off:.2f} levels off, {where}")
    return tuple(checks)


def _describe(generator: Generator, spent: cost.Cost) -> Model:
    return Model(
        architecture=generator.architecture,
        scale=1,
        channels=generator.channels,
        halo=None,
        multiple_of=1,
        minimum=1,
        fixed_size=None,
        fixed_batch=None,
        parameters=generator.parameters,
        gflop_per_megapixel=round(spent.operations / 1e3, 3),
        bytes_per_pixel=spent.bytes,
        latent=Latent(generator.size, generator.height, generator.width),
    )


def _calibration(size: int, seed: int) -> CalibrationData:
    """Return random numbers for calibration, and others for the quality check."""
    noise = draw_noise(size, _CALIBRATION + _SCENES, seed)
    scenes = (Example(f"noise {i}", each, None) for i, each in enumerate(noise[_CALIBRATION:], 1))
    text = f"{_CALIBRATION} draws of random numbers, seed {seed}"
    return CalibrationData(tuple(noise[:_CALIBRATION]), tuple(scenes), text)
