"""The command line: `python -m examples.training`."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from examples.training.adversarial import ADVERSARIAL
from examples.training.crops import Crops
from examples.training.degradation import DEGRADATIONS
from examples.training.discriminators import DISCRIMINATORS
from examples.training.exam import Exam
from examples.training.learner import LOSSES, Learner
from examples.training.photos import fingerprint, gather, hold_out
from examples.training.recipes import RECIPES, Contest, Plan, Recipe, for_int8
from examples.training.run import Pace, Run
from sr_deploy import machine
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.training.photos import Photo

_DESCRIPTION = """\
Train a super-resolution network, or one that cleans images, on folders of photos.

What comes out goes straight into sr-export: OUTPUT/checkpoint.pt with all that training needs, and
at the end OUTPUT/OUTPUT.pth with the network alone. OUTPUT/samples shows how it gets better.

Whatever ends it, the same command goes on where it was, and ends with the same weights.
"""

_EXAMPLES = """\
examples:
  python -m examples.training photos --output runs/mine                       Compact, x2
  python -m examples.training photos --recipe srgan --scale 4 --output runs/srgan
  python -m examples.training DIV2K --validation DIV2K/DIV2K_valid_HR --recipe esrgan --scale 4 \\
      --degradation real --vgg vgg19-dcbb9e9d.pth --patch 48 --batch 16 --steps 500000 \\
      --contest-steps 400000 --output runs/esrgan                             on a GPU
  python -m examples.training photos --scale 1 --degradation jpeg --output runs/clean
  python -m examples.training scans --channels 1 --output runs/scans          one channel
  sr-export runs/srgan/checkpoint.pt
"""

# What a recipe without an adversarial half gets with --adversarial.
_CONTEST = Contest("vanilla", "pyramid", steps=1_000, rate=1e-4, weight=1e-3)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trainer."""
    return console.run(_parser(), _command, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m examples.training",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "photos",
        nargs="+",
        metavar="FOLDER[=SHARE]",
        help="photos, or pairs as DIV2K has them; "
        "those of a share of 4 are seen four times as often as those of 1",
    )
    add("--output", type=Path, required=True, metavar="FOLDER", help="where it all goes")
    add("--recipe", choices=tuple(RECIPES), default="compact", help="default: %(default)s")
    add("--scale", type=int, choices=(1, 2, 3, 4, 8), default=2, help="default: %(default)s")
    add(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="1 for gray: medical, satellite (default: %(default)s)",
    )
    add(
        "--degradation",
        choices=tuple(DEGRADATIONS),
        help="what makes the low resolution (default: bicubic; noise at scale 1)",
    )
    add(
        "--validation",
        nargs="+",
        metavar="FOLDER",
        help="photos to validate on (default: a tenth of those to train on, left out)",
    )
    _add_recipe_options(parser)
    _add_machine_options(parser)
    return parser


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("to change the recipe (default: the recipe's)").add_argument
    add("--features", type=_count, metavar="N", help="channels inside the network")
    add("--blocks", type=_count, metavar="N", help="how deep it is")
    add("--steps", type=_count, metavar="N", help="for the pixels alone")
    add("--batch", type=_count, metavar="N", help="crops in a step")
    add("--patch", type=_count, metavar="N", help="low-resolution side of a crop")
    add("--rate", type=_rate, metavar="R", help="learning rate, at its height")
    add("--loss", choices=tuple(LOSSES), default="charbonnier", help="default: %(default)s")
    add("--adversarial", choices=tuple(ADVERSARIAL), help="the kind of GAN")
    add("--discriminator", choices=tuple(DISCRIMINATORS))
    add("--contest-steps", type=_count, metavar="N", help="against the discriminator")
    add("--vgg", metavar="FILE", help="torchvision's vgg19-dcbb9e9d.pth, for a perceptual loss")
    add("--start", metavar="FILE", help="weights to start from, of the same network")
    add(
        "--int8",
        metavar="FILE",
        help="a trained network of the same kind, to fine-tune for INT8: it learns to give in that "
        "what it gives in FP32, and sr-export then takes INT8 as it was trained",
    )
    add("--seed", type=_natural, default=0, help="default: %(default)s")


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how the machine is used").add_argument
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default here: %(default)s",
    )
    add(
        "--threads",
        type=_count,
        default=machine.cores(),
        metavar="N",
        help="of the processor (default here: %(default)s)",
    )
    add(
        "--workers",
        type=_natural,
        metavar="N",
        help="processes that make crops (default: one for two cores on a GPU, else none)",
    )
    add(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of training (default: bfloat16 where the machine is fast in it)",
    )
    add(
        "--exam-steps",
        type=_count,
        default=500,
        metavar="N",
        help="how often to validate (default: %(default)s)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return value


def _command(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    torch.set_num_threads(arguments.threads)
    device = _device(arguments.device)
    photos = gather(arguments.photos, arguments.scale)
    if arguments.validation:
        held = gather(arguments.validation, arguments.scale)
    else:
        photos, held = hold_out(photos)
    plan = _plan(arguments, photos, bfloat16=_bfloat16(arguments.precision, device))
    run = Run(plan, arguments.output)
    learner = Learner(plan, device)
    levels = 65535 if all(photo.bits == 16 for photo in photos) else 255
    of_network = {"scale": plan.scale, "channels": plan.channels}
    degradation = DEGRADATIONS[plan.degradation](levels)
    patch = plan.recipe.patch
    crops = Crops(photos, **of_network, patch=patch, degradation=degradation, seed=plan.seed)
    exam = Exam(held, **of_network, degradation=degradation)
    console.say(
        f"{plan.recipe.network} x{plan.scale}, {_parameters(learner):,} parameters, on "
        f"{len(photos)} photos; validated on {len(held)}"
    )
    if not run.train(
        learner, crops, exam, Pace(_workers(arguments.workers, device), arguments.exam_steps)
    ):
        console.say(f"stopped after step {learner.step}; the same command goes on from there")
        return 130
    console.say(f"done; now: sr-export {run.network(learner)}")
    return 0


def _device(name: str) -> torch.device:
    """Returns a device that is there.

    Raises:
        InvalidInputError: it is not, or not usable.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = console.describe(error).partition(". ")[0]
        raise InvalidInputError(f"--device {name}: {reason}") from error


def _plan(arguments: argparse.Namespace, photos: Sequence[Photo], *, bfloat16: bool) -> Plan:
    given = {
        name: value
        for name in ("steps", "batch", "patch", "rate")
        if (value := getattr(arguments, name)) is not None
    }
    usual = RECIPES[arguments.recipe]
    recipe = replace(for_int8(usual) if arguments.int8 else usual, **given)
    return Plan(
        recipe=replace(recipe, contest=_contest(arguments, recipe)),
        scale=arguments.scale,
        channels=arguments.channels,
        size={
            name: value
            for name in ("features", "blocks")
            if (value := getattr(arguments, name)) is not None
        },
        loss=arguments.loss,
        degradation=arguments.degradation or ("noise" if arguments.scale == 1 else "bicubic"),
        vgg=arguments.vgg,
        start=arguments.start,
        photos=fingerprint(photos),
        bfloat16=bfloat16,
        seed=arguments.seed,
        int8=arguments.int8,
    )


def _contest(arguments: argparse.Namespace, recipe: Recipe) -> Contest | None:
    """Returns the adversarial half, which any of its options asks for."""
    options = {
        "kind": arguments.adversarial,
        "discriminator": arguments.discriminator,
        "steps": arguments.contest_steps,
    }
    given = {name: value for name, value in options.items() if value is not None}
    contest = recipe.contest or (_CONTEST if given else None)
    if contest and arguments.int8:
        raise InvalidInputError("--int8 learns from the network itself, not from a discriminator")
    if contest is None and arguments.vgg:
        raise InvalidInputError(
            "--vgg is for the second half of a GAN's training; choose --recipe srgan or esrgan, or "
            "--adversarial"
        )
    return contest and replace(contest, **given)


def _bfloat16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(machine.features()))


def _workers(wished: int | None, device: torch.device) -> int:
    if wished is not None:
        return wished
    return max(1, machine.cores() // 2) if device.type == "cuda" else 0


def _parameters(learner: Learner) -> int:
    return sum(each.numel() for each in learner.generator.parameters())
