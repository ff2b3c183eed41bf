"""Hostile files of every kind, made from a seed: recipes, and small valid files with damage."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.fuzz import hostile_checkpoints, hostile_onnx
from tests.sr_deploy import networks

_NUMBERS = (0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, -1e308, 1e999, "", "x" * 5000, "../../x"),
    *("/etc/passwd", "a\x00b", "\x1b[2J", "\ud800", [], [[]], {}, [1, 2, 3], {"a": 1}),
)


class Seeds:
    """Small valid files, made once.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.bundle = networks.bundle(folder / "good.srd", networks.nearest)
        self.images = [_image(kind) for kind in ("png", "jpeg", "tiff", "webp", "bmp")]
        self.images += [_deep_png()]
        self.videos = [_video(folder / f"v.{suffix}") for suffix in ("mkv", "mp4", "ts", "avi")]
        sides = {"body.0.weight": (8, 3), "body.2.weight": (8, 8), "body.4.weight": (12, 8)}
        tensors = {name: torch.rand(*side, 3, 3) - 0.5 for name, side in sides.items()}
        self.checkpoints = [
            ("pth", _saved(tensors, zipped=True)),
            ("pth", _saved({"params": tensors, "epoch": 3}, zipped=False)),
            ("safetensors", _safetensors(tensors)),
        ]
        kernel = hostile_onnx.floats("w", 3, 3, 3, 3)
        plain = hostile_onnx.node("Conv", "x w", "y", pads=[1] * 4)
        self.onnx = [
            hostile_onnx.model([plain], [kernel]).SerializeToString(),
            hostile_onnx.loop(5).SerializeToString(),
            hostile_onnx.nested_functions(5, 2).SerializeToString(),
        ]


def _image(kind: str) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    Image.fromarray(pixels).save(out, kind, **({"dpi": (72, 72)} if kind != "webp" else {}))
    return out.getvalue()


def _deep_png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10) * 999).save(out, "png")
    return out.getvalue()


def _video(path: Path) -> tuple[str, bytes]:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(6):
            pixels = np.full((24, 32, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    return path.suffix[1:], path.read_bytes()


def _saved(content: object, *, zipped: bool) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def _safetensors(tensors: dict[str, torch.Tensor]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(tensors)


def damaged(data: bytes, random: Random) -> bytes:
    """Return data with one to six random changes."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 6)):
        place = random.randrange(len(changed) + 1)
        length = min(random.choice((1, 2, 4, 8, 100, 1000)), len(changed) - place)
        choice = random.randrange(7)
        if choice == 0:
            del changed[place:]
        elif choice == 1:
            del changed[place : place + length]
        elif choice == 2:
            changed[place:place] = changed[place : place + length]
        elif choice == 3:
            changed[place:place] = random.randbytes(length)
        elif choice == 4:
            size = random.choice("BHIQ")
            order, number = random.choice("<>"), random.choice(_NUMBERS)
            packed = struct.pack(order + size, number % (1 << 8 * struct.calcsize(size)))
            changed[place : place + len(packed)] = packed
        else:
            changed[place : place + length] = random.randbytes(length)
        if not changed:
            break
    return bytes(changed)


def checkpoint(seeds: Seeds, folder: Path, random: Random) -> Path:
    """Write a hostile checkpoint."""
    suffix, data = random.choice(seeds.checkpoints)
    if random.random() < 0.1:
        names = sorted(hostile_checkpoints.HOSTILE.keys() - hostile_checkpoints.LONG)
        data = hostile_checkpoints.HOSTILE[random.choice(names)]()
    return _written(folder / f"net.{suffix}", damaged(data, random))


def onnx(seeds: Seeds, folder: Path, random: Random) -> Path:
    """Write a hostile ONNX file."""
    if random.random() < 0.3:
        made = hostile_onnx.HOSTILE | hostile_onnx.OUTSIDE
        data = made[random.choice(sorted(made))]().SerializeToString()
        if random.random() < 0.5:
            return _written(folder / "net.onnx", data)
    else:
        data = random.choice(seeds.onnx)
    return _written(folder / "net.onnx", damaged(data, random))


def image(seeds: Seeds, folder: Path, random: Random) -> Path:
    """Write a damaged image."""
    suffix = random.choice(("png", "jpg", "tif", "webp", "bmp"))
    return _written(folder / f"image.{suffix}", damaged(random.choice(seeds.images), random))


def video(seeds: Seeds, folder: Path, random: Random) -> Path:
    """Write a damaged video."""
    suffix, data = random.choice(seeds.videos)
    return _written(folder / f"video.{suffix}", damaged(data, random))


def bundle(seeds: Seeds, folder: Path, random: Random) -> Path:
    """Write a bundle with a hostile manifest or network, whose hashes are right."""
    path = folder / "net.srd"
    shutil.copytree(seeds.bundle, path)
    manifest = path / "manifest.json"
    content = json.loads(manifest.read_text())
    choice = random.random()
    if choice < 0.4:
        hostile = random.choice(list(hostile_onnx.HOSTILE.values()))().SerializeToString()
        for variant in content["variants"]:
            network = path / variant["file"]
            data = hostile if choice < 0.2 else damaged(network.read_bytes(), random)
            network.write_bytes(data)
            variant["sha256"] = hashlib.sha256(data).hexdigest()
    elif choice < 0.9:
        for _ in range(random.randint(1, 3)):
            _change(content, random)
    text = json.dumps(content)
    manifest.write_bytes(text.encode() if choice < 0.9 else damaged(text.encode(), random))
    return path


def _change(content: Any, random: Random) -> None:
    """Replace, remove or add a random value inside JSON content."""
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and random.random() < 0.8:
            place = place[key]
            continue
        if random.random() < 0.2:
            del place[key]
        else:
            place[key] = random.choice(_VALUES)
        return


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


KINDS: dict[str, Callable[[Seeds, Path, Random], Path]] = {
    each.__name__: each for each in (checkpoint, onnx, image, video, bundle)
}
