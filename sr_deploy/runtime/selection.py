"""Which of a bundle's variants runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sr_deploy.bundle.manifest import Precision, YuvFormat
from sr_deploy.errors import BundleError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_deploy.bundle.bundle import Bundle
    from sr_deploy.bundle.manifest import PixelFormat, Variant

_DEEP = ("rgb48", "gray16", "p010")
_EXACT_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


def pixel_format(channels: int, itemsize: int) -> PixelFormat:
    """Return the format of a network's frames: 1 or 3 channels of 1 or 2 bytes."""
    if channels == 1:
        return "gray8" if itemsize == 1 else "gray16"
    return "rgb24" if itemsize == 1 else "rgb48"


def choices(
    bundle: Bundle,
    frames: PixelFormat,
    wanted: str,
    computed: Sequence[Precision],
    backend: str = "",
) -> list[Variant]:
    """Return the variants that may run for frames of a pixel format, the one to try first first.

    Every variant of a bundle was measured and holds its budget, so "auto" takes any, the fastest
    first, but for those that the exporter found this backend to compute worse. A precision that the
    user names is the only one, and for 8-bit frames: it trades exactness that 8 bits do not show.
    Frames of 16 bits are computed in it where the bundle has it for them, else in the most exact
    precision, so that a folder of both can be upscaled with one setting.

    Args:
        bundle: Where to choose from.
        frames: The pixel format.
        wanted: A precision, or "auto".
        computed: The precisions that the device computes in, fastest first.
        backend: What is going to run it.

    Raises:
        InvalidInputError: the precision that was asked for cannot be had; the text says which can.
        BundleError: the bundle has nothing for such frames.
    """
    if wanted not in ("auto", *get_args(Precision)):
        allowed = ", ".join(get_args(Precision))
        raise InvalidInputError(
            f"there is no precision {wanted!r}; choose auto or one of {allowed}"
        )
    found = (bundle.variant(precision, frames) for precision in computed)
    there = {variant.precision: variant for variant in found if variant is not None}
    if not there:
        held = ", ".join(sorted({each.pixel_format for each in bundle.manifest.variants}))
        option = " with --yuv" if frames in get_args(YuvFormat) else ""
        raise BundleError(
            f"{bundle.folder}: has nothing that runs here for frames of format {frames} "
            f"(it has {held or 'no variants'}); export the checkpoint again{option}"
        )
    if wanted == "auto":
        fit = [each for each in there.values() if backend not in each.unfit]
        return fit or list(there.values())
    for precision in (wanted, *_EXACT_FIRST) if frames in _DEEP else (wanted,):
        if precision in there:
            return [there[precision]]
    raise InvalidInputError(
        f"{bundle.folder}: {wanted} cannot be had for frames of format {frames} on this device; "
        f"there is {', '.join(there)}{_reason(bundle, wanted)}"
    )


def _reason(bundle: Bundle, wanted: str) -> str:
    """Return why the exporter does not offer a precision, if it says so."""
    refused = bundle.manifest.refused.get(wanted)
    return f"; when it was exported: {refused}" if refused else ""
