"""No code that a pickle names is run; harmless objects beside weights are replaced."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint import load, unpickle

WEIGHT = torch.arange(6.0).reshape(2, 3)
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Runs:
    """Runs a command when it is unpickled without restrictions."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Options:
    """A class of the training program."""


def save(content: object, path: Path, *, legacy: bool, **options: Any) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


def save_plain_pickle(content: object, path: Path, protocol: int) -> Path:
    """Write the zip file of torch.save around a pickle of any protocol."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(content, protocol))
        archive.writestr("a/version", "3")
    return path


@FORMATS
def test_a_pickle_that_would_run_code(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "ran"
    path = save({"w": WEIGHT, "x": Runs(marker)}, tmp_path / "evil.pth", legacy=legacy)
    with pytest.raises(CheckpointError, match=rf"{os.system.__module__}\.system") as caught:
        unpickle.load(path, legacy=legacy)
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    torch.load(path, weights_only=False)  # it does run without restrictions
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_imports_of_every_protocol_are_found(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    path = save_plain_pickle({"a": "b", "x": Runs(marker)}, tmp_path / "evil.pth", protocol)
    with pytest.raises(CheckpointError, match=rf"{os.system.__module__}\.system"):
        unpickle.load(path, legacy=False)
    assert not marker.exists()


def test_imports_from_the_memo_are_found(tmp_path: Path) -> None:
    """A pickle can refer to strings that it stored long before."""
    code = b"\x80\x04" + b"\x8c\x05posix\x940" + b"\x8c\x06system\x940" + b"h\x00h\x01\x93."
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", code)
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        unpickle.load(path, legacy=False)


@FORMATS
def test_pickled_modules_are_refused_with_a_remedy(tmp_path: Path, legacy: bool) -> None:
    path = save(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "net.pth", legacy=legacy)
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.conv\.Conv2d") as caught:
        unpickle.load(path, legacy=legacy)
    assert "torch.load('net.pth', map_location='cpu', weights_only=False)" in str(caught.value)


class _OldBackend:
    """A function of PyTorch 1.2 that modules of its time name, by which it can be found no more."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch.nn.backends.thnn"].find, ()


def _old_module() -> nn.Module:
    module = nn.Conv2d(3, 4, 3)
    module.__dict__["_backend"] = _OldBackend()
    return module


@pytest.mark.parametrize(
    "content",
    [
        lambda: nn.Conv2d(3, 4, 3),
        lambda: nn.DataParallel(nn.Conv2d(3, 4, 3)),
        lambda: {"epoch": 7, "options": Options(), "generator": nn.Conv2d(3, 4, 3)},
        _old_module,
    ],
)
def test_the_remedy_works_when_pasted(
    content: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = types.ModuleType("torch.nn.backends.thnn")
    backend.find = _find
    monkeypatch.setitem(sys.modules, "torch.nn.backends", types.ModuleType("torch.nn.backends"))
    monkeypatch.setitem(sys.modules, "torch.nn.backends.thnn", backend)
    monkeypatch.setattr(_find, "__module__", "torch.nn.backends.thnn")
    monkeypatch.setattr(_find, "__qualname__", "find")
    path = save(content(), tmp_path / "it's.pth", legacy=False)
    del sys.modules["torch.nn.backends.thnn"], sys.modules["torch.nn.backends"]
    with pytest.raises(CheckpointError) as caught:
        unpickle.load(path, legacy=False)
    monkeypatch.chdir(tmp_path)
    _, _, recipe = str(caught.value).partition("trained with: ")
    exec(recipe, {})
    found = load.read(tmp_path / "weights.pth")
    assert isinstance(found, load.Weights)
    assert {tuple(each.shape) for each in found.tensors.values()} == {(4, 3, 3, 3), (4,)}


def _find() -> str:
    return "backend"


def test_foreign_classes_are_named(tmp_path: Path) -> None:
    path = save({"w": WEIGHT, "config": Options()}, tmp_path / "net.pth", legacy=False)
    with pytest.raises(CheckpointError, match=r"\.Options\b"):
        unpickle.load(path, legacy=False)


@FORMATS
def test_objects_beside_weights(tmp_path: Path, legacy: bool) -> None:
    nested = collections.defaultdict(dict, weights={"w": WEIGHT})
    network = nn.Linear(2, 2)
    content = {
        "nested": nested,
        "list": collections.deque([{"w": WEIGHT}], maxlen=3),
        "psnr": np.float64(31.2),
        "loss": np.float32(0.1),
        "history": np.arange(5),
        "kind": np.dtype("float32"),
        "options": argparse.Namespace(lr=0.1, path=PurePosixPath("a/b")),
        "folder": Path("a"),
        "time": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        "optimizer": torch.optim.Adam(network.parameters()),
        "parameter": nn.Parameter(WEIGHT),
    }
    path = save(content, tmp_path / "net.pth", legacy=legacy)
    loaded: Any = unpickle.load(path, legacy=legacy)
    assert loaded.keys() == content.keys()
    assert torch.equal(loaded["nested"]["weights"]["w"], WEIGHT)
    assert torch.equal(loaded["list"][0]["w"], WEIGHT)
    assert torch.equal(loaded["parameter"], WEIGHT)
    # The others are not built: they are placeholders without content.
    for name in ("psnr", "history", "options", "folder", "time", "optimizer"):
        assert not vars(loaded[name])
        assert not isinstance(loaded[name], type(content[name]))


def test_placeholders_do_not_stay_registered(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    unpickle.load(save({"x": np.float64(1)}, tmp_path / "a.pth", legacy=False), legacy=False)
    assert set(torch.serialization.get_safe_globals()) == before


def test_another_protocol_is_explained(tmp_path: Path) -> None:
    path = save({"w": WEIGHT}, tmp_path / "net.pth", legacy=False, pickle_protocol=4)
    with pytest.raises(CheckpointError, match="pickle protocol"):
        unpickle.load(path, legacy=False)


def test_compressed_zip_files_are_read(tmp_path: Path) -> None:
    """A compressed copy of a checkpoint cannot be memory-mapped."""
    plain = save({"w": WEIGHT}, tmp_path / "net.pth", legacy=False)
    packed = tmp_path / "packed.pth"
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    loaded: Any = unpickle.load(packed, legacy=False)
    assert torch.equal(loaded["w"], WEIGHT)


@FORMATS
def test_damage_is_one_clear_line(tmp_path: Path, legacy: bool) -> None:
    """Damage anywhere results in weights or in a CheckpointError, never in another exception."""
    path = save({"w": WEIGHT, "n": [1, "two"]}, tmp_path / "net.pth", legacy=legacy)
    good = path.read_bytes()
    broken = tmp_path / "broken.pth"
    random = np.random.default_rng(0)
    refused = []
    for _ in range(150):
        bad = bytearray(good)
        for place in random.integers(0, len(bad), 8):
            bad[place] = random.integers(256)
        broken.write_bytes(bad)
        try:
            unpickle.load(broken, legacy=legacy)
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in text for text in refused)


def test_a_truncated_legacy_file(tmp_path: Path) -> None:
    path = save({"w": WEIGHT}, tmp_path / "net.pth", legacy=True)
    for length in (20, 100, path.stat().st_size - 4):
        cut = tmp_path / "cut.pth"
        cut.write_bytes(path.read_bytes()[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            unpickle.load(cut, legacy=True)
