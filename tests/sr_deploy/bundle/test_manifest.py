"""Manifests are read strictly; errors name the field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle import manifest
from sr_deploy.errors import BundleError
from tests.sr_deploy.manifests import make


def _read(tmp_path: Path, text: str) -> manifest.Manifest:
    path = tmp_path / manifest.NAME
    path.write_text(text, encoding="utf-8")
    return manifest.read(path)


def _changed(where: str, value: Any) -> str:
    """Return the text of a manifest with one value changed; None removes it."""
    whole = json.loads(make().to_json())
    *path, last = where.split(".")
    part = whole
    for name in path:
        part = part[int(name)] if isinstance(part, list) else part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return json.dumps(whole)


def test_a_manifest_round_trips(tmp_path: Path) -> None:
    assert _read(tmp_path, make().to_json()) == make()


def test_manifests_with_and_without_yuv_variants_are_read(tmp_path: Path) -> None:
    """Both have the same schema."""
    before = make()
    video = dataclasses.replace(before.variants[0], file="fp32-nv12.onnx", pixel_format="nv12")
    for written in (before, make(variants=(*before.variants, video))):
        assert written.schema == 2
        assert _read(tmp_path, written.to_json()) == written


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("model.scale", "two", r"model\.scale.*\bint\b.*'two'"),
        ("model.scale", True, r"model\.scale.*\bint\b.*True"),
        ("model.scale", 0, r"model.*scale.*\b1\b.*\b64\b.*\b0\b"),
        ("model.scale", 10**9, r"scale.*\b1\b.*\b64\b"),
        ("model.bytes_per_pixel", 0, r"bytes_per_pixel.*\b1\b"),
        ("model.channels", 4, r"model\.channels.*1, 3.*\b4\b"),
        ("model.fixed_size", [64], r"model\.fixed_size.*\b2\b.*\[64\]"),
        ("model.fixed_size", [0, 64], r"fixed_size.*\b1\b"),
        ("model.halo", None, r"model.*'halo'"),
        ("model.colour", "red", r"model.*'colour'"),
        ("variants.0.precision", "fp7", r"variants\[0\]\.precision.*fp32"),
        ("variants.0.pixel_format", "nv21", r"rgb24, .*, nv12, p010.*'nv21'"),
        ("variants", {}, r"variants.*list"),
        ("checks.0.shape", [1, 2, 3], r"checks\[0\]\.shape.*\b4\b"),
        ("tools", [], r"tools.*object"),
        ("tools.torch", 2, r"tools\.torch.*\bstr\b.*\b2\b"),
        ("onnx", "model.onnx", r"onnx.*object.*'model.onnx'"),
        ("schema", 99, r"\b99\b.*\b2\b"),
    ],
)
def test_invalid_fields_are_named(tmp_path: Path, where: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        _read(tmp_path, _changed(where, value))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000])
def test_invalid_json_is_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(BundleError, match=r"JSON|None"):
        _read(tmp_path, text)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="1024 KiB"):
        _read(tmp_path, " " * (1 << 20) + "{}")
