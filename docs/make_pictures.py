"""Make the picture at the top of the README: python docs/make_pictures.py BUNDLE.

The bundle is that of examples/compact_x2.pth. The picture shows a part of a photo that the network
was not trained on: bicubic interpolation, the network, and the original.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sr_deploy import Engine

ROOT = Path(__file__).resolve().parents[1]
PART = (150, 60, 290, 200)
"""Left, top, right, bottom in the original."""
ENLARGED = 2
GAP = 6


def main() -> None:
    """Write docs/before-after.png."""
    small = Image.open(ROOT / "examples" / "cat.png").convert("RGB")
    original = Image.open(ROOT / "examples" / "original" / "cat.png").convert("RGB")
    with Engine(sys.argv[1], precision="fp32") as engine:
        upscaled = Image.fromarray(engine.upscale(np.asarray(small)))
    bicubic = small.resize(original.size, Image.Resampling.BICUBIC)
    side = (PART[2] - PART[0]) * ENLARGED
    sheet = Image.new("RGB", (3 * side + 2 * GAP, side), "white")
    for i, image in enumerate((bicubic, upscaled, original)):
        part = image.crop(PART).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(part, (i * (side + GAP), 0))
    sheet.save(ROOT / "docs" / "before-after.png", optimize=True)


if __name__ == "__main__":
    main()
