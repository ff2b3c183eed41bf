"""The GPU checks on a fake GPU: outputs, tiles, a soak test and the comparison."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_check import finish, on_gpu
from sr_deploy import backends
from sr_deploy.bundle import plan_store
from sr_deploy.bundle.plan_store import Shapes
from tests.sr_export.trt.conftest import Workshop, exported, workshop  # noqa: F401 - fixtures
from tests.sr_export.trt.test_build import Open, variant


@pytest.fixture
def shop(workshop: Open, monkeypatch: pytest.MonkeyPatch) -> Workshop:  # noqa: F811
    monkeypatch.setattr(backends, "_installed", lambda package: package != "openvino")
    return workshop("10.3.0")


def run(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    code: int = module.main()
    return code


def build(shop: Workshop, shapes: Shapes) -> None:
    for precision in ("fp16", "int8"):
        assert shop.building().build(variant(shop, precision), shapes).plan is not None


def test_outputs_are_saved_and_compared_with_a_cpu(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(shop, Shapes.exactly((1, 120, 200)))
    patches, result = tmp_path / "patches.npz", tmp_path / "result.json"
    bundle = shop.bundle.folder

    options = ["--sizes", "120x200", "--patches", patches]
    assert run(monkeypatch, on_gpu, "outputs", bundle, result, *options) == 0
    found = json.loads(result.read_text())
    assert set(found) == {"fp16-120x200", "int8-120x200"}
    assert all(each["second_equal"] for each in found.values())

    assert run(monkeypatch, finish, bundle, patches, result) == 0
    found = json.loads(result.read_text())
    assert found["fp16-120x200"]["psnr"] > 55
    assert found["int8-120x200"]["psnr"] > 42

    monkeypatch.setitem(finish.BUDGETS, "int8", 99.0)
    assert run(monkeypatch, finish, bundle, patches, result) == 1


def test_tiled_frames_are_compared_with_untiled_ones(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiled = tmp_path / "tiled.srd"
    shutil.copytree(shop.bundle.folder, tiled)
    build(shop, Shapes.exactly((1, 120, 200)))
    whole = tmp_path / "whole.srd"
    shutil.copytree(shop.bundle.folder, whole)
    shutil.rmtree(shop.bundle.folder / plan_store.FOLDER)
    build(shop, Shapes.exactly((1, 64, 80)))
    shutil.copytree(shop.bundle.folder / plan_store.FOLDER, tiled / plan_store.FOLDER)
    result = tmp_path / "result.json"

    options = ["--sizes", "120x200", "--tiled", tiled]
    assert run(monkeypatch, on_gpu, "tiles", whole, result, *options) == 0

    found = json.loads(result.read_text())
    assert found["int8-120x200"]["ok"]
    assert found["int8-120x200"]["largest_difference"] <= 1


@pytest.mark.slow
def test_a_soak_test_of_changing_sizes_passes(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(shop, Shapes((1, 16, 16), (1, 64, 64), (1, 160, 160)))
    monkeypatch.setattr(on_gpu, "_SOAK_SIDES", (16, 40, 200))
    result = tmp_path / "result.json"

    assert run(monkeypatch, on_gpu, "soak", shop.bundle.folder, result, "--seconds", 3) == 0

    found = json.loads(result.read_text())
    assert found["ok"]
    assert found["frames"] > found["sizes"] > 3
