"""Choice of the bundle's variant to run."""

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
    """Return the pixel format of 1 or 3 channels with 1 or 2 bytes."""
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
    """Return the variants that can run for a pixel format, in the order in which to try them.

    Every variant of a bundle passed its quality check, so "auto" allows all of them, the fastest
    first, except those that the exporter found to be off on this backend. A named precision applies
    strictly to 8-bit frames only: it trades accuracy that 8 bits do not show. 16-bit frames use it
    if the bundle has such a variant, else the most accurate precision, so one setting works for a
    folder with both.

    Args:
        bundle: The bundle.
        frames: The pixel format.
        wanted: A precision, or "auto".
        computed: The precisions that the device supports, fastest first.
        backend: Name of the backend.

    Raises:
        InvalidInputError: the precision is not available; the message lists those that are.
        BundleError: the bundle has no variant for this pixel format.
    """
    if wanted not in ("auto", *get_args(Precision)):
        allowed = ", ".join(get_args(Precision))
        raise InvalidInputError(f"unknown precision {wanted!r}; choose auto or one of {allowed}")
    found = (bundle.variant(precision, frames) for precision in computed)
    there = {variant.precision: variant for variant in found if variant is not None}
    if not there:
        held = ", ".join(sorted({each.pixel_format for each in bundle.manifest.variants}))
        option = " with --yuv" if frames in get_args(YuvFormat) else ""
        raise BundleError(
            f"{bundle.folder}: no variant for {frames} frames can run here (the bundle has "
            f"{held or 'no variants'}); export the checkpoint again{option}"
        )
    if wanted == "auto":
        fit = [each for each in there.values() if backend not in each.unfit]
        return fit or list(there.values())
    for precision in (wanted, *_EXACT_FIRST) if frames in _DEEP else (wanted,):
        if precision in there:
            return [there[precision]]
    raise InvalidInputError(
        f"{bundle.folder}: {wanted} is not available for {frames} frames on this device; "
        f"available: {', '.join(there)}{_reason(bundle, wanted)}"
    )


def _reason(bundle: Bundle, wanted: str) -> str:
    """Return the exporter's reason for rejecting a precision, if it recorded one."""
    refused = bundle.manifest.refused.get(wanted)
    return f"; rejected at export: {refused}" if refused else ""
