"""`sr-export`: from a training checkpoint to a verified bundle."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy import bundle, console
from sr_deploy.errors import CheckpointError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_deploy.manifest import Manifest
    from sr_export.options import Options

_DESCRIPTION = """\
Turn a super-resolution training checkpoint into a bundle: a folder of ONNX files, verified against
the PyTorch network on real images, that sr-upscale and sr_deploy.Engine run.

Reads state dicts of some forty-five architectures in any of the usual containers (the generator
of a GAN checkpoint is found, EMA weights are preferred), safetensors, TorchScript, torch.export
programs and ONNX files. Nothing in a checkpoint is executed."""

_EXAMPLES = """\
examples:
  sr-export net_g_latest.pth                  write net_g_latest.srd beside it
  sr-export gan.ckpt -o x4.srd --no-ema       the raw weights instead of their average
  sr-export gan.ckpt --key netG_A             where several generators are in one file
  sr-export mine.pt --network mine.py:build   a network of your own; build() returns the module
  sr-export other.onnx --input-range 0 255    a network that takes and gives other ranges
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
    choice.add_argument("--arch", help="architecture, where it is not recognised rightly")
    choice.add_argument(
        "--network",
        metavar="FILE.py:FUNCTION",
        help="a function or class of your own that makes the module; runs that file",
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
        "--json", action="store_true", help="print the manifest instead of a summary"
    )
    return parser


def _command(arguments: argparse.Namespace) -> int:
    checkpoint: Path = arguments.checkpoint
    if not checkpoint.exists():
        raise NotFoundError(f"{checkpoint}: no such file")
    if checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint}: is a folder; sr-export reads one checkpoint file")
    target = arguments.output or checkpoint.with_suffix(bundle.SUFFIX)
    _check_target(target)
    options = _options(arguments, target)
    # Late, since these import onnx, which --help does not need.
    from sr_export import isolation

    started = time.monotonic()
    with console.Progress() as progress:
        isolation.export(options, target, progress.stage)
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
    from sr_export.options import Options
    from sr_export.ranges import Ranges

    given = {
        "input": arguments.input_range,
        "output": arguments.output_range,
        "mean": arguments.mean,
        "std": arguments.std,
    }
    chosen = {name: tuple(values) for name, values in given.items() if values is not None}
    ranges = Ranges(**chosen, bgr=arguments.bgr) if chosen or arguments.bgr else None
    if arguments.network is not None and ":" not in arguments.network:
        raise InvalidInputError(f"--network takes FILE.py:FUNCTION, found {arguments.network!r}")
    return Options(
        checkpoint=str(arguments.checkpoint),
        name=target.stem,
        key=arguments.key,
        ema=arguments.ema,
        trust=arguments.trust,
        architecture=arguments.arch,
        network=arguments.network,
        ranges=ranges,
    )


def summary(written: Manifest, target: Path, seconds: float) -> str:
    """Return what came out, for people."""
    model = written.model
    worst = max(written.checks, key=lambda check: check.max_error)
    files = ", ".join(each.file for each in written.variants)
    limits = [f"batch {model.fixed_batch} only"] if model.fixed_batch else []
    if model.fixed_size:
        limits.append("tiles of {}x{} only".format(*model.fixed_size))
    halo = "global: tiles are blended" if model.halo is None else f"{model.halo} pixels"
    colours = "gray" if model.channels == 1 else "RGB"
    rows = {
        "network": f"{model.architecture} x{model.scale}, {colours}",
        "weights": f"{written.source.name}: {written.source.taken}",
        "values": written.source.ranges,
        "parameters": f"{model.parameters:,}",
        "cost": f"{model.gflop_per_megapixel:,.0f} GFLOP per megapixel of input",
        "halo": halo,
        **({"limits": ", ".join(limits)} if limits else {}),
        "verified": (
            f"{len(written.checks)} shapes on photos, largest difference from the original "
            f"{worst.max_error:.1g} (white is 1)"
        ),
        "files": f"model.onnx, {files}",
    }
    width = max(map(len, rows))
    lines = [f"  {name:<{width}}  {text}" for name, text in rows.items()]
    return "\n".join([f"{target} in {console.clock(seconds)}", *lines])
