"""A generator as a bundle: exported, compared with its module, and offered in each precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sr_deploy.bundle import manifest
from sr_deploy.bundle.manifest import Check, Latent, Manifest, Model, Variant
from sr_deploy.errors import CheckpointError, ExportError, InvalidInputError
from sr_deploy.runtime.generator import draw_noise
from sr_export import bundle_writer
from sr_export.graph import cost, pixels, to_onnx, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize import acceptance, variants
from sr_export.quantize.backend_check import confirmed
from sr_export.quantize.calibration_data import Example, Material

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from sr_deploy.bundle.manifest import PixelFormat
    from sr_export.models.generators import Generator
    from sr_export.options import Options

    Report = Callable[[str], None]

_BATCHES = (1, 3, 8)
_CALIBRATED_ON = 96
_JUDGED_BY = 16


def build(found: Generator, options: Options, taken: str, folder: Path, report: Report) -> Manifest:
    """Write a generator's bundle into a folder; the manifest last.

    Args:
        found: The generator.
        options: What the user asked for.
        taken: What was taken of the checkpoint, in words.
        folder: An empty folder.
        report: Called with what is being done, as it begins.

    Raises:
        ExportError: no graph of it holds.
        InvalidInputError: an option does not fit a generator.
    """
    _check(options, found.architecture)
    report(f"exporting {found.architecture}")
    model = to_onnx.export_generator(found.module, found.size)
    report("verifying")
    checks = _verified(model, found)
    report("measuring the cost")
    spent = cost.measure(model, (found.height, found.width))
    described = _describe(found, spent)
    stored = bundle_writer.store(model, folder / "model.onnx")
    exact = bundle_writer.store(pixels.wrap(model, _format(found)), folder / "fp32.onnx")
    first = Variant(exact.file, exact.sha256, "fp32", _format(found))
    subject = variants.ExportedNetwork(
        model=model,
        channels=found.channels,
        scale=1,
        minimum=1,
        fixed_size=None,
        fixed_batch=None,
        operations=spent.operations * found.height * found.width,
        material=_material(found.size, options.seed),
    )
    offered = variants.make(subject, options, report)
    report("writing")
    written = Manifest(
        schema=manifest.SCHEMA,
        name=options.name,
        created=bundle_writer.now(),
        source=bundle_writer.source_of(options, taken, found.ranges),
        model=described,
        onnx=stored,
        variants=(first, *bundle_writer.stored_offer(offered, first, folder)),
        checks=checks,
        int8=offered.int8,
        refused=offered.refused,
        tools=bundle_writer.versions(),
    )
    path = folder / manifest.NAME
    path.write_text(written.to_json(), encoding="utf-8")
    report("confirming with the other runtimes")
    budgets = acceptance.BUDGETS | options.budgets
    checked = confirmed(folder, written.variants, offered.scenes, budgets)
    path.write_text(replace(written, variants=checked).to_json(), encoding="utf-8")
    return manifest.read(path)  # what was written is what will be read


def _check(options: Options, name: str) -> None:
    """Refuse what is for networks that take images.

    Raises:
        InvalidInputError: it was asked for.
    """
    options_for_images = {"--yuv": options.yuv, "--calibration": options.calibration}
    asked = [each for each, value in options_for_images.items() if value]
    if asked:
        raise InvalidInputError(
            f"{', '.join(asked)}: {name} makes images of random numbers and takes none"
        )


def _verified(model: onnx.ModelProto, found: Generator) -> tuple[Check, ...]:
    """Compare a float graph, and the one for bytes, with the module: other numbers each time.

    Raises:
        ExportError: one differs.
        CheckpointError: the module makes no image.
    """
    run, run_bytes = OnnxRunner(model), OnnxRunner(pixels.wrap(model, _format(found)))
    checks = []
    for seed, batch in enumerate(_BATCHES):
        noise = draw_noise(found.size, batch, seed)
        with torch.inference_mode():
            expected = found.module(torch.from_numpy(noise)).numpy()
        where = f"for a batch of {batch}"
        if not np.isfinite(expected).all():
            raise CheckpointError(f"the network itself gives NaN or infinity {where}")
        error = verify.difference(run(noise), expected, where)
        checks.append(Check((batch, found.channels, found.height, found.width), error))
        levels = 255 * expected.clip(0, 1).transpose(0, 2, 3, 1)
        off = float(np.abs(run_bytes(noise) - levels).max())
        if not off <= 0.5 + 255 * verify.TOLERANCE:
            raise ExportError(f"the 8-bit graph is {off:.2f} levels off, {where}")
    return tuple(checks)


def _describe(found: Generator, spent: cost.Cost) -> Model:
    return Model(
        architecture=found.architecture,
        scale=1,
        channels=found.channels,
        halo=None,
        multiple_of=1,
        minimum=1,
        fixed_size=None,
        fixed_batch=None,
        parameters=found.parameters,
        gflop_per_megapixel=round(spent.operations / 1e3, 3),
        bytes_per_pixel=spent.bytes,
        latent=Latent(found.size, found.height, found.width),
    )


def _format(found: Generator) -> PixelFormat:
    return pixels.formats(found.channels)[0]


def _material(size: int, seed: int) -> Material:
    """Return numbers to calibrate on, and others to judge by."""
    noise = draw_noise(size, _CALIBRATED_ON + _JUDGED_BY, seed)
    exam = (Example(f"noise {i}", each, None) for i, each in enumerate(noise[_CALIBRATED_ON:], 1))
    text = f"{_CALIBRATED_ON} draws of random numbers, seed {seed}"
    return Material(tuple(noise[:_CALIBRATED_ON]), tuple(exam), text)
