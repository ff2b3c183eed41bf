"""The user's own network, from a Python file or as a module."""

from __future__ import annotations

import sys
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
        ("missing", r"'missing'.*Net"),
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


_NETWORK = """
class Net(nn.Module):
    def __init__(self, **unused):
        super().__init__()
        self.body = {layer}

    def forward(self, image{parameters}):
        image = self.body(image)
        return {result}
"""


def _network(
    path: Path, *, layer: str = "nn.Conv2d(3, 3, 1)", parameters: str = "", result: str = "image"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    network = _NETWORK.format(layer=layer, parameters=parameters, result=result)
    path.write_text("import torch\nfrom torch import nn\n" + network)
    return path


def _small() -> dict[str, torch.Tensor]:
    return {"body.weight": torch.rand(3, 3, 1, 1), "body.bias": torch.rand(3)}


@pytest.mark.parametrize(
    ("folders", "line"),
    [
        ((), "from layers_beside import make"),
        ((), "from .layers_beside import make"),
        (("inner",), "from ..layers_beside import make"),
        (("inner",), "from layers_beside import make"),
    ],
)
def test_files_beside_it_and_its_package_are_importable(
    folders: tuple[str, ...],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.path", sys.path[:])
    before = set(sys.modules)
    root = tmp_path / f"package{abs(hash((folders, line)))}"
    path = _network(root.joinpath(*folders, "network.py"), layer="make()")
    path.write_text(f"{line}\n{path.read_text()}")
    (root / "layers_beside.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Conv2d(3, 3, 1)\n"
    )
    # what a training program imports there may be missing here
    (root / "__init__.py").write_text("import no_such_library_of_the_trainer")
    found = _from_file(path, "Net", [_small()])
    assert (found.scale, found.channels) == (1, 3)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_names_are_matched_without_regard_to_case_and_suggested(file: Path) -> None:
    weights = nn.Sequential(nn.Conv2d(3, 7, 3), nn.Conv2d(7, 3, 3)).state_dict()
    assert _from_file(file, "NET", [weights], "features=7").architecture == "Net"
    with pytest.raises(CheckpointError, match=r"'Nett'.*mean Net\?.*has Net"):
        _from_file(file, "Nett", [weights])


def test_arguments_of_forward(tmp_path: Path) -> None:
    result = "nn.functional.interpolate(image, scale_factor=scale)"
    path = _network(tmp_path / "scaled.py", parameters=", scale", result=result)
    assert _from_file(path, "Net", [_small()], "scale=3").scale == 3
    with pytest.raises(CheckpointError, match=r"forward\(\) needs scale.*scale=VALUE"):
        _from_file(path, "Net", [_small()])


@pytest.mark.parametrize(
    ("result", "how"),
    [
        ("(image.mean(), image)", "output 1 of 0, 1"),
        ("{'features': image[:, :2], 'sr': image}", "output sr of features, sr"),
    ],
)
def test_the_output_that_is_an_image(result: str, how: str, tmp_path: Path) -> None:
    found = _from_file(_network(tmp_path / "two.py", result=result), "Net", [_small()])
    assert (found.scale, found.how) == (1, how)
    assert found.module(torch.rand(1, 3, 4, 5)).shape == (1, 3, 4, 5)


def test_programs_that_need_tensorflow_get_advice(tmp_path: Path) -> None:
    path = tmp_path / "trainer.py"
    path.write_text("from tensorflow_that_is_missing.keras import layers")
    with pytest.raises(CheckpointError, match=r"keras in place of tensorflow\.keras"):
        _from_file(path, "build", [_small()])


def test_networks_without_padding_get_a_border(tmp_path: Path) -> None:
    layer = "nn.Sequential(nn.Conv2d(3, 12, 5), nn.PixelShuffle(2))"
    path = _network(tmp_path / "valid.py", layer=layer)
    inner = nn.Conv2d(3, 12, 5)
    weights = {f"body.0.{name}": each.detach() for name, each in inner.state_dict().items()}
    found = _from_file(path, "Net", [weights])
    assert (found.scale, found.channels, found.grid) == (2, 3, 1)
    image = torch.rand(1, 3, 9, 14)
    with torch.inference_mode():
        bordered = nn.functional.pad(image, [2] * 4, mode="replicate")
        expected = nn.functional.pixel_shuffle(inner(bordered), 2)
        torch.testing.assert_close(found.module(image), expected)


def test_one_of_several_images(tmp_path: Path) -> None:
    path = _network(
        tmp_path / "pyramid.py",
        result="[image.repeat(1, 1, 2, 2), image.repeat(1, 1, 4, 4)]",
    )
    weights = _small()
    name, module = load_module((f"{path}:Net",), [weights])
    with pytest.raises(CheckpointError, match=r"\(0, 1\).*--network-output.*1x3x128x128"):
        from_module(module, name)
    with pytest.raises(CheckpointError, match="'sr'"):
        from_module(module, name, output="sr")
    assert from_module(module, name, output="1").scale == 4
