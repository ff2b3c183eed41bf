"""Files are identified by content; unsupported ones are named."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save
from safetensors.torch import save_file

from sr_deploy.errors import CheckpointError, NotFoundError
from sr_export.checkpoint.file_kind import identify

STATE = {"conv.weight": torch.ones(4, 3, 3, 3)}


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path with a misleading suffix."""
    return tmp_path / "weights.txt"


def test_torch(path: Path) -> None:
    torch.save(STATE, path)
    assert identify(path) == "torch"


def test_legacy_torch(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert identify(path) == "torch-legacy"


def test_safetensors(path: Path) -> None:
    save_file(STATE, path)
    assert identify(path) == "safetensors"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Double(), torch.ones(1)), str(path))  # type: ignore[no-untyped-call]
    assert identify(path) == "torchscript"


def test_program(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"  # torch warns of any other suffix on writing
    torch.export.save(torch.export.export(Double(), (torch.ones(2),)), path)
    assert identify(path.rename(tmp_path / "weights.txt")) == "program"


def test_keras(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99)
    assert identify(path) == "keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "x")
    assert identify(path) == "keras"


def test_onnx(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    save(helper.make_model(graph), path)
    assert identify(path) == "onnx"


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "empty"),
        (b"hello there\nmore", "'hello there'"),
        (b"cos\nsystem\n(S'true'\ntR.", "text file"),
        (b"\n <!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf<html lang='en'>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"\0" * 5000, "zeros"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 99, "TensorFlow Lite"),
        (b"\x0a\x06\x0a\x04conv", r"TensorFlow graph.*tf2onnx.*--graphdef weights\.txt"),
        (b"\x08\x01\x12\x04\x0a\x02\x08\x01", "SavedModel.*tf2onnx"),
        (b"\x08\x04\x12\x02\x0a\x00\xa2\x1f\x02\x0a\x00", "Core ML"),
        (b"\x0a\x02ab\xa2\x06\x02\x0a\x00", "Caffe"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + b" " * 90 + b"\0\1IM", "scipy"),
        (b"7767517\n75 83\nInput data", r"ncnn.*\.pth"),
        (b"GIF89a\0\0\0\0", "sr-upscale takes images"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "sr-upscale takes images"),
        (b"\0\0\0\x18ftypmp42\0\0", "sr-upscale takes images and videos"),
        (b'{"format": "layers-model", "modelTopology": {}}', "tensorflowjs_converter.*weights"),
        (b'<?xml version="1.0"?>\n<net name="main_graph" version="11">', "OpenVINO"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "web server"),
        (b"\xe4\xbd" * 9 + b"\x12\x01", "unknown"),
        (b"\x1f\x8b\x08\0\0\0", "gzip"),
        (b"\x89PNG\r\n\x1a\n\0\0", "PNG image"),
        (b"ptrt\0\0\0\0\1\2", "TensorRT engine"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0.", "pickle"),
        (b"PK\x03\x04" + b"\1" * 100, "zip"),
        (b'\xff\x00\0\0\0\0\0\0{"a":', "safetensors"),
        (bytes(range(256)) * 4, "unknown"),
        (b"\x08\x01\x3a\xff\xff\x03abc", "unknown"),  # truncated ONNX
    ],
)
def test_unsupported_content_is_named(path: Path, content: bytes, fact: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=fact) as caught:
        identify(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (["net.pth", "readme.md"], r"net\.pth"),
        (["a.npy", "b.npy"], "NumPy archive"),
        (["p/.data/extern_modules", "p/code.py"], "torch.package"),
        (["notes.txt"], "zip archive"),
        ([], "zip archive"),
    ],
)
def test_unsupported_zip_archives_are_named(path: Path, names: list[str], fact: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    with pytest.raises(CheckpointError, match=fact):
        identify(path)


def test_the_way_out_of_a_numpy_archive_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, w=np.ones((2, 3)))
    with pytest.raises(CheckpointError) as caught:
        identify(path)
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("state dict: ")[2], {})
    assert identify(tmp_path / "weights.pth") == "torch"


@pytest.mark.parametrize(
    ("name", "beside", "fact"),
    [
        ("net.bin", "net.param", "ncnn"),
        ("net.bin", "net.xml", "OpenVINO"),
        ("model.ckpt.data-00000-of-00001", "model.ckpt.index", r"TensorFlow.*\.keras"),
        ("net.onnx", "net.txt", "ONNX file is truncated"),
    ],
)
def test_files_without_marks_are_named_by_those_beside(
    name: str, beside: str, fact: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(bytes(range(255, 0, -1)))
    (tmp_path / beside).touch()
    with pytest.raises(CheckpointError, match=fact):
        identify(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (["Manifest.json", "Data"], "Core ML"),
        (["checkpoint", "model.ckpt.index", "model.ckpt.meta"], r"TensorFlow.*\.keras"),
    ],
)
def test_folders_of_other_programs(names: list[str], fact: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=fact):
        identify(tmp_path)


def test_truncated_checkpoint(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        identify(path)


def test_zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="100 times"):
        identify(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.pth"):
        identify(tmp_path / "nothing.pth")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="folder"):
        identify(tmp_path)
    (tmp_path / "net_g.pth").touch()
    with pytest.raises(CheckpointError, match=r"net_g\.pth"):
        identify(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(CheckpointError, match="SavedModel"):
        identify(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe"):
        identify(tmp_path / "pipe")
