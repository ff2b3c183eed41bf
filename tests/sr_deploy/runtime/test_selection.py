from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Variant
from sr_deploy.errors import BundleError, InvalidInputError
from sr_deploy.runtime import selection
from tests.sr_deploy.manifests import make

EVERYTHING = ("int8", "bf16", "fp32", "fp16")  # fastest first


def bundle(*precisions: str, deep: tuple[str, ...] = (), **changes: Any) -> Bundle:
    variants = [Variant(f"{each}.onnx", "0" * 64, each, "rgb24") for each in precisions]
    variants += [Variant(f"{each}-deep.onnx", "0" * 64, each, "rgb48") for each in deep]
    return Bundle(Path("net.srd"), make(variants=tuple(variants), **changes))


@pytest.mark.parametrize(
    ("channels", "itemsize", "expected"),
    [(1, 1, "gray8"), (1, 2, "gray16"), (3, 1, "rgb24"), (3, 2, "rgb48")],
)
def test_formats_follow_channels_and_bytes(channels: int, itemsize: int, expected: str) -> None:
    assert selection.pixel_format(channels, itemsize) == expected


@pytest.mark.parametrize(
    ("held", "computed", "wanted", "found"),
    [
        (("fp32", "fp16", "bf16", "int8"), EVERYTHING, "auto", "int8"),
        (("fp32", "fp16", "bf16"), EVERYTHING, "auto", "bf16"),
        (("fp32", "fp16"), EVERYTHING, "auto", "fp32"),
        (("fp32", "int8"), ("fp32", "int8"), "auto", "fp32"),
        (("int8", "fp16"), ("int8",), "auto", "int8"),
        (("fp32", "int8"), EVERYTHING, "fp32", "fp32"),
        (("fp32", "int8"), ("fp32", "int8"), "int8", "int8"),
    ],
)
def test_auto_is_the_fastest_that_the_bundle_has(
    held: tuple[str, ...], computed: Any, wanted: str, found: str
) -> None:
    assert selection.choices(bundle(*held), "rgb24", wanted, computed)[0].precision == found


def test_auto_is_all_that_the_device_computes_and_a_named_one_is_alone() -> None:
    held = bundle("fp32", "fp16", "int8")
    named = [each.precision for each in selection.choices(held, "rgb24", "fp16", EVERYTHING)]
    assert named == ["fp16"]
    found = selection.choices(held, "rgb24", "auto", ("int8", "bf16", "fp32"))
    assert [each.precision for each in found] == ["int8", "fp32"]


def test_auto_skips_variants_that_are_off_on_the_backend() -> None:
    variants = (
        Variant("fp32.onnx", "0" * 64, "fp32", "rgb24"),
        Variant("int8.onnx", "0" * 64, "int8", "rgb24", unfit={"openvino": "29.5 dB"}),
    )
    held = Bundle(Path("net.srd"), make(variants=variants))

    def chosen(wanted: str, backend: str) -> str:
        return selection.choices(held, "rgb24", wanted, EVERYTHING, backend)[0].precision

    assert chosen("auto", "openvino") == "fp32"
    assert chosen("auto", "tensorrt") == "int8"
    assert chosen("int8", "openvino") == "int8"  # the user's own word


@pytest.mark.parametrize(
    ("deep", "wanted", "found"),
    [
        (("fp32",), "auto", "fp32"),
        (("fp32",), "int8", "fp32"),
        (("bf16", "fp32"), "auto", "bf16"),
        (("bf16", "fp32"), "int8", "fp32"),
        (("bf16", "fp32"), "bf16", "bf16"),
    ],
)
def test_a_precision_named_for_8_bits_leaves_16_bits_the_most_exact(
    deep: tuple[str, ...], wanted: str, found: str
) -> None:
    mixed = bundle("fp32", "int8", deep=deep)
    assert selection.choices(mixed, "rgb48", wanted, EVERYTHING)[0].precision == found


@pytest.mark.parametrize(
    ("held", "computed", "wanted", "there"),
    [
        (("fp32",), EVERYTHING, "int8", "fp32"),
        (("fp32",), EVERYTHING, "bf16", "fp32"),
        (("fp32", "bf16"), ("fp32", "fp16"), "bf16", "fp32"),
        (("fp32", "fp16", "int8"), ("fp32", "fp16"), "int8", "fp32, fp16"),
    ],
)
def test_an_unavailable_precision_is_rejected_with_the_available_ones(
    held: tuple[str, ...], computed: Any, wanted: str, there: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"{wanted}.*: {there}$"):
        selection.choices(bundle(*held), "rgb24", wanted, computed)


def test_the_error_has_the_exporters_reason() -> None:
    whole = bundle("fp32", refused={"int8": "41 dB, where 45 are wanted"})
    with pytest.raises(InvalidInputError, match=r"fp32.*41 dB"):
        selection.choices(whole, "rgb24", "int8", EVERYTHING)


def test_an_unknown_precision_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"'fp8'.*auto.*fp32"):
        selection.choices(bundle("fp32"), "rgb24", "fp8", EVERYTHING)


def test_a_missing_pixel_format_is_rejected_with_the_available_ones() -> None:
    with pytest.raises(BundleError, match=r"rgb48.*rgb24"):
        selection.choices(bundle("fp32"), "rgb48", "auto", EVERYTHING)
    with pytest.raises(BundleError, match="no variants"):
        selection.choices(bundle(), "rgb24", "auto", EVERYTHING)
