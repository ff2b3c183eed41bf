from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sr_deploy import selection
from sr_deploy.bundle import Bundle
from sr_deploy.errors import BundleError, InvalidInputError
from sr_deploy.manifest import Variant
from tests.runtime.manifests import make

EVERYTHING = ("fp32", "fp16", "bf16", "int8")


def bundle(*precisions: str) -> Bundle:
    variants = [Variant(f"{each}.onnx", "0" * 64, each, "rgb24") for each in precisions]
    return Bundle(Path("net.srd"), make(variants=tuple(variants)))


@pytest.mark.parametrize(
    ("channels", "itemsize", "expected"),
    [(1, 1, "gray8"), (1, 2, "gray16"), (3, 1, "rgb24"), (3, 2, "rgb48")],
)
def test_formats_follow_channels_and_bytes(channels: int, itemsize: int, expected: str) -> None:
    assert selection.pixel_format(channels, itemsize) == expected


@pytest.mark.parametrize(
    ("held", "computed", "wanted", "file", "precision"),
    [
        (("fp32", "fp16", "int8"), EVERYTHING, "auto", "fp32", "fp32"),
        (("int8", "fp16"), EVERYTHING, "auto", "fp16", "fp16"),
        (("int8", "fp16"), ("int8",), "auto", "int8", "int8"),
        (("fp32", "int8"), EVERYTHING, "int8", "int8", "int8"),
        (("fp32",), EVERYTHING, "bf16", "fp32", "bf16"),
        (("fp32", "bf16"), EVERYTHING, "bf16", "bf16", "bf16"),
    ],
)
def test_choices(
    held: tuple[str, ...], computed: Any, wanted: str, file: str, precision: str
) -> None:
    found = selection.choose(bundle(*held), "rgb24", wanted, computed)
    assert (found.variant.file, found.precision) == (f"{file}.onnx", precision)


@pytest.mark.parametrize(
    ("held", "computed", "wanted", "there"),
    [
        (("fp32",), EVERYTHING, "int8", "there is fp32, bf16"),
        (("fp32", "fp16"), ("fp32", "fp16"), "bf16", "there is fp32, fp16"),
        (("fp32", "int8"), ("fp32",), "int8", "there is fp32"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(
    held: tuple[str, ...], computed: Any, wanted: str, there: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"{wanted} cannot be had.*{there}$"):
        selection.choose(bundle(*held), "rgb24", wanted, computed)


def test_a_bundle_with_nothing_for_the_frames_says_what_it_has() -> None:
    with pytest.raises(BundleError, match=r"rgb48 \(it has rgb24\)"):
        selection.choose(bundle("fp32"), "rgb48", "auto", EVERYTHING)
    with pytest.raises(BundleError, match="no variants"):
        selection.choose(bundle(), "rgb24", "auto", EVERYTHING)
