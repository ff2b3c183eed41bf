"""The summary that a user reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sr_deploy.bundle.manifest import Quantization, Step
from sr_export.quantize.calibration_data import OWN_PHOTOS
from sr_export.summary import summary
from tests.sr_deploy import manifests

REMINDER = "--calibration"


@pytest.mark.parametrize(
    ("scale", "material", "reminds"),
    [(1, OWN_PHOTOS, True), (1, "12 images in pairs", False), (2, OWN_PHOTOS, False)],
)
def test_restoration_networks_get_a_reminder_to_calibrate(
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


@pytest.mark.parametrize(("checks", "shown"), [(1, "1 shape on"), (2, "2 shapes on")])
def test_the_number_of_verified_shapes(checks: int, shown: str) -> None:
    written = manifests.make()
    written = dataclasses.replace(written, checks=written.checks[:1] * checks)
    assert shown in summary(written, Path("net.srd"), 3)
