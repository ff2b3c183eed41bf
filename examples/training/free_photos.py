"""Photos that anybody may train on, as a folder: those that come with scikit-image.

    python -m examples.training.free_photos photos

They are in the public domain or CC0 (examples/README.md has source and licence of each). Edges
teach more than textures and smooth pictures, so they come in three folders:

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
"""The cat is held out: the demo of the project enlarges it."""


def main() -> int:
    """Copy the photos."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to put the photos")
    folder = parser.parse_args().folder
    for name, photos in FOLDERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for photo in photos:
            shutil.copy(Path(skimage.__file__).parent / "data" / photo, folder / name)
    print(f"{sum(map(len, FOLDERS.values()))} photos in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
