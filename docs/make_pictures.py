"""Draw docs/before-after.png, the picture at the top of the README.

    python docs/make_pictures.py video_x4.srd denoise.srd

The bundles are exports of examples/networks/video_x4.pth and denoise.pth. Neither network has seen
the photo in training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_deploy import Engine

ROOT = Path(__file__).resolve().parents[1]
CROP = (100, 50, 300, 180)
"""Left, top, right, bottom in the original photo."""
CELL = (600, 390)
GAP = 8
LABEL_HEIGHT = 40
NOISE = 25.0
"""Standard deviation, in levels of 255."""


def main(upscaler: str, denoiser: str) -> None:
    """Draw one row for 4x upscaling and one for denoising."""
    photo = Image.open(ROOT / "examples" / "original" / "cat.png").convert("RGB")
    photo = photo.crop((0, 0, photo.width // 4 * 4, photo.height // 4 * 4))
    small = photo.resize((photo.width // 4, photo.height // 4), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, NOISE, (photo.height, photo.width, 3))
    noisy = np.clip(np.asarray(photo) + noise, 0, 255).round().astype(np.uint8)
    rows = [
        [
            ("Input", small.resize(photo.size, Image.Resampling.NEAREST)),
            ("Bicubic, 4x", small.resize(photo.size, Image.Resampling.BICUBIC)),
            ("video_x4.pth, 4x", run(upscaler, np.asarray(small))),
        ],
        [
            ("Input", Image.fromarray(noisy)),
            ("denoise.pth", run(denoiser, noisy)),
            ("Original photo", photo),
        ],
    ]
    draw(rows).save(ROOT / "docs" / "before-after.png", optimize=True)


def run(bundle: str, image: np.ndarray) -> Image.Image:
    """Return the output of a bundle's network."""
    with Engine(bundle, precision="fp32") as engine:
        return Image.fromarray(engine.upscale(image))


def draw(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Return a labeled sheet of the same crop of all images."""
    width, height = CELL
    cell_height = height + LABEL_HEIGHT
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (cell_height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=26)
    for y, row in enumerate(rows):
        for x, (label, image) in enumerate(row):
            left, top = x * (width + GAP), y * (cell_height + GAP)
            pen.text((left + 4, top + 4), label, "black", font)
            part = image.crop(CROP).resize(CELL, Image.Resampling.NEAREST)
            sheet.paste(part, (left, top + LABEL_HEIGHT))
    return sheet


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
