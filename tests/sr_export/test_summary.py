"""What a user reads of a bundle that was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sr_deploy.bundle.manifest import Quantization, Step
from sr_export.quantize.calibration_data import OWN_PHOTOS
from sr_export.summary import summary
from tests.sr_deploy import manifests

REMINDER = "calibrated on clean photos"


@pytest.mark.parametrize(
    ("scale", "material", "reminds"),
    [(1, OWN_PHOTOS, True), (1, "12 images in pairs", False), (2, OWN_PHOTOS, False)],
)
def test_who_cleans_images_is_reminded_to_calibrate_on_such(
    scale: int, material: str, reminds: bool
) -> None:
    step = Step(restored=(), fitted=False, share=1.0, psnr=50.0)
    written = manifests.make(
        dataclasses.replace(manifests.MODEL, scale=scale),
        int8=Quantization(f"96 tiles of {material}, seed 0", "percentile", 10, (step,)),
    )
    text = summary(written, Path("net.srd"), 3)
    assert text.startswith("net.srd in 3 s")
    assert (REMINDER in text) == reminds
