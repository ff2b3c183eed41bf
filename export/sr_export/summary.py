"""The summary that `sr-export` prints for a new bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sr_deploy.bundle.manifest import REPORT, YuvFormat
from sr_deploy.cli import console
from sr_export.quantize.calibration_data import OWN_PHOTOS

if TYPE_CHECKING:
    from pathlib import Path

    from sr_deploy.bundle.manifest import Manifest, Model

_CLEAN = "calibrated on clean photos; for degraded input, use --calibration with similar photos"

_PROOF = "to prove it: --expect INPUT OUTPUT, an image and the result of your own program for it"


def summary(written: Manifest, target: Path, seconds: float) -> str:
    """Return the summary of a bundle that was exported in `seconds`."""
    model = written.model
    worst = max(written.checks, key=lambda check: check.max_error)
    checks = len(written.checks)
    checked = f"{checks} shape{'s' * (checks > 1)} on photos"
    if model.latent is not None:
        checked = f"{checks} batch{'es' * (checks > 1)} of random numbers"
    verified = f"{checked}, largest difference from PyTorch {worst.max_error:.1g} (white is 1)"
    files = dict.fromkeys(["model.onnx", *(each.file for each in written.variants)])
    rows = [
        ("network", _network_text(model)),
        ("weights", f"{written.source.name}: {written.source.taken}"),
        ("pixel values", written.source.ranges),
        *(("assumed", text) for text in written.source.assumed),
        *([("", _PROOF)] if written.source.assumed else []),
        *([("proven", written.source.proven)] if written.source.proven else []),
        ("parameters", f"{model.parameters:,}"),
        *_size_rows(model),
        ("verified", verified),
        *_precision_rows(written),
        ("files", ", ".join(files)),
        *([("report", str(target / REPORT))] if (target / REPORT).exists() else []),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    return "\n".join([f"{target} in {console.clock(seconds)}", *lines])


def _network_text(model: Model) -> str:
    colors = "gray" if model.channels == 1 else "RGB"
    if model.latent is None:
        return f"{model.architecture} x{model.scale}, {colors}"
    given = f"{model.latent.width}x{model.latent.height}"
    return f"{model.architecture}, {model.latent.size} random numbers to {given}, {colors}"


def _size_rows(model: Model) -> list[tuple[str, str]]:
    """Return the cost, and the limits of batch and image size."""
    if model.latent is not None:
        megapixels = model.latent.height * model.latent.width / 1e6
        return [("cost", f"{model.gflop_per_megapixel * megapixels:.3g} GFLOP per image")]
    limits = [f"batch {model.fixed_batch} only"] if model.fixed_batch else []
    if model.fixed_size:
        limits.append("tiles of {}x{} only".format(*model.fixed_size))
    halo = "global: tiles are blended" if model.halo is None else f"{model.halo} pixels"
    return [
        ("cost", f"{model.gflop_per_megapixel:,.0f} GFLOP per megapixel of input"),
        ("halo", halo),
        *([("limits", ", ".join(limits))] if limits else []),
    ]


def _precision_rows(written: Manifest) -> list[tuple[str, str]]:
    """Return the quality of each precision, and the layers that compute in INT8."""
    rows: list[tuple[str, str]] = []
    for each in written.variants:
        if each.quality is not None:
            worst = "photo" if written.model.latent is None else "image"
            text = f"{_decibels(each.quality.psnr)} against FP32 on the worst {worst}"
            text += "".join(f"; {name}: {found}" for name, found in each.unfit.items())
            video = f" {each.pixel_format}" if each.pixel_format in get_args(YuvFormat) else ""
            rows.append((each.precision + video, text))
    for precision, reason in written.refused.items():
        rows.append((precision, f"rejected: {reason}"))
    if written.int8 is not None:
        trained = written.int8.method == "trained"
        for step in written.int8.steps if trained or len(written.int8.steps) > 1 else ():
            layers = written.int8.layers - len(step.restored)
            fitted = ", rounding optimized" if step.fitted else ", as trained" if trained else ""
            text = (
                f"{layers} of {written.int8.layers} layers, {step.share:.0%} of the multiply-adds"
            )
            rows.append(("", f"{_decibels(step.psnr)} with {text}{fitted}"))
        if written.model.scale == 1 and OWN_PHOTOS in written.int8.calibration:
            rows.append(("", _CLEAN))
    return rows


def _decibels(psnr: float | None) -> str:
    return "equal" if psnr is None else f"{psnr:.1f} dB"
