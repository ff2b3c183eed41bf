"""`sr-export`: from a training checkpoint to a verified bundle."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_deploy.bundle import bundle
from sr_deploy.bundle.manifest import Method, Precision, YuvFormat
from sr_deploy.cli import console
from sr_deploy.errors import CheckpointError, InvalidInputError, NotFoundError
from sr_export.summary import summary
from sr_export.trt import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_export.options import Options

_DESCRIPTION = """\
Turn a super-resolution training checkpoint into a bundle: a folder of ONNX files, verified against
the PyTorch network on real images, that sr-upscale and sr_deploy.Engine run.

Reads state dicts of some fifty architectures in any of the usual containers (the generator
of a GAN checkpoint is found, EMA weights are preferred), safetensors, TorchScript, torch.export
programs and ONNX files. Nothing in a checkpoint is executed."""

_EXAMPLES = """\
examples:
  sr-export net_g_latest.pth                  write net_g_latest.srd beside it
  sr-export gan.ckpt -o x4.srd --no-ema       the raw weights instead of their average
  sr-export gan.ckpt --key netG_A             where several generators are in one file
  sr-export mine.pt --arch-file mine.py:Net features=32      a network of your own: Net(features=32)
  sr-export fsrcnn.pth --arch FSRCNN scale=3  where the weights do not tell it
  sr-export netG.pth                          a DCGAN's generator, for sr-generate
  sr-export mine.pt --arch-file mine.py:G --latent 128       a generator of your own
  sr-export other.onnx --input-range 0 255    a network that takes and gives other ranges
  sr-export net_g_latest.pth --yuv nv12 p010  also for frames of video, as GPUs decode them
  sr-export net_g_latest.srd --engine         of a bundle: build TensorRT plans for this GPU
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
    parser.add_argument("checkpoint", type=Path, help="the file to export")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the bundle to write (default: CHECKPOINT's name with .srd)",
    )
    choice = parser.add_argument_group("which weights")
    choice.add_argument("--key", help="path of the weights in the file, such as state.generator")
    choice.add_argument(
        "--no-ema", dest="ema", action="store_false", help="take the raw weights, not their average"
    )
    choice.add_argument(
        "--arch",
        nargs="+",
        metavar=("NAME", "KEY=VALUE"),
        help="architecture, where it is not recognised rightly, and what its weights do not tell",
    )
    choice.add_argument(
        "--arch-file",
        nargs="+",
        metavar=("FILE.py:CLASS", "KEY=VALUE"),
        help="a class or function of your own that makes the module, and what to call it with; "
        "runs that file",
    )
    choice.add_argument(
        "--latent",
        type=int,
        metavar="N",
        help="the module of --arch-file is a generator that makes images of N random numbers",
    )
    choice.add_argument(
        "--trust",
        action="store_true",
        help="open a torch.export program, a format that can run code; only for your own files",
    )
    pixels = parser.add_argument_group(
        "what the network takes and gives (default: known from the architecture, else found out)"
    )
    two = {"nargs": 2, "type": float, "metavar": ("BLACK", "WHITE")}
    pixels.add_argument("--input-range", **two, help="such as -1 1 or 0 255")  # type: ignore[arg-type]
    pixels.add_argument("--output-range", **two, help="such as -1 1 for tanh")  # type: ignore[arg-type]
    pixels.add_argument("--mean", nargs="+", type=float, help="subtracted from the input")
    pixels.add_argument("--std", nargs="+", type=float, help="what the input is divided by")
    pixels.add_argument("--bgr", action="store_true", help="channels in the order of OpenCV")
    parser.add_argument(
        "--yuv",
        nargs="*",
        choices=get_args(YuvFormat),
        metavar="FORMAT",
        help="also write files that take and give frames of video as decoders and encoders have "
        f"them, without RGB in between: {', '.join(get_args(YuvFormat))} (default: none; without "
        "FORMAT: all)",
    )
    _add_precisions(parser.add_argument_group("precisions"))
    command.add_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the manifest instead of a summary"
    )
    return parser


def _add_precisions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--precision",
        nargs="+",
        choices=get_args(Precision),
        default=get_args(Precision),
        help="which to offer beside FP32 if their frames hold (default: all)",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="photos to calibrate INT8 on, like those that will be upscaled; they are made small "
        "as the network expects, or pairs are taken from sub-folders HR and LR (default: a few "
        "photos that come with sr-export)",
    )
    group.add_argument(
        "--low-resolution",
        action="store_true",
        help="the photos of --calibration are small already",
    )
    group.add_argument(
        "--method",
        choices=get_args(Method),
        default="percentile",
        help="how activations are clipped (default: %(default)s)",
    )
    group.add_argument(
        "--min-psnr",
        nargs="+",
        type=_budget,
        default=[],
        metavar="PRECISION=DB",
        help="decibels against FP32 that a precision must hold to be offered (default: "
        "fp16=58 bf16=45 int8=45)",
    )
    group.add_argument("--seed", type=int, default=0, help="of the choice of tiles")


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
    if not checkpoint.exists():
        raise NotFoundError(f"{checkpoint}: no such file")
    if checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint}: is a folder; sr-export reads one checkpoint file")
    target = arguments.output or checkpoint.with_suffix(bundle.SUFFIX)
    _check_target(target)
    options = _options(arguments, target)
    # Late, since these import onnx, which --help does not need.
    from sr_export import subprocess_export
    from sr_export.quantize import image_folder

    if arguments.calibration is not None:
        # Before the work of minutes; the scale of the network is not known yet.
        image_folder.find(arguments.calibration, 1, low_resolution=arguments.low_resolution)

    started = time.monotonic()
    with console.Progress() as progress:
        subprocess_export.export(options, target, progress.stage)
    written = bundle.Bundle.open(target).manifest
    if arguments.json:
        console.say(written.to_json().rstrip())
    else:
        console.say(summary(written, target, time.monotonic() - started))
    return 0


def _check_target(target: Path) -> None:
    """Refuse to replace what is not a bundle, before any work is done."""
    if not target.parent.is_dir():
        raise NotFoundError(f"{target.parent}: no such folder to write {target.name} into")
    if target.exists() and not (target / "manifest.json").is_file():
        raise InvalidInputError(f"{target}: is there and is no bundle; name another with --output")


def _options(arguments: argparse.Namespace, target: Path) -> Options:
    from sr_export.models.ranges import Ranges
    from sr_export.options import Options

    given = {
        "input": arguments.input_range,
        "output": arguments.output_range,
        "mean": arguments.mean,
        "std": arguments.std,
    }
    chosen = {name: tuple(values) for name, values in given.items() if values is not None}
    ranges = Ranges(**chosen, bgr=arguments.bgr) if chosen or arguments.bgr else None
    if arguments.arch_file and ":" not in arguments.arch_file[0]:
        raise InvalidInputError(
            f"--arch-file takes FILE.py:CLASS, found {arguments.arch_file[0]!r}"
        )
    return Options(
        checkpoint=str(arguments.checkpoint),
        name=target.stem,
        key=arguments.key,
        ema=arguments.ema,
        trust=arguments.trust,
        architecture=" ".join(arguments.arch) if arguments.arch else None,
        arch_file=tuple(arguments.arch_file or ()),
        latent=arguments.latent,
        ranges=ranges,
        precisions=tuple(arguments.precision),
        yuv=tuple(arguments.yuv or (() if arguments.yuv is None else get_args(YuvFormat))),
        calibration=None if arguments.calibration is None else str(arguments.calibration),
        low_resolution=arguments.low_resolution,
        method=arguments.method,
        seed=arguments.seed,
        budgets=dict(arguments.min_psnr),
    )
