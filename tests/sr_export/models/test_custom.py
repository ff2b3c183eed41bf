"""The user's own network, from a Python file or as a module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from architectures.translators import Pix2PixUNet
from sr_deploy.errors import CheckpointError, NotFoundError
from sr_export.models.custom import load_module
from sr_export.models.network import Network, from_module
from tests.sr_export.networks import Convolutions, Windowed

_FILE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 9, 3, padding=1), nn.PixelShuffle(3))

class Net(nn.Sequential):
    def __init__(self, features, kind="plain", bias=True):
        assert kind == "plain", kind
        super().__init__(
            nn.Conv2d(3, features, 3, padding=1, bias=bias), nn.Conv2d(features, 3, 3, padding=1)
        )

def broken():
    raise RuntimeError("out of ideas")

def text():
    return "a network"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(_FILE)
    return path


def _from_file(
    file: Path, name: str, candidates: list[dict[str, torch.Tensor]], *arguments: str
) -> Network:
    found, module = load_module((f"{file}:{name}", *arguments), candidates)
    return from_module(module, found)


def _weights() -> dict[str, torch.Tensor]:
    return {"0.weight": torch.rand(9, 1, 3, 3), "0.bias": torch.rand(9)}


def test_channels_and_scale_are_measured(file: Path) -> None:
    weights = _weights()
    prefixed = {f"net.{name}": tensor for name, tensor in weights.items()}
    found = _from_file(file, "build", [prefixed, weights])
    assert (found.architecture, found.scale, found.channels) == ("build", 3, 1)
    assert torch.equal(found.module.state_dict()["0.bias"], weights["0.bias"])


@pytest.mark.parametrize(
    ("function", "fact"),
    [
        ("broken", r"broken\(\) .*RuntimeError: out of ideas"),
        ("text", r"text\(\) .*\bstr\b"),
        ("missing", r"missing\(\) .*AttributeError"),
    ],
)
def test_functions_that_return_no_module_are_refused(file: Path, function: str, fact: str) -> None:
    with pytest.raises(CheckpointError, match=fact):
        _from_file(file, function, [_weights()])


def test_arguments_are_passed_on(file: Path) -> None:
    weights = nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.Conv2d(7, 3, 3)).state_dict()
    found = _from_file(file, "Net", [weights], "features=7", "kind=plain", "bias=False")
    assert (found.architecture, found.scale, found.channels) == ("Net", 1, 3)
    with pytest.raises(CheckpointError, match=r"Net\(\) .*TypeError: .*'features'"):
        _from_file(file, "Net", [weights])
    with pytest.raises(CheckpointError, match=r"Net\(features=8\) .*0\.weight"):
        _from_file(file, "Net", [weights], "features=8")


def test_weights_that_do_not_fit_are_named(file: Path) -> None:
    weights = _weights() | {"1.extra": torch.rand(2)}
    del weights["0.bias"]
    with pytest.raises(CheckpointError, match=r"\['0\.bias'\].*\['1\.extra'\]"):
        _from_file(file, "build", [weights])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.py"):
        _from_file(tmp_path / "none.py", "build", [_weights()])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # people still have them
def test_scripted_modules() -> None:
    found = from_module(torch.jit.script(Convolutions(channels=1, scale=4)), "TorchScript")
    assert (found.scale, found.channels, found.grid, found.fixed_size) == (4, 1, 1, None)


def test_windows_determine_the_grid() -> None:
    assert from_module(Windowed(), "mine").grid == 4


@pytest.mark.parametrize("levels", [5, 7])
def test_deep_unets_accept_any_size_on_their_grid(levels: int) -> None:
    found = from_module(Pix2PixUNet(levels), "mine")
    assert (found.grid, found.fixed_size, found.channels) == (2**levels, None, 3)


def test_classifiers_are_refused() -> None:
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    with pytest.raises(CheckpointError, match="--latent"):
        from_module(classifier, "mine")
