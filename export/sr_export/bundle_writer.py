"""Write a verified float graph as a bundle: its variants, their quality, and the manifest."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sr_deploy.bundle import manifest
from sr_deploy.bundle.manifest import Manifest, Model, OnnxCheck, Source, Stored, Variant
from sr_deploy.files import sha256_of
from sr_export.graph import cost, halo, pixels, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize import acceptance
from sr_export.quantize.backend_check import check_backends
from sr_export.quantize.variants import ExportedNetwork, Variants, build_variants
from sr_export.quantize.yuv_variants import YuvVariantBuilder, YuvVariants
from sr_export.report import page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx
    from numpy.typing import NDArray

    from sr_export.models.ranges import Ranges
    from sr_export.options import Options
    from sr_export.quantize.qat import QatLayers

    Run = Callable[[NDArray[Any]], NDArray[Any]]
    Report = Callable[[str], None]

# Sides at which the cost is measured, and at which the conversion of frames is verified.
_COST_SIDE = 128
_FRAME_SIDE = 32


@dataclass(frozen=True)
class Exported:
    """A verified float graph and its properties."""

    model: onnx.ModelProto
    reference: Run
    """The original network, on images in [0, 1]."""
    architecture: str
    scale: int
    channels: Literal[1, 3]
    parameters: int
    ranges: Ranges
    limits: verify.InputLimits
    checks: tuple[OnnxCheck, ...]
    how: str = ""
    """How settings were decided that the weights do not determine, for the user."""
    assumed: tuple[str, ...] = ()
    """Settings and pixel values that neither the weights nor photos decide."""
    proven: str = ""
    """How the result of the user's own program compares."""
    trained: QatLayers | None = None
    """The layers that were trained in INT8; None: INT8 is calibrated."""


def write(
    exported: Exported, options: Options, taken: str, folder: Path, report: Report
) -> Manifest:
    """Write all files of the bundle; the manifest last, so that no partial bundle has one."""
    described = _describe(exported, report)
    stored = store(exported.model, folder / "model.onnx")
    variants = [
        _variant(exported, each, folder, report) for each in pixels.formats(exported.channels)
    ]
    accepted = build_variants(_subject(exported, described), options, report)
    variants += store_variants(accepted, variants[0], folder)
    yuv_variants = [
        _yuv_variants(exported, options, accepted, each, report) for each in options.yuv
    ]
    for each in yuv_variants:
        variants += _store_yuv(each, folder)
    report("writing")
    written = Manifest(
        schema=manifest.SCHEMA,
        name=options.name,
        created=now(),
        source=replace(
            source_of(options, [taken, exported.how], str(exported.ranges)),
            assumed=exported.assumed,
            proven=exported.proven,
        ),
        model=described,
        onnx=stored,
        variants=tuple(variants),
        checks=exported.checks,
        int8=accepted.int8,
        refused=accepted.refused
        | {key: why for each in yuv_variants for key, why in each.refused.items()},
        tools=versions(),
    )
    written = confirm(written, accepted, options, folder, report, yuv_variants)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    report_page = page(written, accepted.scenes, sizes)
    (folder / manifest.REPORT).write_text(report_page, encoding="utf-8")
    return written


def confirm(
    written: Manifest,
    accepted: Variants,
    options: Options,
    folder: Path,
    report: Report,
    yuv_variants: Sequence[YuvVariants] = (),
) -> Manifest:
    """Write the manifest, run the bundle with the other runtimes, and note what they cannot run."""
    path = folder / manifest.NAME
    path.write_text(written.to_json(), encoding="utf-8")
    report("checking the other backends")
    budgets = acceptance.BUDGETS | options.budgets
    checked = check_backends(folder, written.variants, accepted.scenes, budgets, yuv_variants)
    path.write_text(replace(written, variants=checked).to_json(), encoding="utf-8")
    return manifest.read(path)  # exactly what a user will read


def _subject(exported: Exported, described: Model) -> ExportedNetwork:
    return ExportedNetwork(
        model=exported.model,
        channels=exported.channels,
        scale=exported.scale,
        minimum=described.minimum,
        fixed_size=described.fixed_size,
        fixed_batch=described.fixed_batch,
        operations=1e3 * described.gflop_per_megapixel,
        trained=exported.trained,
    )


def _yuv_variants(
    exported: Exported,
    options: Options,
    accepted: Variants,
    pixel_format: manifest.YuvFormat,
    report: Report,
) -> YuvVariants:
    """Make the variants for one video format."""
    even = [each for each in verify.shapes(exported.limits) if not (each[1] % 2 or each[2] % 2)]
    if exported.channels != 3 or exported.limits.fixed_batch not in (None, 1) or not even:
        why = "YUV needs a network with 3 channels that accepts single frames with even sides"
        return YuvVariants(pixel_format, (), {pixel_format: why}, (), ())
    builder = YuvVariantBuilder(
        network=exported.model,
        reference=exported.reference,
        size=even[-1][1:],
        accepted=accepted.variants,
        scenes=accepted.scenes,
        budgets=acceptance.BUDGETS | options.budgets,
        report=report,
    )
    return builder.build(pixel_format)


def _store_yuv(built: YuvVariants, folder: Path) -> list[Variant]:
    """Write the files of a YUV format; return its variants."""
    variants: list[Variant] = []
    for each in built.variants:
        path = folder / f"{each.precision}-{built.pixel_format}.onnx"
        kept = store(each.model, path) if each.model else variants[0]
        variants.append(
            Variant(kept.file, kept.sha256, each.precision, built.pixel_format, each.quality)
        )
    return variants


def _variant(
    exported: Exported, pixel_format: manifest.PixelFormat, folder: Path, report: Report
) -> Variant:
    """Write and verify the FP32 graph for one pixel format."""
    depth = 8 * pixels.LAYOUTS[pixel_format].bytes_per_value
    report(f"verifying: {depth}-bit frames")
    model = pixels.wrap(exported.model, pixel_format)
    shapes = verify.shapes(exported.limits)
    # A photo of a few pixels shows little, but a network may accept no other size.
    shape = next((each for each in shapes if min(each[1:]) >= _FRAME_SIDE), shapes[-1])
    verify.compare_bytes(OnnxRunner(model), exported.reference, shape, exported.channels, depth)
    name = "fp32.onnx" if depth == 8 else f"fp32-{pixel_format}.onnx"
    stored = store(model, folder / name)
    return Variant(stored.file, stored.sha256, "fp32", pixel_format)


def store_variants(accepted: Variants, exact: Variant, folder: Path) -> list[Variant]:
    """Write the files of all accepted precisions; return their variants.

    Args:
        accepted: The precisions and their graphs.
        exact: The FP32 variant, whose file precisions without a graph share.
        folder: The bundle.
    """
    variants = []
    for each in accepted.variants:
        kept = store(each.model, folder / f"{each.precision}.onnx") if each.model else exact
        variants.append(
            Variant(kept.file, kept.sha256, each.precision, exact.pixel_format, each.quality)
        )
    return variants


def store(model: onnx.ModelProto, path: Path) -> Stored:
    """Write a graph."""
    path.write_bytes(model.SerializeToString())
    return Stored(path.name, sha256_of(path))


def _describe(exported: Exported, report: Report) -> Model:
    """Return the properties that the runtime needs: cost and halo are measured."""
    limits = exported.limits
    free = limits.fixed_size is None
    side = max(_COST_SIDE, limits.minimum)
    size = limits.fixed_size or (side, side)
    report("measuring the cost")
    spent = cost.measure(exported.model, size)
    report("measuring the halo")
    reach = (
        halo.measure(
            OnnxRunner(exported.model),
            channels=exported.channels,
            scale=exported.scale,
            grid=limits.grid,
            minimum=limits.minimum,
            batch=limits.fixed_batch or 1,
        )
        if free
        else None
    )
    return Model(
        architecture=exported.architecture,
        scale=exported.scale,
        channels=exported.channels,
        halo=reach,
        multiple_of=limits.grid,
        minimum=limits.minimum,
        fixed_size=limits.fixed_size,
        fixed_batch=limits.fixed_batch,
        parameters=exported.parameters,
        gflop_per_megapixel=round(spent.operations / 1e3, 3),
        bytes_per_pixel=spent.bytes,
        bytes_per_pair=(
            cost.bytes_per_pair(exported.model, size, spent) if free and reach is None else 0.0
        ),
    )


def source_of(options: Options, taken: Iterable[str], ranges: str) -> Source:
    """Return the origin of the weights; `taken` are texts for the user, of which some are empty."""
    path = Path(options.checkpoint)
    return Source(path.name, sha256_of(path), "; ".join(filter(None, taken)), ranges)


def now() -> str:
    """Return the current time in the format of the manifest."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of the tools that wrote the bundle."""
    names = ("sr-deploy", "torch", "onnx", "onnxscript", "onnxruntime", "spandrel")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
