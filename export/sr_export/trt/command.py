"""`sr-export BUNDLE --engine`: builds TensorRT plans, for the GPU of this machine or portable."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, get_args

from sr_deploy import backends, machine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Precision
from sr_deploy.bundle.plan_store import TITLES, Compatibility
from sr_deploy.cli import console
from sr_deploy.errors import BackendError, InvalidInputError, SrDeployError
from sr_deploy.runtime.selection import pixel_format
from sr_export.trt.build import Machine, PlanBuilder, choose_variants
from sr_export.trt.build_request import PORTABLE, BuildSettings, ShapeOptions
from sr_export.trt.worker import TensorRtProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_deploy.bundle.plan_store import PlanRecord, Shape

_MOST_EFFORT = 5
# By the option's value; records call a GPU model "gpu".
_COMPATIBILITY: dict[str, Compatibility] = {
    {"gpu": "this-gpu"}.get(each, each): each for each in get_args(Compatibility)
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `--engine`."""
    group = parser.add_argument_group(
        "TensorRT plans of a bundle, for the GPU of this machine or for all RTX GPUs"
    )
    group.add_argument(
        "--engine",
        nargs="*",
        choices=get_args(Precision),
        metavar="PRECISION",
        help="build plans of these precisions (default: FP16 and INT8, if the bundle has them; "
        "portable plans: FP16)",
    )
    group.add_argument(
        "--frame",
        type=_size,
        metavar="HxW",
        help="only frames of this size, which is fastest; too large frames are tiled",
    )
    group.add_argument("--tile", type=_size, metavar="HxW", help="only tiles of this size")
    group.add_argument(
        "--batch",
        type=_positive,
        metavar="N",
        help="tiles per batch; for a generator, the most images per batch (default: 16)",
    )
    group.add_argument(
        "--range",
        type=_shape,
        nargs=3,
        metavar=("MIN", "OPT", "MAX"),
        help="all shapes from MIN to MAX, tuned for OPT, each batch x height x width: 1x64x64 "
        "1x720x1280 1x1080x1920 (default: up to 1x1080x1920, or less if GPU memory is short)",
    )
    group.add_argument("--format", help="pixel format of the frames (default: rgb24 or gray8)")
    group.add_argument("--device", type=int, default=0, metavar="N", help="index of the GPU")
    group.add_argument(
        "--workspace", type=_memory, metavar="SIZE", help="GPU memory for fast kernels"
    )
    group.add_argument(
        "--optimization-level",
        type=int,
        choices=range(_MOST_EFFORT + 1),
        help="effort of the search for fast kernels (TensorRT's default: 3)",
    )
    group.add_argument("--streams", type=int, metavar="N", help="most auxiliary streams")
    group.add_argument(
        "--dla", type=int, metavar="N", help="run on this deep learning accelerator of a Jetson"
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="the plan also runs on later TensorRT releases of the same major version; slower",
    )
    group.add_argument(
        "--compatibility",
        choices=_COMPATIBILITY,
        help="GPUs that run the plan. TensorRT: this-gpu (the same model), capability (the same "
        "compute capability) or ampere (Ampere and later), both slower. TensorRT for RTX, which "
        "needs no GPU to build: rtx (RTX GPUs since Ampere) or turing (default: this-gpu, or rtx "
        "if only TensorRT for RTX is installed)",
    )
    group.add_argument(
        "--no-fallback",
        action="store_true",
        help="do not build FP32 if a precision fails validation",
    )
    group.add_argument("--rebuild", action="store_true", help="build existing plans again")


def run(arguments: argparse.Namespace) -> int:
    """Build the plans.

    Raises:
        SrDeployError: a plan was not built.
    """
    bundle = Bundle.open(arguments.checkpoint)
    model = bundle.manifest.model
    frames = arguments.format or pixel_format(model.channels, itemsize=1)
    settings = _settings(arguments)
    settings.check()
    variants = choose_variants(bundle, arguments.engine, frames, settings.library)
    exact = None if arguments.no_fallback else bundle.variant("fp32", frames)
    shape_options = ShapeOptions(arguments.frame, arguments.tile, arguments.batch, arguments.range)
    with console.Progress() as progress, TensorRtProcess(progress.stage) as process:
        index = None if settings.compatibility in PORTABLE else arguments.device
        target = Machine.of(process, settings.library, index)
        shapes = shape_options.shapes(model, frames, target.free)
        builder = PlanBuilder(bundle, settings, target, process)
        records: list[PlanRecord] = []
        for variant in variants:
            record = builder.build(variant, shapes, rebuild=arguments.rebuild)
            records.append(record)
            if record.plan is None and exact is not None and exact not in variants:
                variants.append(exact)
            for line in summary(record):
                console.say(line)
    failed = [each for each in records if each.plan is None]
    if failed:
        problems = ", ".join(f"{each.precision}: {'; '.join(each.refused)}" for each in failed)
        built = any(each.precision == "fp32" and each.plan is not None for each in records)
        raise BackendError(f"no plan of {problems}{'; FP32 was built instead' if built else ''}")
    return 0


def build_portable(folder: Path, report: Callable[[str], None]) -> str:
    """Build the portable plan of a new bundle, where TensorRT for RTX is installed.

    Args:
        folder: The bundle.
        report: Called with the current stage.

    Returns:
        A line for the user about the plan, or about the reason for having none.
    """
    bundle = Bundle.open(folder)
    frames = pixel_format(bundle.manifest.model.channels, itemsize=1)
    settings = BuildSettings(compatibility="rtx")
    try:
        (variant,) = choose_variants(bundle, (), frames, settings.library)
        with TensorRtProcess(report) as process:
            target = Machine.of(process, settings.library, None)
            shapes = ShapeOptions().shapes(bundle.manifest.model, frames, target.free)
            record = PlanBuilder(bundle, settings, target, process).build(variant, shapes)
    except SrDeployError as error:
        return f"RTX plan      none: {error}"
    if record.plan is None:
        return f"RTX plan      none: {'; '.join(record.refused)}"
    return (
        f"RTX plan      {record.precision}, {machine.format_bytes(record.size)}, "
        f"{target.title}; validated at its first use on a GPU"
    )


def _settings(arguments: argparse.Namespace) -> BuildSettings:
    wanted = arguments.compatibility
    if wanted is None:
        installed = backends.available()
        only_rtx = "tensorrt_rtx" in installed and "tensorrt" not in installed
        wanted = "rtx" if only_rtx else "this-gpu"
    return BuildSettings(
        workspace=arguments.workspace,
        optimization_level=arguments.optimization_level,
        streams=arguments.streams,
        dla=arguments.dla,
        version_compatible=arguments.version_compatible,
        compatibility=_COMPATIBILITY[wanted],
    )


def summary(record: PlanRecord) -> list[str]:
    """Return lines that describe a plan, or its failure."""
    title = f"{TITLES[record.library]} {record.tensorrt}"
    lines = [f"{record.precision} for {record.shapes}, {title}"]
    lines += [f"  rejected, {each}" for each in record.refused]
    if record.plan is not None:
        decibels = "equal" if record.psnr is None else f"{record.psnr:.1f} dB"
        compared = (
            f"{decibels} against " if record.compared.startswith("FP32") else "compared with "
        )
        lines += [
            f"  plan       {record.plan.file}",
            f"  build time {console.clock(record.seconds)}",
            f"  size       {machine.format_bytes(record.size)}",
            f"  GPU memory {machine.format_bytes(record.device_memory)} while it runs",
        ]
        if record.device is None:
            lines.append("  images     not validated yet: the first use on a GPU does it")
        else:
            lines.append(f"  images     {compared}{record.compared}")
    return lines


def _size(text: str) -> tuple[int, int]:
    height, width = _sides(text, 2)
    return height, width


def _shape(text: str) -> Shape:
    batch, height, width = _sides(text, 3)
    return batch, height, width


def _sides(text: str, count: int) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})*", text) or text.count("x") != count - 1:
        example = "1080x1920" if count == 2 else "1x1080x1920"
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form {example}")
    return [int(each) for each in text.split("x")]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _memory(text: str) -> int:
    try:
        return machine.parse_bytes(text)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
