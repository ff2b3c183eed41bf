"""Frames of video in every precision: made, measured, and refused in plain words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from sr_deploy import Engine, backends
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Precision, Quality, YuvFormat
from sr_deploy.errors import ExportError
from sr_export import photos, subprocess_export
from sr_export.bundle_writer import _yuv_variants
from sr_export.cli import main
from sr_export.graph import yuv_reference
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.verify import InputLimits
from sr_export.metrics import psnr
from sr_export.options import Options
from sr_export.quantize.half import VariantRecipe
from sr_export.quantize.variants import AcceptedVariant
from sr_export.quantize.yuv_variants import YuvVariantBuilder, YuvVariants
from sr_export.report import Scene
from tests.sr_deploy import yuv_oracle
from tests.sr_deploy.yuv_oracle import FORMATS, Kind
from tests.sr_export.quantize.nets import compact

BUDGETS: dict[Precision, float] = {"fp16": 58.0, "bf16": 45.0, "int8": 45.0}


@pytest.fixture(scope="module")
def shipped(shipped_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped checkpoint, exported for two formats of video."""
    target = tmp_path_factory.mktemp("shipped") / "shipped.srd"
    assert main([str(shipped_checkpoint), "-o", str(target), "--yuv", "yuv420p", "p010"]) == 0
    return Bundle.open(target)


@pytest.mark.slow
def test_every_precision_holds_its_budget(shipped: Bundle) -> None:
    for pixel_format in ("yuv420p", "p010"):
        found = [each for each in shipped.manifest.variants if each.pixel_format == pixel_format]
        assert [each.precision for each in found] == ["fp32", "fp16", "bf16", "int8"]
        assert found[0].quality is None
        for each in found[1:]:
            assert each.quality is not None
            assert each.quality.psnr is not None
            assert each.quality.psnr >= BUDGETS[each.precision]
            assert each.unfit == {}  # OpenVINO computes it as it was measured
        files = [each.file for each in found]
        assert files[2] == files[0] == f"fp32-{pixel_format}.onnx"
        assert files[3] == f"int8-{pixel_format}.onnx"


def _frame(kind: Kind) -> np.ndarray:
    """A photo as the numbers of a frame, of colours that RGB shows."""
    photo = 0.05 + 0.9 * photos.as_float(photos.batch(1, 128, 160, 3))[0].transpose(1, 2, 0)
    return np.asarray(np.rint(yuv_oracle.from_rgb(photo, kind)).astype(int))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "precision", "budget"),
    [
        ("openvino", "fp32", 50.0),
        ("openvino", "bf16", BUDGETS["bf16"]),
        ("openvino", "int8", BUDGETS["int8"]),
        ("onnxruntime", "fp32", 50.0),
        ("onnxruntime", "int8", BUDGETS["int8"]),
    ],
)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "p010"])
def test_frames_equal_the_way_through_rgb(
    backend: str, precision: Precision, budget: float, pixel_format: YuvFormat, shipped: Bundle
) -> None:
    if precision not in backends.create(backend).precisions(None):
        pytest.skip(f"this CPU does not compute in {precision}")
    kind = Kind(pixel_format)
    frame = kind.frame(_frame(kind))
    rgb = np.rint(255 * yuv_oracle.to_rgb(frame)).clip(0, 255).astype(np.uint8)
    with Engine(shipped.folder, backend=backend, precision=precision) as engine:
        found = engine.upscale(frame)
        upscaled = engine.upscale(rgb)
    scale = 255 / kind.largest
    numbers = scale * yuv_oracle.codes(found)
    expected = scale * yuv_oracle.from_rgb(upscaled / 255, kind)
    # Lower precisions amplify what RGB of 8 bits has rounded, each way in its own places.
    assert psnr(numbers, expected) >= budget
    if precision == "fp32":
        # Where the network overshoots white or black, RGB cuts it off.
        inside = ((upscaled > 0) & (upscaled < 255)).all(axis=2)
        assert inside.mean() > 0.9
        off = np.abs(numbers - expected)[: found.height][inside]
        assert off.max() <= 2


def _builder(
    model: onnx.ModelProto, *offered: AcceptedVariant, **changes: object
) -> YuvVariantBuilder:
    low = photos.batch(1, 33, 47, 3)[0]
    settings: dict[str, object] = {
        "network": model,
        "reference": OnnxRunner(model),
        "size": (32, 32),
        "accepted": offered,
        "scenes": [Scene("a", low, {"fp32": low}, None)],
        "budgets": BUDGETS,
        "report": lambda _: None,
    }
    return YuvVariantBuilder(**(settings | changes))


def _offered(model: onnx.ModelProto) -> AcceptedVariant:
    """Half precision, as it was offered for RGB; what is measured here is not looked at."""
    return AcceptedVariant(
        "fp16", VariantRecipe(model, "fp16"), None, Quality(60.0, 1.0, 1, None, 1)
    )


def test_a_film_has_the_images_and_what_fp32_makes_of_them() -> None:
    model = compact()
    film: YuvVariants = _builder(model, _offered(model)).build("nv12")
    assert [each.precision for each in film.variants] == ["fp32", "fp16"]
    assert film.refused == {}
    (frame,), (expected,) = film.frames, film.expected
    assert (frame.height, frame.width) == (32, 46)  # odd sides lose a line
    exact = film.variants[0].model
    assert exact is not None
    found = OnnxRunner(exact)(frame.pixels[None], frame.coefficients)[0]
    np.testing.assert_array_equal(found, expected)


def test_a_precision_that_misses_its_budget_is_refused_for_the_format() -> None:
    model = compact()
    film = _builder(model, _offered(model), budgets={"fp16": 140.0}).build("nv12")
    assert [each.precision for each in film.variants] == ["fp32"]
    assert "140 dB" in film.refused["fp16 nv12"]


def test_a_graph_that_is_not_the_network_is_an_error() -> None:
    other = OnnxRunner(compact(features=8))
    with pytest.raises(ExportError, match=r"nv12.* levels"):
        _builder(compact(), reference=other).build("nv12")


def test_levels_are_on_the_scale_of_8_bits() -> None:
    kind = Kind("p010")
    white = kind.frame(np.full((3, 2), 1023))
    np.testing.assert_array_equal(yuv_reference.levels(white), np.full((3, 2, 1), 255.0))


@pytest.mark.parametrize(
    ("given", "formats"),
    [([], ()), (["--yuv"], FORMATS), (["--yuv", "p010", "nv12"], ("p010", "nv12"))],
)
def test_the_user_chooses_the_formats(
    given: list[str], formats: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Options] = []

    def export(options: Options, *_: object) -> None:
        seen.append(options)
        raise ExportError("enough")

    monkeypatch.setattr(subprocess_export, "export", export)
    (tmp_path / "x.pth").touch()
    assert main([str(tmp_path / "x.pth"), *given]) == 1
    assert seen[0].yuv == formats


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 1},
        {"limits": InputLimits(1, 1, None, 4)},
        {"limits": InputLimits(1, 1, (33, 32), None)},
    ],
    ids=["gray", "batch", "odd"],
)
def test_networks_that_cannot_say_why(changes: dict[str, Any]) -> None:
    settings = {"channels": 3, "limits": InputLimits(1, 1, None, None)} | changes
    film = _yuv_variants(SimpleNamespace(**settings), Options("x", "x"), None, "nv12", print)
    assert film.variants == ()
    assert list(film.refused) == ["nv12"]
    assert "3 channels" in film.refused["nv12"]
