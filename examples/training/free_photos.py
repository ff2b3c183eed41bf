"""Copy scikit-image's photos, which are free to train on, into a folder.

    python -m examples.training.free_photos photos

They are public domain or CC0. Edges teach a network more than textures and smooth images, so there
are three folders, which can have different shares:

    python -m examples.training photos/edges=4 photos/objects=2 photos/textures \
        --validation photos/held-out --output runs/mine
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import skimage

FOLDERS = {
    "edges": ("astronaut.png", "coffee.png", "camera.png"),
    "objects": ("rocket.jpg", "coins.png"),
    "textures": (
        "text.png",
        "brick.png",
        "grass.png",
        "gravel.png",
        "ihc.png",
        "hubble_deep_field.jpg",
        "retina.jpg",
    ),
    "held-out": ("chelsea.png",),
}
"""The cat is held out because the project's demo upscales it."""


def main() -> int:
    """Copy the photos."""
    parser = argparse.ArgumentParser(
        "python -m examples.training.free_photos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="target folder")
    folder = parser.parse_args().folder
    for name, photos in FOLDERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for photo in photos:
            shutil.copy(Path(skimage.__file__).parent / "data" / photo, folder / name)
    print(f"{sum(map(len, FOLDERS.values()))} photos in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
