"""The way from a checkpoint to the files of a bundle, each step checked before the next."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from sr_deploy import manifest
from sr_deploy.errors import ExportError
from sr_deploy.files import sha256_of
from sr_deploy.manifest import Check, Manifest, Model, Source, Stored, Variant
from sr_export import (
    checkpoint,
    cost,
    custom,
    foreign,
    halo,
    layout,
    network,
    padding,
    pixels,
    to_onnx,
    verify,
)
from sr_export.precision import offer
from sr_export.ranges import Ranges, guess
from sr_export.report import page
from sr_export.runner import OnnxRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from sr_export.options import Options

    Run = Callable[[NDArray[Any]], NDArray[Any]]
    Report = Callable[[str], None]

_COST_SIDE = 128


@dataclass(frozen=True)
class Exported:
    """A float graph that holds, and what it takes."""

    model: onnx.ModelProto
    reference: Run
    """The network that the graph came from, on images in [0, 1]."""
    architecture: str
    scale: int
    channels: Literal[1, 3]
    parameters: int
    ranges: Ranges
    limits: verify.Limits
    checks: tuple[Check, ...]


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
    content = checkpoint.read(
        Path(options.checkpoint), ema=options.ema, key=options.key, trust=options.trust
    )
    if isinstance(content, checkpoint.Onnx):
        taken = "the whole file"
        exported = _convert_foreign(foreign.read(content.path), options, report)
    else:
        taken, found = _network(content, options)
        exported = _export(found, options, report, skip)
    return _write(exported, options, taken, folder, report)


def _network(
    content: checkpoint.Weights | checkpoint.Scripted | checkpoint.Program, options: Options
) -> tuple[str, network.Network]:
    """Return what was taken of a checkpoint, in words, and the network that it makes."""
    if isinstance(content, checkpoint.Weights):
        candidates = layout.strippings(content.tensors)
        if options.arch_file:
            source, *pairs = options.arch_file
            path, _, name = source.rpartition(":")
            found = custom.from_file(Path(path), name, candidates, network.arguments(name, pairs))
        else:
            found = network.recognise(candidates, options.architecture, options.ranges)
        return "; ".join(each for each in (content.taken, found.how) if each), found
    if isinstance(content, checkpoint.Program):
        return "the whole file", custom.from_program(content.program)
    return "the whole file", custom.from_module(content.module, "TorchScript")


def _export(found: network.Network, options: Options, report: Report, skip: int) -> Exported:
    """Try one way of exporting after the other, until one holds."""
    run = _torch_runner(found.module)
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
        limits = verify.Limits(found.minimum, strategy.grid, strategy.size, strategy.batch)
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
            parameters=found.parameters,
            ranges=ranges,
            limits=limits,
            checks=checks,
        )
    raise ExportError(f"{found.architecture} cannot be exported. {_listed(failures)}")


def _listed(failures: list[tuple[str, str]]) -> str:
    """Return the reasons of failures, each once, with the ways that failed for it."""
    reasons = dict.fromkeys(reason for _, reason in failures)
    ways = {each: [way for way, reason in failures if reason == each] for each in reasons}
    return "; ".join(f"{reason} ({' / '.join(ways[reason])})" for reason in reasons)


def _convert_foreign(found: foreign.Foreign, options: Options, report: Report) -> Exported:
    ranges = options.ranges or guess(
        found.reference, found.channels, found.scale, found.probe_size()
    )
    reference = ranges.around(found.reference)
    model = ranges.put_into(padding.pad_inside(found.model, found.grid, found.scale))
    limits = verify.Limits(1, found.grid, found.fixed_size, found.fixed_batch)
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
    model: onnx.ModelProto, reference: Run, limits: verify.Limits, channels: int, report: Report
) -> tuple[verify.Limits, tuple[Check, ...]]:
    """Compare a graph with its reference; return the limits with the smallest side found."""
    run = OnnxRunner(model)
    report("verifying: the smallest size")
    minimum = verify.smallest_side(run, reference, limits, channels)
    limits = verify.Limits(minimum, limits.grid, limits.fixed_size, limits.fixed_batch)
    checks = []
    for shape in verify.shapes(limits):
        report("verifying: batch {}, {}x{}".format(*shape))
        checks.append(verify.compare(run, reference, shape, channels))
    return limits, tuple(checks)


def _write(
    exported: Exported, options: Options, taken: str, folder: Path, report: Report
) -> Manifest:
    """Write all files of the bundle; the manifest last, so that no half bundle has one."""
    source = Path(options.checkpoint)
    described = _describe(exported, report)
    stored = _store(exported.model, folder / "model.onnx")
    variants = [
        _variant(exported, each, folder, report) for each in pixels.formats(exported.channels)
    ]
    offered = offer.make(_subject(exported, described), options, report)
    for each in offered.variants:
        # A precision without a file of its own is computed from that of FP32, the first variant.
        kept = _store(each.model, folder / f"{each.precision}.onnx") if each.model else variants[0]
        variants.append(
            Variant(kept.file, kept.sha256, each.precision, variants[0].pixel_format, each.quality)
        )
    report("writing")
    written = Manifest(
        schema=manifest.SCHEMA,
        name=options.name,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        source=Source(source.name, sha256_of(source), taken, str(exported.ranges)),
        model=described,
        onnx=stored,
        variants=tuple(variants),
        checks=exported.checks,
        int8=offered.int8,
        refused=offered.refused,
        tools=_versions(),
    )
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    report_page = page(written, offered.scenes, sizes)
    (folder / manifest.REPORT).write_text(report_page, encoding="utf-8")
    (folder / manifest.NAME).write_text(written.to_json(), encoding="utf-8")
    return manifest.read(folder / manifest.NAME)  # what was written is what will be read


def _subject(exported: Exported, described: Model) -> offer.Subject:
    return offer.Subject(
        model=exported.model,
        channels=exported.channels,
        scale=exported.scale,
        minimum=described.minimum,
        fixed_size=described.fixed_size,
        fixed_batch=described.fixed_batch,
        operations=1e3 * described.gflop_per_megapixel,
    )


def _variant(
    exported: Exported, pixel_format: manifest.PixelFormat, folder: Path, report: Report
) -> Variant:
    """Write and verify the FP32 graph for one pixel format."""
    depth = 8 * pixels.LAYOUTS[pixel_format].bytes_per_value
    report(f"verifying: {depth}-bit frames")
    model = pixels.wrap(exported.model, pixel_format)
    shape = next(each for each in verify.shapes(exported.limits) if min(each[1:]) >= 32)
    verify.compare_bytes(OnnxRunner(model), exported.reference, shape, exported.channels, depth)
    name = "fp32.onnx" if depth == 8 else f"fp32-{pixel_format}.onnx"
    stored = _store(model, folder / name)
    return Variant(stored.file, stored.sha256, "fp32", pixel_format)


def _store(model: onnx.ModelProto, path: Path) -> Stored:
    path.write_bytes(model.SerializeToString())
    return Stored(path.name, sha256_of(path))


def _describe(exported: Exported, report: Report) -> Model:
    """Measure what the runtime must know."""
    limits = exported.limits
    free = limits.fixed_size is None
    side = max(_COST_SIDE, limits.minimum)
    report("measuring the cost")
    spent = cost.measure(exported.model, limits.fixed_size or (side, side))
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
    )


def _torch_runner(module: torch.nn.Module) -> Run:
    def run(image: NDArray[Any]) -> NDArray[Any]:
        try:
            with torch.inference_mode():
                return module(torch.from_numpy(image)).numpy()
        except custom.FAILURES as error:
            shape = "x".join(map(str, image.shape))
            raise ExportError(f"the network itself fails at {shape}: {error}") from error

    return run


def _versions() -> dict[str, str]:
    names = ("sr-deploy", "torch", "onnx", "onnxscript", "onnxruntime", "spandrel")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
