"""A network of the user's own, as a function in a file or as a scripted module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from architectures.translators import UNet
from sr_deploy.errors import CheckpointError, NotFoundError
from sr_export.models.custom import from_file, from_module
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


def _weights() -> dict[str, torch.Tensor]:
    return {"0.weight": torch.rand(9, 1, 3, 3), "0.bias": torch.rand(9)}


def test_channels_and_scale_are_found_out(file: Path) -> None:
    weights = _weights()
    prefixed = {f"net.{name}": tensor for name, tensor in weights.items()}
    found = from_file(file, "build", [prefixed, weights])
    assert (found.architecture, found.scale, found.channels) == ("build", 3, 1)
    assert torch.equal(found.module.state_dict()["0.bias"], weights["0.bias"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", r"broken\(\) failed: RuntimeError: out of ideas"),
        ("text", r"text\(\) gave a str, not a module"),
        ("missing", r"missing\(\) failed: AttributeError"),
    ],
)
def test_what_gives_no_module_says_so(file: Path, function: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_file(file, function, [_weights()])


def test_arguments_are_passed_on(file: Path) -> None:
    weights = nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.Conv2d(7, 3, 3)).state_dict()
    given = {"features": "7", "kind": "plain", "bias": "False"}
    found = from_file(file, "Net", [weights], given)
    assert (found.architecture, found.scale, found.channels) == ("Net", 1, 3)
    with pytest.raises(CheckpointError, match=r"Net\(\) failed: TypeError: .*'features'"):
        from_file(file, "Net", [weights])
    with pytest.raises(CheckpointError, match=r"Net\(features=8\) of .*of another shape"):
        from_file(file, "Net", [weights], {"features": "8"})


def test_weights_that_do_not_fit_are_named(file: Path) -> None:
    weights = _weights() | {"1.extra": torch.rand(2)}
    del weights["0.bias"]
    with pytest.raises(CheckpointError, match=r"missing \['0\.bias'\].*not known .*\['1\.extra'\]"):
        from_file(file, "build", [weights])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.py: no such file"):
        from_file(tmp_path / "none.py", "build", [_weights()])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # people still have them
def test_scripted_modules() -> None:
    found = from_module(torch.jit.script(Convolutions(channels=1, scale=4)), "TorchScript")
    assert (found.scale, found.channels, found.grid, found.fixed_size) == (4, 1, 1, None)


def test_windows_give_the_grid() -> None:
    assert from_module(Windowed(), "mine").grid == 4


@pytest.mark.parametrize("levels", [5, 7])
def test_deep_unets_take_any_size_on_their_grid(levels: int) -> None:
    found = from_module(UNet(levels), "mine")
    assert (found.grid, found.fixed_size, found.channels) == (2**levels, None, 3)


def test_what_is_no_image_network_is_refused() -> None:
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    with pytest.raises(CheckpointError, match="not a network from image to image"):
        from_module(classifier, "mine")
