"""Settings that weights do not determine are inferred: the ones that restore photos best.

The networks are trained for a second or two, which is enough for the right settings to win.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sr_deploy.errors import CheckpointError
from sr_export import photos, pipeline
from sr_export.models import restoration
from sr_export.models.network import with_ranges
from sr_export.models.ranges import Ranges
from sr_export.models.recognize import recognize
from sr_export.options import Options

pytestmark = pytest.mark.slow

SIDE, CROP, STEPS = 240, 48, 300
SIGNED = Ranges(input=(-1, 1), output=(-1, 1))
BYTES = Ranges(input=(0, 255), output=(0, 255))
IMAGENET = Ranges(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), output=(-1, 1))


def _conv(inputs: int, outputs: int, size: int = 3, **more: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **more)


class _Residual(nn.Module):
    """A chain whose output is added to the input, or subtracted from it."""

    def __init__(self, channels: int, sign: int) -> None:
        super().__init__()
        inner = (_conv(16, 16), nn.ReLU(), _conv(16, 16), nn.ReLU())
        self.chain = nn.Sequential(_conv(channels, 16), nn.ReLU(), *inner, _conv(16, channels))
        self._sign = sign

    def forward(self, x: Tensor) -> Tensor:
        return x + self._sign * self.chain(x)


class _Generator(nn.Module):
    """Residual blocks and a pixel shuffle; tanh."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.head = nn.Sequential(_conv(3, 16, 5), nn.PReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(_conv(16, 16), nn.BatchNorm2d(16, eps), nn.PReLU()),
                *(_conv(16, 16), nn.BatchNorm2d(16, eps)),
            )
            for _ in range(2)
        )
        self.closing = _conv(16, 16)
        self.up = nn.Sequential(_conv(16, 64), nn.PixelShuffle(2), nn.PReLU())
        self.last = _conv(16, 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = y = self.head(x)
        for block in self.blocks:
            y = y + block(y)
        return torch.tanh(self.last(self.up(first + self.closing(y))))


def _espcn(act: nn.Module) -> nn.Module:
    shuffle = nn.PixelShuffle(3)
    return nn.Sequential(_conv(3, 24, 5), act, _conv(24, 16), act, _conv(16, 27), shuffle)


def _fsrcnn(padding: int) -> nn.Module:
    return nn.Sequential(
        *(_conv(1, 24, 5), nn.PReLU(24), _conv(24, 8, 1), nn.PReLU(8)),
        *(_conv(8, 8), nn.PReLU(8), _conv(8, 24, 1), nn.PReLU(24)),
        nn.ConvTranspose2d(24, 1, 9, 3, padding, output_padding=2 * padding - 6),
    )


def _autoencoder() -> nn.Module:
    act = nn.LeakyReLU(0.2)
    return nn.Sequential(
        *(_conv(3, 16), act, _conv(16, 32, stride=2), act, _conv(32, 32), act),
        *(nn.ConvTranspose2d(32, 16, 4, 2, 1), act, _conv(16, 3)),
    )


def _nearest() -> nn.Module:
    act, up = nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2)
    return nn.Sequential(
        *(_conv(3, 16), act, up, _conv(16, 16), act),
        *(up, _conv(16, 16), act, _conv(16, 3)),
    )


def _task(channels: int, scale: int) -> tuple[Tensor, Tensor]:
    big = photos.batch(4, SIDE, SIDE, channels)
    small = np.stack([restoration.shrunk(image, SIDE // scale, SIDE // scale) for image in big])
    return torch.from_numpy(photos.as_float(small)), torch.from_numpy(photos.as_float(big))


def _train(module: nn.Module, channels: int, scale: int, ranges: Ranges) -> nn.Module:
    """Train a module to upscale or denoise, on its own pixel values."""
    small, big = _task(channels, scale)
    whole = with_ranges(module, ranges)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    random = np.random.default_rng(0)
    crop = CROP // scale
    for _ in range(STEPS):
        places = [
            (random.integers(4), *random.integers(SIDE // scale - crop, size=2)) for _ in "x" * 8
        ]
        given = torch.stack([small[i, :, y : y + crop, x : x + crop] for i, y, x in places])
        wanted = torch.stack(
            [
                big[i, :, y * scale : (y + crop) * scale, x * scale : (x + crop) * scale]
                for i, y, x in places
            ]
        )
        if scale == 1:
            given = given + torch.randn(given.shape) * 15 / 255
        loss = F.l1_loss(whole(given), wanted)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return module.eval()


Case = tuple[Callable[[], nn.Module], int, int, Ranges, str]
CASES: dict[str, Case] = {
    "relu": (lambda: _espcn(nn.ReLU()), 3, 3, Ranges(), "ESPCN"),
    "leaky, -1 to 1": (lambda: _espcn(nn.LeakyReLU(0.1)), 3, 3, SIGNED, "ESPCN"),
    "stride": (lambda: _fsrcnn(4), 1, 3, Ranges(), "FSRCNN"),
    "stride, other padding": (lambda: _fsrcnn(3), 1, 3, Ranges(), "FSRCNN"),
    "strides that cancel": (_autoencoder, 3, 1, Ranges(), "ConvTranspose"),
    "repeated pixels": (_nearest, 3, 4, Ranges(), "NearestConv"),
    "noise subtracted": (lambda: _Residual(1, -1), 1, 1, Ranges(), "ConvRestorer"),
    "added, 0 to 255": (lambda: _Residual(3, 1), 3, 1, BYTES, "ConvRestorer"),
    "tanh, ImageNet": (_Generator, 3, 2, IMAGENET, "SRResNet"),
    "tanh, large eps": (lambda: _Generator(0.8), 3, 2, SIGNED, "SRResNet"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    """Use one thread, since such small networks are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", CASES)
def test_the_right_settings_restore_best(kind: str) -> None:
    make, channels, scale, ranges, family = CASES[kind]
    torch.manual_seed(0)
    module = _train(make(), channels, scale, ranges)
    found = recognize([module.state_dict()])
    assert (found.architecture, found.scale, found.channels) == (family, scale, channels)
    image = torch.rand(1, channels, 24, 32)
    with torch.inference_mode():
        expected = with_ranges(module, ranges)(image)
        # Float32 rounding, at the height of 255 in some.
        torch.testing.assert_close(
            with_ranges(found.module, found.ranges)(image), expected, atol=1e-5, rtol=1e-5
        )


def test_sorted_names_are_reordered(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _train(_Generator(), 3, 2, SIGNED)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "x.safetensors")
    weights = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert list(weights) != list(module.state_dict())
    found = recognize([weights])
    image = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(found.module(image), module(image), atol=1e-5, rtol=1e-5)


def test_settings_of_the_user_are_not_inferred() -> None:
    torch.manual_seed(0)
    module = _train(_fsrcnn(4), 1, 3, Ranges())
    weights = module.state_dict()
    inferred = recognize([weights])
    assert inferred.scale == 3
    assert "scale=3" in " ".join([inferred.how, *inferred.assumed])
    assert recognize([weights], "FSRCNN scale=2").scale == 2
    assert recognize([weights], ranges=SIGNED).ranges == SIGNED


def test_untrained_weights_get_defaults_that_are_assumed() -> None:
    torch.manual_seed(0)
    found = recognize([_espcn(nn.Tanh()).state_dict()])
    assert (found.architecture, found.scale, found.ranges) == ("ESPCN", 3, Ranges())
    assert not found.restores
    assert found.assumed


def test_a_residual_that_adds_almost_nothing_is_no_evidence() -> None:
    """With a global residual, any small weights restore as well as the input itself."""
    torch.manual_seed(0)
    module = _Residual(3, 1)
    for parameter in module.parameters():
        parameter.data *= 0.1
    found = recognize([module.state_dict()])
    assert found.assumed
    assert not found.restores


class _Vdsr(nn.Module):
    """A network on an enlarged image, whose output is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(
            *(_conv(1, 16), nn.ReLU(), _conv(16, 16), nn.ReLU(), _conv(16, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.chain(x)


def _expected(
    module: nn.Module, ranges: Ranges, tmp_path: Path, crop: tuple[int, int, int]
) -> tuple[str, str]:
    """Write an image, and the result of the user's own program for it."""
    (photo,) = photos.batch(1, *crop)
    image = torch.from_numpy(photos.as_float(photo[None]))
    with torch.inference_mode():
        result = with_ranges(module, ranges)(image).numpy()[0].transpose(1, 2, 0)
    paths = tmp_path / "in.png", tmp_path / "out.png"
    levels = (result.clip(0, 1) * 255).round().astype(np.uint8)
    for path, pixels in zip(paths, (photo, levels), strict=True):
        Image.fromarray(pixels.squeeze()).save(path)
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize(
    ("ranges", "make"),
    [
        (Ranges(enlarge=3), _Vdsr),
        (Ranges(color="bgr"), lambda: _Residual(3, -1)),
        (Ranges(input=(-1, 1), output=(-1, 1), color="ycbcr"), _Generator),
    ],
    ids=["enlarged", "bgr", "ycbcr"],
)
def test_the_result_of_the_users_program_proves_the_reading(
    ranges: Ranges, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    """Random weights restore no photo, so the pair alone decides."""
    torch.manual_seed(0)
    module = make().eval()
    channels = 1 if make is _Vdsr else 3
    pair = _expected(module, ranges, tmp_path, (40, 52, channels))
    options = Options("x.pth", "x", expect=pair)
    expected = pipeline._expected(options)
    found = recognize([module.state_dict()], expected=expected)
    verdict = pipeline._decided(found, options, expected)
    assert verdict.proven
    assert not verdict.assumed
    other = torch.from_numpy(photos.as_float(photos.batch(2, 24, 31, channels)))
    with torch.inference_mode():
        torch.testing.assert_close(
            with_ranges(found.module, verdict.ranges)(other),
            with_ranges(module, ranges)(other),
            atol=2 / 255,
            rtol=0,
        )


def test_a_result_of_another_program_proves_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = _expected(_Residual(3, -1).eval(), Ranges(), tmp_path, (32, 40, 3))
    options = Options("x.pth", "x", expect=pair)
    expected = pipeline._expected(options)
    network = recognize([_Residual(3, 1).state_dict()], expected=expected)
    with pytest.raises(CheckpointError, match=r"out\.png"):
        pipeline._decided(network, options, expected)
    accepted = dataclasses.replace(options, accept=True)
    assert not pipeline._decided(network, accepted, expected).proven
