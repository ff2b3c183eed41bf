"""`sr-export`: export a training checkpoint to a verified bundle."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sr_deploy import backends
from sr_deploy.bundle import bundle
from sr_deploy.bundle.manifest import Method, Precision, YuvFormat
from sr_deploy.cli import console
from sr_deploy.errors import BundleError, CheckpointError, InvalidInputError, NotFoundError
from sr_deploy.files import collect_leftovers
from sr_export.checkpoint import other_formats
from sr_export.models.ranges import Color, Ranges
from sr_export.summary import summary
from sr_export.trt import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_export.options import Options

_DESCRIPTION = """\
Export a super-resolution checkpoint to a bundle: a folder of ONNX files for sr-upscale and
sr_deploy.Engine, compared with the PyTorch network on real photos. If they differ, nothing is
written.

Supported files: PyTorch checkpoints of about fifty architectures (the generator of a GAN is found,
EMA weights are preferred), safetensors, ONNX, TorchScript and torch.export programs. A checkpoint
cannot run code, except the last two with --trust, and the Python file of --arch-file.

Where TensorRT for RTX is installed (sr-deploy[rtx]), the bundle also gets a plan for all RTX GPUs.
"""

_EXAMPLES = """\
examples:
  sr-export net_g_latest.pth                  write net_g_latest.srd next to the checkpoint
  sr-export net.pth --overwrite               replace net.srd of an earlier export
  sr-export gan.ckpt -o x4.srd --no-ema       use the raw weights instead of the EMA weights
  sr-export gan.ckpt --key netG_A             select one of several generators in a file
  sr-export fsrcnn.pth --arch FSRCNN scale=3  give the scale, which these weights do not determine
  sr-export mine.pt --arch-file mine.py:Net features=32      export your own Net(features=32)
  sr-export script.pt --trust                 open TorchScript, which can run any code
  sr-export net.pth --expect in.png out.png   reproduce the result of your own program
  sr-export other.onnx --input-range 0 255    export a network that expects 0 to 255
  sr-export net.pth --calibration photos/     calibrate INT8 on your own photos
  sr-export net.pth --yuv nv12 p010           add variants for decoded video frames
  sr-export netG.pth                          export a DCGAN generator, for sr-generate
  sr-export mine.pt --arch-file mine.py:G --latent 128       export your own generator
  sr-export net.srd --engine                  build TensorRT plans of a bundle for this GPU
  sr-export net.srd --engine --compatibility rtx             build a portable plan, without a GPU
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-export`."""
    return console.run(_parser(), _command, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sr-export",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint to export; with --engine, a bundle"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="BUNDLE",
        help="bundle to write (default: the checkpoint's name with .srd)",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing bundle (default: error; other folders are never replaced)",
    )
    output.add_argument(
        "--json", action="store_true", help="print the manifest as JSON instead of a summary"
    )
    _add_network(parser)
    _add_precisions(parser)
    command.add_arguments(parser)
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    weights = parser.add_argument_group("weights")
    weights.add_argument(
        "--key", help="path of the weights in the file, such as state.generator (default: search)"
    )
    weights.add_argument(
        "--no-ema", dest="ema", action="store_false", help="use the raw weights (default: EMA)"
    )
    weights.add_argument(
        "--trust",
        action="store_true",
        help="open TorchScript and torch.export programs, which can run any code on this machine; "
        "only for files whose author you trust (default: error)",
    )
    network = parser.add_argument_group("network (default: recognized by its weights)")
    network.add_argument(
        "--arch",
        nargs="+",
        metavar=("NAME", "KEY=VALUE"),
        help="architecture, if it is misdetected, and settings that its weights do not determine",
    )
    network.add_argument(
        "--arch-file",
        nargs="+",
        metavar=("FILE.py:CLASS", "KEY=VALUE"),
        help="your own class or function that returns the module, and its arguments; this file "
        "is run",
    )
    network.add_argument(
        "--latent",
        type=int,
        metavar="N",
        help="the module of --arch-file generates images from N random numbers",
    )
    network.add_argument(
        "--network-output",
        metavar="NAME",
        help="output of a network with several: its name, or its number from 0 (default: the only "
        "one that is an image)",
    )
    pixels = parser.add_argument_group(
        "pixel values of the network (default: known for the architecture, or inferred from photos)"
    )
    two = {"nargs": 2, "type": float, "metavar": ("BLACK", "WHITE")}
    pixels.add_argument("--input-range", **two, help="such as -1 1 or 0 255")  # type: ignore[arg-type]
    pixels.add_argument("--output-range", **two, help="such as -1 1 for tanh")  # type: ignore[arg-type]
    pixels.add_argument("--mean", nargs="+", type=float, help="subtracted from the input")
    pixels.add_argument("--std", nargs="+", type=float, help="divides the input after --mean")
    pixels.add_argument(
        "--denormalize", action="store_true", help="--mean and --std apply to the output, too"
    )
    pixels.add_argument(
        "--color",
        choices=get_args(Color),
        help="colors of the network: bgr as in OpenCV; ycbcr with the full range, as in Pillow and "
        "OpenCV; ycbcr-video with 16 to 235, as in MATLAB. A network with one channel then gets Y, "
        "and Cb and Cr are enlarged by interpolation (default: rgb, or each channel alone)",
    )
    pixels.add_argument(
        "--residual",
        choices=("add", "subtract"),
        help="the output is the difference to the input, which is added or subtracted",
    )
    pixels.add_argument(
        "--enlarge",
        type=int,
        choices=range(2, 9),
        metavar="N",
        help="the network expects an image that was enlarged N times, such as SRCNN and VDSR",
    )
    pixels.add_argument(
        "--expect",
        nargs=2,
        type=Path,
        metavar=("INPUT", "OUTPUT"),
        help="an image and the result of your own program for it, as PNG: pixel values and "
        "settings are chosen so that they reproduce it, which proves them",
    )
    pixels.add_argument(
        "--accept",
        action="store_true",
        help="export a network that restores no photo, or does not reproduce OUTPUT (default: "
        "error)",
    )


def _add_precisions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("precisions")
    group.add_argument(
        "--precision",
        nargs="+",
        choices=get_args(Precision),
        default=get_args(Precision),
        help="precisions to offer beside FP32, if their quality is sufficient (default: all)",
    )
    group.add_argument(
        "--min-psnr",
        nargs="+",
        type=_budget,
        default=[],
        metavar="PRECISION=DB",
        help="minimum PSNR against FP32 (default: fp16=58 bf16=45 int8=45)",
    )
    group.add_argument(
        "--yuv",
        nargs="*",
        choices=get_args(YuvFormat),
        metavar="FORMAT",
        help="add variants for video frames as decoders deliver them, without conversion to RGB: "
        f"{', '.join(get_args(YuvFormat))} (default: none; without FORMAT: all)",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="photos to calibrate INT8 on, similar to those to upscale; they are downscaled by "
        "the network's scale, or used as pairs from the subfolders HR and LR (default: photos "
        "that are part of sr-export)",
    )
    group.add_argument(
        "--low-resolution",
        action="store_true",
        help="use the photos of --calibration without downscaling",
    )
    group.add_argument(
        "--method",
        choices=get_args(Method),
        default="percentile",
        help="how the clipping of activations is chosen (default: %(default)s)",
    )
    group.add_argument(
        "--seed", type=int, default=0, help="selects the calibration tiles (default: %(default)s)"
    )


def _budget(text: str) -> tuple[str, float]:
    precision, _, decibels = text.partition("=")
    try:
        value = float(decibels)
    except ValueError:
        value = math.nan
    if precision not in get_args(Precision)[1:] or not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not PRECISION=DB, such as int8=42")
    return precision, value


def _command(arguments: argparse.Namespace) -> int:
    checkpoint: Path = arguments.checkpoint
    if arguments.engine is not None:
        return command.run(arguments)
    console.require("export", "sr-export")
    if not checkpoint.exists():
        raise NotFoundError(f"{checkpoint}: no such file")
    if checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint}: this folder {other_formats.in_folder(checkpoint)}")
    target = arguments.output or checkpoint.with_suffix(bundle.SUFFIX)
    _check_target(target, overwrite=arguments.overwrite)
    options = _options(arguments, target)
    # These import onnx, which --help does not need.
    from sr_export import subprocess_export
    from sr_export.quantize import image_folder

    if arguments.calibration is not None:
        # Fail before minutes of work. The scale of the network is not known yet.
        image_folder.find(arguments.calibration, 1, low_resolution=arguments.low_resolution)

    started = time.monotonic()
    with console.Progress() as progress:
        subprocess_export.export(options, target, progress.stage)
        installed = "tensorrt_rtx" in backends.available()
        plan = f"\n  {command.build_portable(target, progress.stage)}" if installed else ""
    written = bundle.Bundle.open(target).manifest
    if arguments.json:
        console.say_json(json.loads(written.to_json()), indent=2)
    else:
        console.say(summary(written, target, time.monotonic() - started) + plan)
    return 0


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Check that the bundle can be written, and that it replaces nothing but a bundle of ours."""
    if not target.parent.is_dir():
        raise NotFoundError(f"{target.parent}: no such folder to write {target.name} into")
    collect_leftovers(target.parent)  # which can restore the bundle
    if not target.exists():
        return
    try:
        bundle.Bundle.open(target)
    except (BundleError, ValueError) as error:  # ValueError: a number of over 4300 digits
        raise InvalidInputError(
            f"{target}: exists but is not a bundle of this version, so it is never replaced; use "
            f"another --output ({str(error)[:200]})"
        ) from error
    if not overwrite:
        raise InvalidInputError(f"{target}: already exists; --overwrite replaces it")


def _options(arguments: argparse.Namespace, target: Path) -> Options:
    from sr_export.options import Options

    given = {
        "input": arguments.input_range,
        "output": arguments.output_range,
        "mean": arguments.mean,
        "std": arguments.std,
    }
    chosen: dict[str, Any] = {
        name: tuple(values) for name, values in given.items() if values is not None
    }
    for name in ("color", "residual", "enlarge", "denormalize"):
        if value := getattr(arguments, name):
            chosen[name] = value
    ranges = Ranges(**chosen) if chosen else None
    if arguments.arch_file and ":" not in arguments.arch_file[0]:
        raise InvalidInputError(f"--arch-file {arguments.arch_file[0]!r}: expected FILE.py:CLASS")
    return Options(
        checkpoint=str(arguments.checkpoint),
        name=target.stem,
        key=arguments.key,
        ema=arguments.ema,
        trust=arguments.trust,
        architecture=" ".join(arguments.arch) if arguments.arch else None,
        arch_file=tuple(arguments.arch_file or ()),
        latent=arguments.latent,
        network_output=arguments.network_output,
        ranges=ranges,
        expect=arguments.expect and (str(arguments.expect[0]), str(arguments.expect[1])),
        accept=arguments.accept,
        precisions=tuple(arguments.precision),
        yuv=tuple(arguments.yuv or (() if arguments.yuv is None else get_args(YuvFormat))),
        calibration=None if arguments.calibration is None else str(arguments.calibration),
        low_resolution=arguments.low_resolution,
        method=arguments.method,
        seed=arguments.seed,
        budgets=dict(arguments.min_psnr),
    )
