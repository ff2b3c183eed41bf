"""Trains a small super-resolution network, in minutes on two CPU cores.

    python examples/train.py --network compact --scale 2 --output examples/compact_x2.pth
    python examples/train.py --network srresnet --scale 4 --output srresnet_x4.pth

The training photos come with scikit-image and are in the public domain or CC0; its cat,
`chelsea`, is held out: the validation below and the demo of the project use it, training never
sees it.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from networks import Compact, RrdbNet, SrResNet
from sr_export.quality import y_psnr

if TYPE_CHECKING:
    from collections.abc import Callable

PHOTOS = Path(skimage.__file__).parent / "data"
HELD_OUT = "chelsea.png"
# Each training photo (see README.md for the licences) with its share of the crops. Smooth and
# scientific pictures teach little about edges, so they get a small one.
SHARES = {
    "astronaut.png": 4.0,
    "coffee.png": 4.0,
    "camera.png": 3.0,
    "rocket.jpg": 2.0,
    "coins.png": 2.0,
    "text.png": 1.0,
    "brick.png": 1.0,
    "grass.png": 1.0,
    "gravel.png": 1.0,
    "ihc.png": 1.0,
    "hubble_deep_field.jpg": 1.0,
    "retina.jpg": 0.5,
}
# Shrunk copies have more edges per pixel and none of the sensor's and JPEG's blur: a dozen photos
# last much longer with them.
ZOOMS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)
REPORT_SECONDS = 30.0
VALIDATION_STEPS = 500
WARMUP_STEPS = 200
CHARBONNIER_TIP = 1e-3

Image8: TypeAlias = NDArray[np.uint8]  # H x W x 3, RGB


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is trained.

    Attributes:
        build: makes the network for a scale.
        steps: of the optimiser.
        batch: crops per step.
        patch: the low-resolution side of a crop.
        rate: Adam's learning rate.
        ema: decay of the averaged weights; short trainings must forget faster.
    """

    build: Callable[[int], nn.Module]
    steps: int
    batch: int
    patch: int
    rate: float
    ema: float


RECIPES = {
    "compact": Recipe(Compact, steps=16000, batch=16, patch=48, rate=1e-3, ema=0.999),
    "srresnet": Recipe(SrResNet, steps=2000, batch=8, patch=24, rate=5e-4, ema=0.99),
    "rrdb": Recipe(RrdbNet, steps=3000, batch=8, patch=24, rate=5e-4, ema=0.99),
}


def load_rgb(path: Path) -> Image8:
    """Reads an image as H x W x 3 uint8; grey becomes three equal channels."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def shrink(image: Image8, height: int, width: int) -> Image8:
    """Shrinks with the antialiased bicubic kernel (a = -0.5) of MATLAB's imresize.

    Pillow rounds 8-bit images twice, once per direction; float planes are rounded once, at the end.
    """
    small = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        resized = plane.resize((width, height), Image.Resampling.BICUBIC)
        small[..., channel] = np.asarray(resized)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def make_pair(photo: Image8, scale: int, zoom: float = 1.0) -> tuple[Image8, Image8]:
    """Zooms a photo, crops it to a multiple of the scale; returns it after its small version."""
    height, width = (int(side * zoom) for side in photo.shape[:2])
    high = photo if zoom == 1.0 else shrink(photo, height, width)
    low_height, low_width = height // scale, width // scale
    high = high[: low_height * scale, : low_width * scale]
    return shrink(high, low_height, low_width), high


class Crops:
    """Random training crops, turned, flipped, with channels exchanged and half of them inverted."""

    def __init__(self, scale: int, patch: int, seed: int) -> None:
        self._scale = scale
        self._patch = patch
        self._random = np.random.default_rng(seed)
        self._pairs: list[tuple[Image8, Image8]] = []
        shares: list[float] = []
        for name, share in SHARES.items():
            photo = load_rgb(PHOTOS / name)
            pairs = [make_pair(photo, scale, zoom) for zoom in ZOOMS]
            pairs = [pair for pair in pairs if min(pair[0].shape[:2]) >= patch]
            self._pairs += pairs
            shares += [share / len(pairs)] * len(pairs)
        self._shares = np.array(shares) / sum(shares)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Returns N x 3 x H x W low- and high-resolution crops, float32 in [0, 1]."""
        chosen = self._random.choice(len(self._pairs), size, p=self._shares)
        low, high = zip(*(self._crop(*self._pairs[index]) for index in chosen), strict=True)
        return to_network(np.stack(low)), to_network(np.stack(high))

    def _crop(self, low: Image8, high: Image8) -> tuple[Image8, ...]:
        random, scale = self._random, self._scale
        top = int(random.integers(low.shape[0] - self._patch + 1))
        left = int(random.integers(low.shape[1] - self._patch + 1))
        turns, flip = int(random.integers(4)), int(random.choice((-1, 1)))
        channels, inverted = random.permutation(3), np.uint8(255 * random.integers(2))
        crops = []
        for image, zoom in ((low, 1), (high, scale)):
            rows, columns = (slice(at * zoom, (at + self._patch) * zoom) for at in (top, left))
            # All of these commute with the downscaling, so the pair stays exact.
            turned = np.rot90(image[rows, columns], turns)[:, ::flip]
            crops.append(turned[..., channels] ^ inverted)
        return tuple(crops)


def to_network(images: NDArray[np.uint8]) -> Tensor:
    """Maps N x H x W x 3 uint8 to N x 3 x H x W float32 in [0, 1].

    The memory stays NHWC ("channels last"), and PyTorch's convolutions keep to it: twice as fast
    in bfloat16 as float32 is.
    """
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


def upscale(model: nn.Module, image: Image8) -> Image8:
    """Runs the network on one H x W x 3 uint8 image in float32, without autocast."""
    with torch.inference_mode():
        output = model(to_network(image[None]))[0]
    levels = output.clamp(0, 1).mul(255).round().byte()
    return np.asarray(levels.permute(1, 2, 0).numpy())


class Progress:
    """One line that is rewritten on a terminal, a line now and then in a log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def minutes(self) -> float:
        """Returns the minutes since the start."""
        return (time.monotonic() - self._start) / 60.0

    def show(self, text: str, *, last: bool) -> None:
        """Shows a text, unless the one before was just now."""
        if last or time.monotonic() - self._last >= (1.0 if self._terminal else REPORT_SECONDS):
            self._last = time.monotonic()
            start, end = ("\r", "\n" if last else "") if self._terminal else ("", "\n")
            print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def follow(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the exponential average of the weights and statistics one step towards the model."""
    current = model.state_dict()
    for name, average in mean.state_dict().items():
        if average.is_floating_point():
            average.lerp_(current[name], 1.0 - decay)
        else:
            average.copy_(current[name])  # BatchNorm's count of batches


def train(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Returns the network as the last step left it, and the moving average of its weights."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    recipe: Recipe = RECIPES[options.network]
    model = recipe.build(options.scale)
    mean = copy.deepcopy(model).eval()
    optimiser = torch.optim.Adam(model.parameters(), recipe.rate)
    crops = Crops(options.scale, recipe.patch, options.seed)
    exam_low, exam_high = make_pair(load_rgb(PHOTOS / HELD_OUT), options.scale)
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16")

    progress, score = Progress(), math.nan
    for step in range(options.steps):
        # What remains shrinks with the steps, or with the minutes where those run out first: the
        # rate has come down by the end in both cases.
        done = max(step / options.steps, progress.minutes() / options.minutes)
        warmup = min(1.0, (step + 1) / WARMUP_STEPS)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * warmup * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        low, high = crops.batch(recipe.batch)
        with bfloat16:
            output = model(low)
        # Charbonnier: L1 with a round tip, which settles where L1 keeps on jumping.
        loss = (output.float() - high).square().add(CHARBONNIER_TIP**2).sqrt().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        follow(mean, model, min(recipe.ema, (step + 1) / (step + 10)))
        last = step + 1 == options.steps or done >= 1.0
        if last or step % VALIDATION_STEPS == 0:
            score = y_psnr(exam_high, upscale(mean, exam_low), options.scale)
        state = f"step {step + 1}/{options.steps}  {progress.minutes():.1f} min"
        state += f"  loss {loss.item():.5f}  {Path(HELD_OUT).stem} {score:.2f} dB"
        progress.show(state, last=last)
        if last:
            break
    return model, mean


def save(path: Path, model: nn.Module, mean: nn.Module) -> None:
    """Writes what BasicSR writes, beside the file and then renamed: never half a checkpoint."""
    content = {"params": model.state_dict(), "params_ema": mean.state_dict()}
    temporary = path.with_name(f".{path.name}.partial")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    """Trains with the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--network", choices=tuple(RECIPES), default="compact", help="default: %(default)s")
    add("--scale", type=int, choices=(2, 4), default=2, help="default: %(default)s")
    add("--output", type=Path, required=True, help="the checkpoint to write")
    add("--minutes", type=float, default=math.inf, help="stop earlier; then not reproducible")
    add("--steps", type=int, help="default: as many as the network's recipe has")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--threads", type=int, default=2, help="of the processor (default: %(default)s)")
    add("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of training")
    options = parser.parse_args()
    if options.steps is None:
        options.steps = RECIPES[options.network].steps
    if not options.output.parent.is_dir():
        parser.error(f"no folder {options.output.parent} to write {options.output.name} to")
    if min(options.steps, options.minutes, options.threads) <= 0:
        parser.error("--steps, --minutes and --threads must be greater than 0")
    save(options.output, *train(options))


if __name__ == "__main__":
    main()
