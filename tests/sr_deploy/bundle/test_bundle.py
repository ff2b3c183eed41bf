"""Everything in a bundle that can be checked is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_deploy.bundle import manifest
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Variant
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import sha256_of
from tests.sr_deploy.manifests import make


def _bundle(folder: Path, file: str = "fp32.onnx", content: bytes = b"graph") -> Bundle:
    (folder / "fp32.onnx").write_bytes(content)
    variant = Variant(file, sha256_of(folder / "fp32.onnx"), "fp32", "rgb24")
    (folder / manifest.NAME).write_text(make(variants=(variant,)).to_json())
    return Bundle.open(folder)


def test_variants_are_found_by_precision_and_format(tmp_path: Path) -> None:
    opened = _bundle(tmp_path)
    found = opened.variant("fp32", "rgb24")
    assert found is not None
    assert opened.verified(found) == tmp_path / "fp32.onnx"
    assert opened.variant("int8", "rgb24") is None
    assert opened.variant("fp32", "gray8") is None


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    opened = _bundle(tmp_path)
    (tmp_path / "fp32.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="SHA-256"):
        opened.verified(opened.manifest.variants[0])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    opened = _bundle(tmp_path)
    (tmp_path / "fp32.onnx").unlink()
    with pytest.raises(NotFoundError, match=r"'fp32\.onnx'"):
        opened.verified(opened.manifest.variants[0])


def test_a_name_that_leads_out_of_the_bundle_is_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "x.srd"
    folder.mkdir()
    opened = _bundle(folder, file="../fp32.onnx")
    (tmp_path / "fp32.onnx").write_bytes(b"graph")
    with pytest.raises(BundleError, match=r"\.\./fp32\.onnx"):
        opened.verified(opened.manifest.variants[0])


def test_a_missing_folder_or_another_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.srd"):
        Bundle.open(tmp_path / "none.srd")
    with pytest.raises(BundleError, match="sr-export CHECKPOINT"):
        Bundle.open(tmp_path)
