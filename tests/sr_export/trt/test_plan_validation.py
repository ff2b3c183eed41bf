from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Model
from sr_deploy.bundle.plan_store import Shapes
from sr_export.trt import plan_validation
from sr_export.trt.plan_validation import PlanValidator

SHAPES = Shapes((1, 40, 48), (2, 230, 250), (2, 300, 300))


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return Bundle.open(exported)


@pytest.fixture(scope="module")
def engine(exported: Path) -> Iterator[Engine]:
    with Engine(exported, backend="onnxruntime", precision="fp32") as engine:
        yield engine


def results(engine: Engine, batches: list[np.ndarray]) -> list[np.ndarray]:
    return [np.stack([engine.upscale(each) for each in batch]) for batch in batches]


def validate(
    bundle: Bundle, precision: Any, found: list[np.ndarray], model: Model
) -> plan_validation.PlanQuality:
    variant = bundle.variant(precision, "rgb24")
    assert variant is not None
    validator = PlanValidator(bundle.folder, model, variant)
    try:
        return validator.validate(plan_validation.batches(model, SHAPES, deep=False), found)
    finally:
        validator.close()


@pytest.mark.parametrize("halo", [2, None])
@pytest.mark.parametrize("multiple_of", [1, 8])
def test_correct_results_equal_the_cpus_patches(
    bundle: Bundle, engine: Engine, halo: int | None, multiple_of: int
) -> None:
    model = dataclasses.replace(bundle.manifest.model, halo=halo, multiple_of=multiple_of)
    found = results(engine, plan_validation.batches(model, SHAPES, deep=False))

    quality = validate(bundle, "fp32", found, model)

    assert quality.problem is None
    assert quality.psnr is None  # equal
    assert quality.compared == "FP32 in onnxruntime on a CPU, photos of 2x230x250, 1x40x48"


@pytest.mark.parametrize("corner", [(0, 0), (-1, -1)])
def test_an_error_in_a_corner_is_detected(
    bundle: Bundle, engine: Engine, corner: tuple[int, int]
) -> None:
    model = bundle.manifest.model
    found = results(engine, plan_validation.batches(model, SHAPES, deep=False))
    found[0] = found[0].copy()
    rows, columns = (slice(0, 8) if side == 0 else slice(-8, None) for side in corner)
    found[0][:, rows, columns] ^= 0x40

    quality = validate(bundle, "fp16", found, model)

    assert quality.problem is not None
    assert "below 55 dB" in quality.problem


def test_the_budget_is_the_exporters_measurement_less_a_margin(
    bundle: Bundle, engine: Engine
) -> None:
    model = bundle.manifest.model
    found = results(engine, plan_validation.batches(model, SHAPES, deep=False))
    noise = np.random.default_rng(0).integers(-1, 2, found[0].shape)
    found[0] = np.clip(found[0].astype(int) + noise, 0, 255).astype(np.uint8)  # about 50 dB

    assert validate(bundle, "int8", found, model).problem is None
    assert validate(bundle, "fp16", found, model).problem is not None


def test_16_bit_photos_are_scaled_8_bit_photos(bundle: Bundle) -> None:
    model = bundle.manifest.model
    plain = plan_validation.batches(model, SHAPES, deep=False)[0]
    deep = plan_validation.batches(model, SHAPES, deep=True)[0]
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, plain.astype(int) * 257)
