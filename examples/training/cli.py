"""The command line of the trainer, `python -m examples.training`."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from examples.training.config import (
    DEFAULT_ADVERSARIAL,
    RECIPES,
    AdversarialRecipe,
    TrainingConfig,
    TrainingRecipe,
    for_int8,
)
from examples.training.dataset import Crops, find_photos, fingerprint, hold_out
from examples.training.degradation import DEGRADATIONS
from examples.training.gan import ADVERSARIAL_LOSSES, DISCRIMINATORS
from examples.training.losses import PIXEL_LOSSES
from examples.training.run import TrainingRun
from examples.training.trainer import Trainer
from examples.training.validation import Validation
from sr_deploy import machine
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.training.dataset import Photo

_USAGE = "%(prog)s FOLDER[=SHARE] [FOLDER[=SHARE] ...] --output FOLDER [--recipe NAME] [options]"

_DESCRIPTION = """\
Train a network for super-resolution, denoising or JPEG artifact removal on folders of photos.

The output folder then contains:
  OUTPUT.pth       the averaged weights, for sr-export (named after the folder)
  checkpoint.pt    everything needed to resume; sr-export reads it, too
  log.csv          losses, PSNR and SSIM of each validation
  samples/         low resolution, output and ground truth side by side

After any interruption, the same command resumes and ends with bit-identical weights.
"""

_EXAMPLES = """
examples:
  python -m examples.training.free_photos photos                    photos for a first try
  python -m examples.training photos --output runs/mine             compact network, x2
  python -m examples.training photos --recipe srgan --scale 4 --output runs/srgan
  python -m examples.training photos --scale 1 --degradation jpeg --output runs/clean
  python -m examples.training scans --channels 1 --output runs/scans
  python -m examples.training DIV2K --validation DIV2K/DIV2K_valid_HR --recipe esrgan --scale 4 \\
      --degradation real --vgg vgg19-dcbb9e9d.pth --patch 48 --batch 16 --steps 500000 \\
      --adversarial-steps 400000 --output runs/esrgan               on a GPU
  sr-export runs/srgan/checkpoint.pt
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trainer."""
    return console.run(_parser(), _command, argv)


def _recipe_table() -> str:
    lines = ["recipes (for minutes to hours on a CPU; on a GPU, use 10 to 100 times the steps):"]
    lines.append("  name      network    steps  adversarial steps  batch  patch   rate")
    for name, each in RECIPES.items():
        adversarial = each.adversarial.steps if each.adversarial else "-"
        lines.append(
            f"  {name:9} {each.network:9} {each.steps:6}  {adversarial:>17}  {each.batch:5}  "
            f"{each.patch:5}  {each.rate:g}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m examples.training",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_recipe_table() + "\n" + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "photos",
        nargs="+",
        metavar="FOLDER[=SHARE]",
        help="photos, or pairs in DIV2K's layout; a folder with share 4 gives four times as many "
        "crops as one with the default share 1",
    )
    add("--output", type=Path, required=True, metavar="FOLDER", help="output folder")
    add("--recipe", choices=tuple(RECIPES), default="compact", help="default: %(default)s")
    add("--scale", type=int, choices=(1, 2, 3, 4, 8), default=2, help="default: %(default)s")
    add(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="1 for gray images, such as medical ones (default: %(default)s)",
    )
    add(
        "--degradation",
        choices=tuple(DEGRADATIONS),
        help="how the network's input is made from a photo (default: bicubic; at scale 1, noise)",
    )
    add(
        "--validation",
        nargs="+",
        metavar="FOLDER",
        help="validation photos (default: a tenth of the training photos, held out)",
    )
    _add_recipe_options(parser)
    _add_machine_options(parser)
    return parser


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training options (default: see the recipes below)")
    add = group.add_argument
    add("--features", type=_positive, metavar="N", help="channels inside the network")
    add("--blocks", type=_positive, metavar="N", help="number of the network's blocks")
    add("--steps", type=_positive, metavar="N", help="steps with the pixel loss")
    add("--batch", type=_positive, metavar="N", help="crops per step")
    add("--patch", type=_positive, metavar="N", help="low-resolution side of a crop")
    add("--rate", type=_rate, metavar="R", help="peak learning rate")
    add(
        "--loss",
        choices=tuple(PIXEL_LOSSES),
        default="charbonnier",
        help="pixel loss (default: %(default)s)",
    )
    add("--adversarial", choices=tuple(ADVERSARIAL_LOSSES), help="train as a GAN with this loss")
    add(
        "--discriminator", choices=tuple(DISCRIMINATORS), help="one logit per image, pixel or patch"
    )
    add("--adversarial-steps", type=_positive, metavar="N", help="steps with the discriminator")
    add("--vgg", metavar="FILE", help="vgg19-dcbb9e9d.pth of torchvision, for a perceptual loss")
    add("--start", metavar="FILE", help="initial weights, of the same network")
    add(
        "--int8",
        metavar="FILE",
        help="fine-tune this trained network for INT8: it learns to reproduce its own FP32 output "
        "in INT8, and sr-export uses the result without calibration",
    )
    add("--seed", type=_natural, default=0, help="default: %(default)s")


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="PyTorch device (default here: %(default)s)",
    )
    add(
        "--threads",
        type=_positive,
        default=machine.cores(),
        metavar="N",
        help="CPU threads (default here: %(default)s)",
    )
    add(
        "--workers",
        type=_natural,
        metavar="N",
        help="processes that make crops (default: with a GPU, one per two cores; otherwise 0)",
    )
    add(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="training precision (default: bfloat16 if the hardware supports it)",
    )
    add(
        "--validation-steps",
        type=_positive,
        default=500,
        metavar="N",
        help="steps between validations (default: %(default)s)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid value {text!r}; expected an integer from 1")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"invalid value {text!r}; expected an integer from 0")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"invalid value {text!r}; expected a number in (0, 1)")
    return value


def _command(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    torch.set_num_threads(arguments.threads)
    device = _device(arguments.device)
    photos = find_photos(arguments.photos, arguments.scale)
    if arguments.validation:
        held_out = find_photos(arguments.validation, arguments.scale)
    else:
        photos, held_out = hold_out(photos)
    config = _config(arguments, photos, bfloat16=_bfloat16(arguments.precision, device))
    run = TrainingRun(config, arguments.output)
    trainer = Trainer(config, device)
    levels = 65535 if all(photo.bits == 16 for photo in photos) else 255
    degradation = DEGRADATIONS[config.degradation](levels)
    task: dict[str, Any] = {
        "scale": config.scale,
        "channels": config.channels,
        "degradation": degradation,
    }
    crops = Crops(photos, patch=config.recipe.patch, seed=config.seed, **task)
    validation = Validation(held_out, **task)
    parameters = sum(each.numel() for each in trainer.generator.parameters())
    console.say(
        f"{config.recipe.network} x{config.scale}, {parameters:,} parameters; "
        f"{len(photos)} training photos, {len(held_out)} validation photos"
    )
    if not run.train(
        trainer,
        crops,
        validation,
        workers=_workers(arguments.workers, device),
        validation_steps=arguments.validation_steps,
    ):
        console.say(f"stopped after step {trainer.step}; the same command resumes")
        return 130
    console.say(f"done; next: sr-export {run.save_weights(trainer)}")
    return 0


def _device(name: str) -> torch.device:
    """Return a device after testing it.

    Raises:
        InvalidInputError: It does not exist or cannot be used.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = console.describe(error).partition(". ")[0]
        raise InvalidInputError(f"--device {name}: {reason}") from error


def _config(
    arguments: argparse.Namespace, photos: Sequence[Photo], *, bfloat16: bool
) -> TrainingConfig:
    recipe = RECIPES[arguments.recipe]
    recipe = for_int8(recipe) if arguments.int8 else recipe
    recipe = replace(recipe, **_given(arguments, "steps", "batch", "patch", "rate"))
    return TrainingConfig(
        recipe=replace(recipe, adversarial=_adversarial(arguments, recipe)),
        scale=arguments.scale,
        channels=arguments.channels,
        size=_given(arguments, "features", "blocks"),
        loss=arguments.loss,
        degradation=arguments.degradation or ("noise" if arguments.scale == 1 else "bicubic"),
        vgg=arguments.vgg,
        start=arguments.start,
        photos=fingerprint(photos),
        bfloat16=bfloat16,
        seed=arguments.seed,
        int8=arguments.int8,
    )


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of some options that the user gave."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _adversarial(arguments: argparse.Namespace, recipe: TrainingRecipe) -> AdversarialRecipe | None:
    """Return the adversarial stage of the recipe, or the default if an option asks for one."""
    given = _given(arguments, "adversarial", "discriminator", "adversarial_steps")
    adversarial = recipe.adversarial or (DEFAULT_ADVERSARIAL if given else None)
    if adversarial is None:
        if arguments.vgg:
            raise InvalidInputError(
                "--vgg needs an adversarial stage; use --recipe srgan, --recipe esrgan or "
                "--adversarial"
            )
        return None
    if arguments.int8:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InvalidInputError(f"--int8 has no adversarial stage; omit {options}")
    fields = {"adversarial": "kind", "discriminator": "discriminator", "adversarial_steps": "steps"}
    return replace(adversarial, **{fields[name]: value for name, value in given.items()})


def _bfloat16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(machine.features()))


def _workers(requested: int | None, device: torch.device) -> int:
    if requested is not None:
        return requested
    return max(1, machine.cores() // 2) if device.type == "cuda" else 0
