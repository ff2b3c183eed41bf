"""What a bundle offers: each precision made, measured, and refused in plain words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from sr_deploy.errors import InvalidInputError
from sr_export import photos
from sr_export.graph import pixels
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.metrics import psnr
from sr_export.options import Options
from sr_export.quantize import variants
from sr_export.quantize.variants import ExportedNetwork, Variants
from tests.sr_export.quantize.nets import Net, compact

OPTIONS = Options(checkpoint="x.pth", name="x")


def _subject(
    model: onnx.ModelProto | None = None, scale: int = 2, **changes: Any
) -> ExportedNetwork:
    subject = ExportedNetwork(
        model=model or compact(),
        channels=3,
        scale=scale,
        minimum=1,
        fixed_size=None,
        fixed_batch=None,
        operations=2 * 9 * (3 * 16 + 2 * 16 * 16 + 16 * 12),
    )
    return replace(subject, **changes)


def _offer(subject: ExportedNetwork, **options: Any) -> Variants:
    return variants.build_variants(subject, replace(OPTIONS, **options), lambda _: None)


@pytest.fixture(scope="module")
def compact_offer() -> Variants:
    return _offer(_subject(), budgets={"int8": 30.0, "fp16": 50.0})


def test_all_precisions_of_a_good_network(compact_offer: Variants) -> None:
    assert [each.precision for each in compact_offer.variants] == ["fp16", "bf16", "int8"]
    assert compact_offer.refused == {}
    fp16, bf16, int8 = compact_offer.variants
    assert fp16.model is not None
    assert bf16.model is None  # computed from the FP32 file
    assert int8.model is not None
    assert compact_offer.int8 is not None
    assert compact_offer.int8.steps[-1].psnr == int8.quality.psnr
    assert compact_offer.int8.layers == 4


def test_scenes_show_every_precision(compact_offer: Variants) -> None:
    scene = compact_offer.scenes[0]
    assert set(scene.outputs) == {"fp32", "fp16", "bf16", "int8"}
    height, width = scene.low.shape[:2]
    assert scene.truth is not None
    for each in (scene.truth, *scene.outputs.values()):
        assert each.shape == (2 * height, 2 * width, 3)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_chain_is_strongly_typed_and_loads_everywhere(
    precision: str, compact_offer: Variants
) -> None:
    (model,) = (each.model for each in compact_offer.variants if each.precision == precision)
    assert model is not None
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {each.type.tensor_type.elem_type for each in graph.value_info}
    assert kinds <= {TensorProto.FLOAT16, TensorProto.INT8}
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 2
    frames = photos.batch(1, 48, 64, 3)
    expected = OnnxRunner(pixels.wrap(compact(), "rgb24"))(frames)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for found in (OnnxRunner(model)(frames), compiled(frames)[0]):
        # The budget that this precision was offered at.
        assert psnr(expected, found) > (50 if precision == "fp16" else 30)


def test_only_what_was_asked_for() -> None:
    found = _offer(_subject(), precisions=("fp32", "fp16"))
    assert [each.precision for each in found.variants] == ["fp16"]
    assert found.int8 is None
    assert _offer(_subject(), precisions=("fp32",)).variants == ()


def test_overflow_in_half_makes_bfloat16() -> None:
    """Found by looking: inside, values reach a million."""
    net = Net().conv(16).add("Mul", np.float32(1e6)).add("Mul", np.float32(1e-6)).conv(12, gain=0.1)
    net.add("DepthToSpace", blocksize=2, mode="CRD").upscaled_input(2)
    found = _offer(_subject(net.model(), operations=1), budgets={"bf16": 40.0, "int8": 30.0})
    assert "65504" in found.refused["fp16"]
    (bf16,) = (each for each in found.variants if each.precision == "bf16")
    assert bf16.model is not None
    kinds = {each.data_type for each in bf16.model.graph.initializer}
    assert TensorProto.BFLOAT16 in kinds
    assert TensorProto.FLOAT16 not in kinds
    (int8,) = (each for each in found.variants if each.precision == "int8")
    assert int8.model is not None
    onnx.checker.check_model(int8.model)
    assert TensorProto.FLOAT16 not in {each.data_type for each in int8.model.graph.initializer}


def test_what_is_infinite_on_purpose_fits_into_half() -> None:
    """As SCUNet's masks of shifted windows are."""
    net = Net().conv(12)
    shown = net.value
    net.add("Add", np.float32(-np.inf)).join("Max", shown)
    net.add("DepthToSpace", blocksize=2, mode="CRD").upscaled_input(2)
    found = _offer(_subject(net.model(), operations=1), precisions=("fp32", "fp16"))
    assert [each.precision for each in found.variants] == ["fp16"]
    assert not found.refused


@pytest.mark.slow
def test_a_budget_out_of_reach_is_refused_in_plain_words() -> None:
    found = _offer(_subject(), budgets={"int8": 99.0, "fp16": 99.0, "bf16": 99.0})
    assert found.variants == ()
    for precision in ("fp16", "bf16", "int8"):
        assert "99 dB" in found.refused[precision]
    assert found.int8 is not None  # what was tried is kept


@pytest.mark.slow
def test_networks_of_matrix_products_stay_in_half() -> None:
    net = Net().conv(8, side=1)
    net.add("Transpose", perm=[0, 2, 3, 1]).add("MatMul", np.full((8, 512), 0.01, np.float32))
    net.add("Relu").add("MatMul", np.full((512, 3), 0.01, np.float32))
    net.add("Transpose", perm=[0, 3, 1, 2])
    found = _offer(_subject(net.model(), 1, operations=2 * (24 + 8 * 512 + 512 * 3)))
    assert found.refused["int8"].startswith("only 0% of the multiply-adds")
    assert "fp16" in {each.precision for each in found.variants}


def test_a_network_of_one_size_and_batch() -> None:
    model = Net().conv(16).prelu().conv(12, gain=0.1)
    model.add("DepthToSpace", blocksize=2, mode="CRD").upscaled_input(2)
    fixed = model.model()
    for dim, value in zip(
        fixed.graph.input[0].type.tensor_type.shape.dim, (2, 3, 40, 56), strict=True
    ):
        dim.dim_value = value
    subject = _subject(fixed, fixed_size=(40, 56), fixed_batch=2, operations=1)
    found = _offer(subject, budgets={"int8": 30.0})
    assert {each.precision for each in found.variants} == {"fp16", "bf16", "int8"}
    assert all(scene.low.shape == (40, 56, 3) for scene in found.scenes)


def test_calibrated_on_the_users_images(tmp_path: Path) -> None:
    for i, photo in enumerate(photos.photos()):
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
    found = _offer(_subject(), calibration=str(tmp_path), budgets={"int8": 30.0})
    assert found.int8 is not None
    assert f"images in {tmp_path.name}" in found.int8.calibration


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"\.png"):
        _offer(_subject(), calibration=str(tmp_path))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file() -> None:
    first, second = (
        next(each.model for each in found.variants if each.precision == "int8")
        for found in (_offer(_subject(), budgets={"int8": 30.0}) for _ in range(2))
    )
    assert first is not None
    assert second is not None
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_heavy_networks_are_looked_at_less() -> None:
    """One of a million operations a value of a small network would take an hour."""
    found = _offer(_subject(operations=1e9), precisions=("fp32",))
    assert max(max(scene.low.shape) for scene in found.scenes) == 64
    light = _offer(_subject(), precisions=("fp32",))
    assert max(max(scene.low.shape) for scene in light.scenes) > 100


def test_weights_stay_those_of_the_network(compact_offer: Variants) -> None:
    """The FP16 file holds the network's own weights, rounded; equalising is for INT8 alone."""
    (model,) = (each.model for each in compact_offer.variants if each.precision == "fp16")
    assert model is not None
    own = {each.name: each for each in compact().graph.initializer}
    for each in model.graph.initializer:
        name = each.name.removesuffix("_fp16")
        if name in own:
            expected = numpy_helper.to_array(own[name]).astype(np.float16)
            np.testing.assert_array_equal(numpy_helper.to_array(each), expected)
