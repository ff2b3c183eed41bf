"""Which of a bundle's files runs, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from sr_deploy.errors import BundleError, InvalidInputError
from sr_deploy.manifest import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_deploy.bundle import Bundle
    from sr_deploy.manifest import PixelFormat, Variant


@dataclass(frozen=True)
class Choice:
    """A file of the bundle, and the precision to compute it in."""

    variant: Variant
    precision: Precision


def pixel_format(channels: int, itemsize: int) -> PixelFormat:
    """Return the format of a network's frames: 1 or 3 channels of 1 or 2 bytes."""
    if channels == 1:
        return "gray8" if itemsize == 1 else "gray16"
    return "rgb24" if itemsize == 1 else "rgb48"


def choose(
    bundle: Bundle, frames: PixelFormat, wanted: str, computed: Sequence[Precision]
) -> Choice:
    """Choose the file for frames of a pixel format.

    Args:
        bundle: Where to choose from.
        frames: The pixel format.
        wanted: A precision, or "auto".
        computed: The precisions that the device computes in.

    Raises:
        InvalidInputError: the precision that was asked for cannot be had; the text says which can.
        BundleError: the bundle has nothing for such frames.
    """
    if wanted not in ("auto", *get_args(Precision)):
        allowed = ", ".join(get_args(Precision))
        raise InvalidInputError(
            f"there is no precision {wanted!r}; choose auto or one of {allowed}"
        )
    choices = _choices(bundle, frames, computed)
    if not choices:
        held = ", ".join(sorted({each.pixel_format for each in bundle.manifest.variants}))
        raise BundleError(
            f"{bundle.folder}: has nothing that runs here for frames of format {frames} "
            f"(it has {held or 'no variants'}); export the checkpoint again"
        )
    name = _best(choices) if wanted == "auto" else wanted
    for choice in choices:
        if choice.precision == name:
            return choice
    available = ", ".join(choice.precision for choice in choices)
    raise InvalidInputError(
        f"{bundle.folder}: {wanted} cannot be had for frames of format {frames} on this device; "
        f"there is {available}"
    )


def _choices(
    bundle: Bundle, frames: PixelFormat, computed: Sequence[Precision]
) -> tuple[Choice, ...]:
    """Return all that can be had; BF16 is computed from the FP32 file where there is no other."""
    choices = []
    for precision in get_args(Precision):
        variant = bundle.variant(precision, frames)
        if variant is None and precision == "bf16":
            variant = bundle.variant("fp32", frames)
        if variant is not None and precision in computed:
            choices.append(Choice(variant, precision))
    return tuple(choices)


def _best(choices: Sequence[Choice]) -> Precision:
    """Return what "auto" means: FP32, unless there is none."""
    precisions = [choice.precision for choice in choices]
    return "fp32" if "fp32" in precisions else precisions[0]
