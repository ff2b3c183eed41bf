"""Plain networks are recognized by the order and shapes of their weights, whatever their names.

The reference networks are independent implementations: the weights move from one to the other, and
the outputs are compared.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.models.layer_chain import MismatchError
from sr_export.models.network import Network
from sr_export.models.plain_recognition import find
from sr_export.models.ranges import Ranges
from sr_export.models.recognize import recognize
from sr_export.models.registry import registry
from tests.sr_export.layouts import (
    Edsr,
    MsrResNet,
    NestedBlocks,
    NormalizedUpsampling,
    NumberedBlocks,
    Trunk,
)

Make = Callable[[], nn.Module]
Weights = dict[str, Tensor]
BYTES = Ranges(input=(0, 255), output=(0, 255))


def _trained(module: nn.Module) -> nn.Module:
    """Give a module the statistics and slopes of a trained one."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.1, 0.4)
    return module.eval()


def _same(found: Network, reference: nn.Module) -> None:
    side = 8 * found.grid
    white = 255 if found.ranges == BYTES else 1
    image = torch.rand(1, found.channels, side, side + found.grid) * white
    with torch.inference_mode():
        expected = reference(image)
        # The same operations, some of them in another order: float32 rounding at white's height.
        torch.testing.assert_close(found.module(image), expected, atol=1e-5 * white, rtol=1e-5)


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    """Use one thread, since such small networks are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("make", "spec", "scale"),
    [
        (NumberedBlocks, "SRResNet final=tanh", 4),
        (Trunk, "SRResNet", 2),
        (NormalizedUpsampling, "SRResNet final=tanh", 4),
        (NestedBlocks, "SRResNet final=tanh", 2),
        (Edsr, "EDSR", 4),
        pytest.param(MsrResNet, "MSRResNet", 4, marks=pytest.mark.slow),
    ],
)
def test_residual_networks_of_public_repositories(make: Make, spec: str, scale: int) -> None:
    torch.manual_seed(0)
    reference = _trained(make())
    name = spec.split()[0]
    assert recognize([reference.state_dict()]).architecture == name
    found = recognize([reference.state_dict()], spec)
    assert (found.scale, found.channels) == (scale, 3)
    _same(found, reference)


@pytest.mark.slow
def test_edsr_subtracts_its_mean_also_if_the_weights_lack_it() -> None:
    """In BasicSR, the mean is a constant of the program."""
    torch.manual_seed(0)
    reference = _trained(Edsr())
    weights = {k: v for k, v in reference.state_dict().items() if "_mean" not in k}
    found = recognize([weights])
    assert (found.architecture, found.ranges) == ("EDSR", BYTES)
    _same(found, reference)


def _conv(inputs: int, outputs: int, size: int = 3, **more: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **more)


def _espcn(channels: int, scale: int, act: Make) -> nn.Module:
    last = _conv(4, channels * scale**2)
    shuffle = nn.PixelShuffle(scale)
    return nn.Sequential(_conv(channels, 8, 5), act(), _conv(8, 4), act(), last, shuffle)


def _fsrcnn(channels: int, scale: int, padding: int) -> nn.Module:
    rest = 2 * padding - 9 + scale
    return nn.Sequential(
        *(_conv(channels, 8, 5), nn.PReLU(8), _conv(8, 4, 1), nn.PReLU(4)),
        *(_conv(4, 4), nn.PReLU(4), _conv(4, 4), nn.PReLU(4), _conv(4, 8, 1), nn.PReLU(8)),
        nn.ConvTranspose2d(8, channels, 9, scale, padding, output_padding=rest),
    )


def _transposed(channels: int, doublings: int, slope: float = 0.2) -> nn.Module:
    parts: list[nn.Module] = []
    widths = [channels, 4, 8, 16]
    for one, other in pairwise(widths):
        parts += [_conv(one, other), nn.BatchNorm2d(other), nn.LeakyReLU(slope)]
    for i in range(doublings):
        one, other = 16 >> i, 8 >> i
        parts.append(nn.ConvTranspose2d(one, other, 4, 2, 1))
        parts += [nn.BatchNorm2d(other), nn.LeakyReLU(slope)]
    return nn.Sequential(*parts, _conv(16 >> doublings, channels), nn.Tanh())


class _Autoencoder(nn.Module):
    """Strided, then transposed convolutions: scale 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([_conv(channels, 4), _conv(4, 8, stride=2)])
        self.middle = _conv(8, 8)
        self.decoder = nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1)
        self.last = _conv(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        for part in (*self.encoder, self.middle, self.decoder):
            x = F.relu(part(x))
        return self.last(x)


def _nearest(channels: int, factors: list[int]) -> nn.Module:
    parts: list[nn.Module] = [_conv(channels, 8), nn.ReLU(), _conv(8, 8), nn.ReLU()]
    for factor in factors:
        parts += [nn.Upsample(scale_factor=factor, mode="nearest"), _conv(8, 8), nn.ReLU()]
    return nn.Sequential(*parts, _conv(8, channels))


class _Residual(nn.Module):
    """A denoiser: the output of the convolutions is subtracted from the image."""

    def __init__(self, channels: int, normalized: bool) -> None:
        super().__init__()
        self.first = _conv(channels, 8)
        self.convolutions = nn.ModuleList(_conv(8, 8, bias=not normalized) for _ in range(3))
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(8) if normalized else nn.Identity() for _ in range(3)
        )
        self.last = _conv(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = F.relu(norm(convolution(y)))
        return x - self.last(y)

    def ordered(self) -> Weights:
        """Return the weights in the order of the layers."""
        weights = self.state_dict()
        parts = [f"{kind}.{i}." for i in range(3) for kind in ("convolutions", "norms")]
        return {
            key: weights[key]
            for part in ("first.", *parts, "last.")
            for key in weights
            if key.startswith(part)
        }


class _Blocks(nn.Module):
    """Residual blocks, then nearest-neighbor upsampling before each convolution, or none."""

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        self.entry = _conv(channels, 8)
        self.trunk = nn.ModuleList(
            nn.ModuleDict({"one": _conv(8, 8), "act": nn.PReLU(), "two": _conv(8, 8)})
            for _ in range(2)
        )
        self.closing = _conv(8, 8)
        self.enlarging = nn.ModuleList(_conv(8, 8) for _ in range(doublings))
        self.exit = _conv(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        first = y = F.relu(self.entry(x))
        for block in self.trunk:
            y = y + block["two"](block["act"](block["one"](y)))
        y = first + self.closing(y)
        for convolution in self.enlarging:
            y = F.relu(convolution(F.interpolate(y, scale_factor=2, mode="nearest")))
        return self.exit(y)


FAMILIES: dict[str, tuple[Callable[[int], nn.Module], str, int]] = {
    "ESPCN x2": (lambda c: _espcn(c, 2, nn.Tanh), "ESPCN", 2),
    "ESPCN x3 relu": (lambda c: _espcn(c, 3, nn.ReLU), "ESPCN activation=relu", 3),
    "ESPCN x8 prelu": (lambda c: _espcn(c, 8, nn.PReLU), "ESPCN", 8),
    "FSRCNN x2": (lambda c: _fsrcnn(c, 2, 4), "FSRCNN scale=2", 2),
    "FSRCNN x3": (lambda c: _fsrcnn(c, 3, 4), "FSRCNN scale=3", 3),
    "FSRCNN x3, earlier": (lambda c: _fsrcnn(c, 3, 3), "FSRCNN scale=3 output_padding=false", 3),
    "FSRCNN x4": (lambda c: _fsrcnn(c, 4, 4), "FSRCNN scale=4", 4),
    "transposed x2": (lambda c: _transposed(c, 1), "ConvTranspose scale=2 strided=false", 2),
    "transposed x4": (
        lambda c: _transposed(c, 2, 0.05),
        "ConvTranspose scale=4 activation=leaky0.05 strided=false",
        4,
    ),
    "autoencoder": (
        _Autoencoder,
        "ConvTranspose scale=1 strided=true activation=relu final=none",
        1,
    ),
    "nearest x2": (lambda c: _nearest(c, [2]), "NearestConv scale=2", 2),
    "nearest x3": (lambda c: _nearest(c, [3]), "NearestConv scale=3", 3),
    "nearest x8": (lambda c: _nearest(c, [2, 2, 2]), "NearestConv scale=8", 8),
    "blocks x4": (
        lambda c: _Blocks(c, 2),
        "EDSR scale=4 activation=relu head_activation=true tail_activation=true",
        4,
    ),
    "blocks x1": (lambda c: _Blocks(c, 0), "EDSR scale=1 activation=relu head_activation=true", 1),
    "SRCNN": (
        lambda c: nn.Sequential(
            _conv(c, 8, 9), nn.ReLU(), _conv(8, 4, 1), nn.ReLU(), _conv(4, c, 5)
        ),
        "ConvRestorer residual=none",
        1,
    ),
}


def _numbered(weights: Weights) -> Weights:
    """Name layers as in one nn.Sequential."""
    return _renamed(weights, lambda number, _: f"{2 * number}")


def _worded(weights: Weights) -> Weights:
    """Name layers as attributes of one module."""
    return _renamed(weights, lambda number, _: f"stage_{chr(ord('z') - number)}")


def _wrapped(weights: Weights) -> Weights:
    """Name layers as in nested modules."""
    return _renamed(weights, lambda _, name: f"net.part.{name}.inner")


def _renamed(weights: Weights, name: Callable[[int, str], str]) -> Weights:
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in weights))
    return {
        f"{name(layers.index(layer), layer)}.{part}": tensor
        for (layer, _, part), tensor in ((k.rpartition("."), t) for k, t in weights.items())
    }


@pytest.mark.parametrize("rename", [dict, _numbered, _worded, _wrapped])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_with_any_names(
    family: str, channels: int, rename: Callable[[Weights], Weights]
) -> None:
    torch.manual_seed(0)
    make, spec, scale = FAMILIES[family]
    reference = _trained(make(channels))
    weights = rename(reference.state_dict())
    if "full_size" not in spec and "nearest" in family and rename is not dict:
        spec += " full_size=2"  # only original layer numbers show it
    found = recognize([weights], f"{spec} padding=zeros")
    assert (found.architecture.split()[0], found.scale) == (spec.split()[0], scale)
    assert found.channels == channels
    _same(found, reference)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalized", [False, True])
def test_denoisers(channels: int, normalized: bool) -> None:
    torch.manual_seed(0)
    reference = _trained(_Residual(channels, normalized))
    found = recognize([reference.ordered()], "ConvRestorer residual=subtract")
    _same(found, reference)


def test_padding_and_slope_can_be_given() -> None:
    torch.manual_seed(0)
    parts = [_conv(3, 8), _conv(8, 8), _conv(8, 12)]
    for part in parts:
        part.padding_mode, part._reversed_padding_repeated_twice = "reflect", [1, 1, 1, 1]
    reference = nn.Sequential(
        *(parts[0], nn.LeakyReLU(0.3), parts[1], nn.LeakyReLU(0.3), parts[2], nn.PixelShuffle(2))
    )
    found = recognize([reference.state_dict()], "ESPCN activation=leaky0.3 padding=reflect")
    assert found.architecture == "ESPCN activation=leaky0.3 padding=reflect"
    _same(found, reference)


def test_all_convolutions_may_precede_all_normalizations() -> None:
    torch.manual_seed(0)
    reference = _trained(NumberedBlocks())
    weights = reference.state_dict()
    order = ("conv1.", "conv2.", "bn1.", "bn2.", "prelu.")
    mixed = dict(weights)
    for block in ("block2.", "block3."):
        for key in [key for part in order for key in weights if key.startswith(block + part)]:
            mixed[key] = mixed.pop(key)
        for key in [key for key in weights if key.startswith(("block4.", "block8."))]:
            mixed[key] = mixed.pop(key)
    blocks = {k: mixed[k] for k in mixed if k.startswith("block3.")}
    rest = {k: mixed[k] for k in mixed if k.startswith(("block4.", "block8."))}
    first = {k: v for k, v in mixed.items() if k not in blocks and k not in rest}
    found = recognize([first | blocks | rest], "SRResNet final=tanh")
    _same(found, reference)


def test_numbered_layers_sorted_by_name_are_reordered() -> None:
    """In safetensors files, 10 comes before 2, and the bias before the weight."""
    torch.manual_seed(0)
    reference = _fsrcnn(1, 2, 4)
    weights = _renamed(reference.state_dict(), lambda number, _: f"layer.{number}")
    assert "layer.10.weight" in weights
    found = recognize([dict(sorted(weights.items()))], "FSRCNN scale=2")
    _same(found, reference)


@pytest.mark.slow
def test_sorted_words_need_trained_weights() -> None:
    """The order of such layers can only be inferred by restoring photos."""
    torch.manual_seed(0)
    weights = _trained(Trunk()).state_dict()
    with pytest.raises(CheckpointError, match="safetensors"):
        recognize([dict(sorted(weights.items()))])


NOT_OURS: dict[str, tuple[Make, str]] = {
    "classifier": (
        lambda: nn.Sequential(_conv(3, 8), nn.Flatten(), nn.Linear(8, 10)),
        "classifier",
    ),
    "features": (
        lambda: nn.Sequential(_conv(3, 8), _conv(8, 8), _conv(8, 16), _conv(16, 16)),
        "3 .*16",
    ),
    "discriminator": (
        lambda: nn.Sequential(_conv(1, 8), _conv(8, 8), _conv(8, 16), _conv(16, 32), _conv(32, 1)),
        "discriminator",
    ),
    "patch discriminator": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1), nn.Conv2d(8, 16, 4, 2, 1), nn.Conv2d(16, 1, 4, 1, 1)
        ),
        "image size|scale",
    ),
    "colour patch discriminator": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 1, 4, 1, 1)),
        "3 .*1",
    ),
    "diffusion": (
        lambda: nn.Sequential(_conv(3, 8), nn.GroupNorm(2, 8), _conv(8, 8), _conv(8, 3)),
        "'1'.*normalization",
    ),
    "concatenating": (
        lambda: nn.Sequential(_conv(3, 8), _conv(8, 8), _conv(16, 8), _conv(8, 3)),
        "16 .*'2'.*'1'.*8",
    ),
    "attention": (
        lambda: nn.Sequential(
            _conv(3, 8),
            *(p for _ in range(2) for p in (_conv(8, 8), _conv(8, 8), _conv(8, 2), _conv(2, 8))),
            _conv(8, 12),
            nn.PixelShuffle(2),
        ),
        "could be E(DSR|SPCN)",
    ),
    "four channels": (
        lambda: nn.Sequential(_conv(4, 8), _conv(8, 8), _conv(8, 3)),
        " 4 channels",
    ),
    "depth-wise": (
        lambda: nn.Sequential(_conv(3, 8), _conv(8, 8, groups=8), _conv(8, 3)),
        "1 .*'1'.*'0'.*8",
    ),
    "a lone parameter": (
        lambda: nn.ParameterDict({"scale": nn.Parameter(torch.ones(1))}),
        "'scale'",
    ),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_other_networks_are_refused(kind: str) -> None:
    torch.manual_seed(0)
    make, message = NOT_OURS[kind]
    module = make()
    for parameter in module.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    with pytest.raises(CheckpointError, match=message):
        recognize([module.state_dict()])


@pytest.mark.slow
def test_spandrel_has_priority() -> None:
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DnCNN import DnCNN

    compact = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    assert find(compact.state_dict()).plan.family == "ESPCN"
    assert recognize([compact.state_dict()]).architecture == "Compact"
    denoiser = DnCNN(in_nc=1, out_nc=1, nc=8, nb=9, act_mode="R").state_dict()
    stripped = {key.removeprefix("model."): tensor for key, tensor in denoiser.items()}
    assert recognize([denoiser, stripped]).architecture == "DnCNN"
    assert recognize([stripped]).architecture == "ConvRestorer"


def test_families_are_in_the_registry() -> None:
    reference = _espcn(3, 2, nn.Tanh)
    architecture = registry()["ESPCN"].architecture
    assert architecture.detect(reference.state_dict())
    assert not architecture.detect(_fsrcnn(3, 2, 4).state_dict())
    assert architecture.load(reference.state_dict()).scale == 2


@pytest.mark.parametrize(
    ("spec", "fact"),
    [
        ("FSRCNN scale=2 depth=3", "'depth'.*scale=2|3|4|8"),
        ("FSRCNN scale=20", "scale=20"),
        ("FSRCNN scale=two", "scale=two "),
        ("FSRCNN final=relu", "final=relu .*final=none|tanh|sigmoid"),
        ("FSRCNN scale", "'scale'"),
        ("FSRCNN activation=relu", "activation=none.*relu"),
        ("Fsrcnn", "'Fsrcnn'.* ATD, "),
    ],
)
def test_settings_that_do_not_fit(spec: str, fact: str) -> None:
    with pytest.raises(InvalidInputError, match=fact.replace("|", r"\|")):
        recognize([_fsrcnn(1, 2, 4).state_dict()], spec)


def test_a_family_that_does_not_fit() -> None:
    with pytest.raises(CheckpointError, match=r"ESPCN.*no pixel shuffle"):
        recognize([_fsrcnn(1, 2, 4).state_dict()], "ESPCN")
    with pytest.raises(MismatchError, match="has no pixel shuffle"):
        find(_fsrcnn(1, 2, 4).state_dict(), "ESPCN")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "spec", "shown"),
    [
        (lambda: _fsrcnn(1, 3, 4), ["FSRCNN", "scale=3"], "FSRCNN scale=3"),
        (lambda: _Autoencoder(3), ["ConvTranspose", "scale=1", "strided=true"], "ConvTranspose"),
    ],
)
def test_the_whole_command(make: Make, spec: list[str], shown: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"generator": make().state_dict()}, tmp_path / "x.pth")
    command = [sys.executable, "-m", "sr_export", str(tmp_path / "x.pth"), "--precision", "fp32"]
    command.append("--accept")
    done = subprocess.run([*command, "--arch", *spec], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert "assumed" in done.stdout
    model = Bundle.open(tmp_path / "x.srd").manifest.model
    assert model.multiple_of == (2 if "strided=true" in spec else 1)
    assert max(each.max_error for each in Bundle.open(tmp_path / "x.srd").manifest.checks) < 1e-5
