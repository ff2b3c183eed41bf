from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from sr_deploy.bundle.plan_record import GpuInfo, Shapes
from sr_deploy.errors import BundleError
from tests.sr_deploy.plan_records import DEVICE, SHAPES, make, wanted

ORIN = GpuInfo("Orin", (8, 7), "for CUDA 12.2")
TURING = GpuInfo("NVIDIA T4", (7, 5), "for CUDA 12.2")


def test_a_plan_serves_what_it_was_built_for() -> None:
    assert make().differences(wanted()) == ()
    assert make().differences(wanted(shape=(1, 720, 1280))) == ()


def test_the_driver_may_change() -> None:
    updated = dataclasses.replace(DEVICE, driver="for CUDA 13.0")
    assert make().differences(wanted(device=updated)) == ()


def test_every_difference_is_named() -> None:
    wish = wanted(
        onnx="b" * 64,
        precision="int8",
        tensorrt="10.16.1.11",
        device=ORIN,
        shape=(2, 720, 1280),
    )

    found = make().differences(wish)

    assert found == (
        "made from an ONNX file of SHA-256 aaaaaaaaaaaa, here it is bbbbbbbbbbbb",
        "its precision is fp16, here it is int8",
        "built with TensorRT 10.3.0, here it is 10.16.1.11",
        "built for compute capability 9.0, here it is 8.7",
        "built on a GPU NVIDIA H100 80GB HBM3, here it is Orin",
        f"it takes {SHAPES} (batch x height x width), not 2x720x1280",
    )


@pytest.mark.parametrize(
    ("reach", "device", "serves"),
    [
        ("gpu", GpuInfo("NVIDIA H100 PCIe", (9, 0), ""), False),
        ("capability", GpuInfo("NVIDIA H100 PCIe", (9, 0), ""), True),
        ("capability", ORIN, False),
        ("ampere", ORIN, True),
        ("ampere", TURING, False),
    ],
)
def test_some_plans_reach_other_gpus(reach: Any, device: GpuInfo, serves: bool) -> None:
    assert (make(reach=reach).differences(wanted(device=device)) == ()) == serves


@pytest.mark.parametrize(
    ("running", "serves"),
    [
        ("10.3.0", True),
        ("10.16.1.11", True),
        ("10.13.3.9.post1", True),
        ("10.2.0", False),
        ("11.0.0.114", False),
        ("8.6.0", False),
    ],
)
def test_version_compatible_plans_run_on_later_releases_of_the_major_version(
    running: str, serves: bool
) -> None:
    record = make(version_compatible=True)
    assert (record.differences(wanted(tensorrt=running)) == ()) == serves


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((1, 64, 64), True),
        ((1, 1080, 1920), True),
        ((1, 63, 64), False),
        ((1, 1080, 1921), False),
        ((2, 720, 1280), False),
    ],
)
def test_shapes_take_what_lies_between(shape: Any, taken: bool) -> None:
    assert SHAPES.take(shape) == taken


def test_shapes_in_words() -> None:
    assert str(SHAPES) == "1x64x64 to 1x1080x1920, best at 1x720x1280"
    assert str(Shapes.exactly((1, 8, 9))) == "1x8x9"


@pytest.mark.parametrize(
    "sides", [((1, 9, 9), (1, 8, 8), (1, 9, 9)), ((0, 8, 8), (1, 8, 8), (1, 8, 8))]
)
def test_shapes_that_do_not_grow_are_refused(sides: Any) -> None:
    with pytest.raises(BundleError, match="must grow"):
        Shapes(*sides)


@pytest.mark.parametrize(
    "changes",
    [
        {"onnx": "b" * 64},
        {"precision": "int8"},
        {"tensorrt": "10.3.1"},
        {"device": dataclasses.replace(DEVICE, name="NVIDIA H100 PCIe")},
        {"device": dataclasses.replace(DEVICE, capability=(9, 1))},
        {"shapes": Shapes((1, 65, 64), *dataclasses.astuple(SHAPES)[1:])},
        {"reach": "ampere"},
        {"version_compatible": True},
        {"settings": {"level": "5"}},
    ],
)
def test_what_must_not_clash_has_another_name(changes: dict[str, Any]) -> None:
    assert make(**changes).name != make().name


def test_names_are_readable_and_fit_every_file_system() -> None:
    name = make().name
    assert name.startswith("fp16-1x1080x1920-NVIDIA-H100-80GB-HBM3-tensorrt-10.3.0-")
    assert re.fullmatch(r"[A-Za-z0-9.-]+", name)


def test_what_only_says_how_it_went_does_not_change_the_name() -> None:
    assert make(seconds=5.0, built="now", psnr=60.0, computed="mixed").name == make().name
