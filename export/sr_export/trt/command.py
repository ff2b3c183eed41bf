"""`sr-export BUNDLE --engine`: builds TensorRT plans for the GPU that is here."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, get_args

from sr_deploy import machine
from sr_deploy.backends.host import SAMPLES
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import PixelFormat, Precision, YuvFormat
from sr_deploy.bundle.plan_store import Compatibility
from sr_deploy.cli import console
from sr_deploy.errors import BackendError, InvalidInputError
from sr_deploy.runtime.selection import pixel_format
from sr_export.trt.build import Building, Machine
from sr_export.trt.build_request import BuildSettings
from sr_export.trt.choice import Choice
from sr_export.trt.worker import TensorRtProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_deploy.bundle.manifest import Variant
    from sr_deploy.bundle.plan_store import PlanRecord, Shape

_USUAL: tuple[Precision, ...] = ("fp16", "int8")
_HIGHEST_LEVEL = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `--engine` takes."""
    group = parser.add_argument_group(
        "TensorRT plans, for the GPU that is here (of a bundle, instead of exporting)"
    )
    group.add_argument(
        "--engine",
        nargs="*",
        choices=get_args(Precision),
        metavar="PRECISION",
        help="build plans of these precisions (default: FP16 and INT8, what the bundle has of "
        "them)",
    )
    group.add_argument(
        "--frame",
        type=_size,
        metavar="HxW",
        help="for frames of this size and no other, which is the fastest; too large ones are cut",
    )
    group.add_argument(
        "--tile", type=_size, metavar="HxW", help="for tiles of this size and no other"
    )
    group.add_argument(
        "--batch",
        type=_positive,
        metavar="N",
        help="tiles that run at once; of a generator, the most images (default: 16)",
    )
    group.add_argument(
        "--range",
        type=_shape,
        nargs=3,
        metavar=("LEAST", "BEST", "MOST"),
        help="for all shapes between, each batch x height x width, such as 1x64x64 1x720x1280 "
        "1x1080x1920 (default: up to 1x1080x1920, or what the GPU's memory allows)",
    )
    group.add_argument("--format", help="of the frames (default: 8 bits, RGB or gray)")
    group.add_argument("--device", type=int, default=0, metavar="N", help="index of the GPU")
    group.add_argument(
        "--workspace", type=_memory, metavar="SIZE", help="GPU memory for fast kernels"
    )
    group.add_argument(
        "--level",
        type=int,
        choices=range(_HIGHEST_LEVEL + 1),
        help="how long to search for fast kernels (TensorRT's default: 3)",
    )
    group.add_argument("--streams", type=int, metavar="N", help="auxiliary streams, at most")
    group.add_argument("--dla", type=int, metavar="N", help="run on this accelerator of a Jetson")
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="for later releases of the same major version of TensorRT, too; slower",
    )
    group.add_argument(
        "--reach",
        choices=get_args(Compatibility),
        default="gpu",
        help="for which GPUs: of this name, of this compute capability, or all from Ampere on "
        "(default: %(default)s; the others are slower)",
    )
    group.add_argument(
        "--no-fallback",
        action="store_true",
        help="do not build FP32 where a precision gives wrong images",
    )
    group.add_argument("--again", action="store_true", help="build even what is there")


def run(arguments: argparse.Namespace) -> int:
    """Build what was asked for; 1 if any of it could not be had.

    Raises:
        SrDeployError: nothing can be built.
    """
    bundle = Bundle.open(arguments.checkpoint)
    frames = arguments.format or pixel_format(bundle.manifest.model.channels, itemsize=1)
    variants = _variants(bundle, arguments.engine, frames)
    choice = Choice(arguments.frame, arguments.tile, arguments.batch, arguments.range)
    settings = BuildSettings(
        workspace=arguments.workspace,
        level=arguments.level,
        streams=arguments.streams,
        dla=arguments.dla,
        version_compatible=arguments.version_compatible,
        reach=arguments.reach,
    )
    with console.Progress() as progress, TensorRtProcess(progress.stage) as worker:
        machine = Machine.of(worker, arguments.device)
        shapes = choice.shapes(bundle.manifest.model, frames, machine.free)
        building = Building(bundle, settings, machine, worker)
        problems = []
        for variant in variants:
            record = building.build(variant, shapes, again=arguments.again)
            if record.plan is None:
                problems.append(f"{variant.precision}: {'; '.join(record.refused)}")
                variants += [] if arguments.no_fallback else _exact(bundle, variants)
            for line in summary(record):
                console.say(line)
    if problems:
        raise BackendError(
            f"no plan of {', '.join(problems)}; one of FP32 was built in its place"
            if len(problems) < len(variants)
            else f"no plan of {', '.join(problems)}"
        )
    return 0


def _variants(
    bundle: Bundle, precisions: Sequence[Precision], frames: PixelFormat
) -> list[Variant]:
    """Return the variants to build plans of.

    Raises:
        InvalidInputError: the bundle does not have what was asked for, or nothing to build.
    """
    if frames in get_args(YuvFormat) or frames not in get_args(PixelFormat):
        offered = ", ".join(each for each in SAMPLES if each not in get_args(YuvFormat))
        raise InvalidInputError(f"plans are built for frames of {offered}, not of {frames}")
    there = {
        each.precision: each for each in bundle.manifest.variants if each.pixel_format == frames
    }
    usual = [each for each in _USUAL if each in there] or [each for each in there if each == "fp32"]
    missing = [each for each in precisions if each not in there]
    if missing or not there:
        refused = bundle.manifest.refused
        reasons = "".join(f"; {each}: {refused[each]}" for each in missing if each in refused)
        raise InvalidInputError(
            f"{bundle.folder}: has no {', '.join(missing)} for frames of {frames}; "
            f"it has {', '.join(there) or 'nothing'}{reasons}"
        )
    return [there[each] for each in dict.fromkeys(precisions or usual)]


def _exact(bundle: Bundle, building: Sequence[Variant]) -> list[Variant]:
    """Return the variant to fall back on, unless it is among those that are built anyway."""
    exact = bundle.variant("fp32", building[0].pixel_format)
    return [] if exact is None or exact in building else [exact]


def summary(record: PlanRecord) -> list[str]:
    """Return what came of a build, for people."""
    lines = [f"{record.precision} for {record.shapes}, TensorRT {record.tensorrt}"]
    lines += [f"  thrown away, {each}" for each in record.refused]
    if record.plan is not None:
        decibels = "equal" if record.psnr is None else f"{record.psnr:.1f} dB"
        compared = f"{decibels} beside " if record.compared.startswith("FP32") else "compared with "
        lines += [
            f"  built      {record.plan.file}",
            f"  took       {console.clock(record.seconds)}",
            f"  size       {machine.format_bytes(record.size)}",
            f"  GPU memory {machine.format_bytes(record.device_memory)} while it runs",
            f"  images     {compared}{record.compared}",
        ]
    return lines


def _size(text: str) -> tuple[int, int]:
    sides = _sides(text, 2)
    return sides[0], sides[1]


def _shape(text: str) -> Shape:
    sides = _sides(text, 3)
    return sides[0], sides[1], sides[2]


def _sides(text: str, count: int) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})*", text) or text.count("x") != count - 1:
        example = "1080x1920" if count == 2 else "1x1080x1920"
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {example}")
    return [int(each) for each in text.split("x")]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _memory(text: str) -> int:
    try:
        return machine.parse_bytes(text)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
