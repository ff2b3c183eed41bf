"""Checks that run in the interpreter with TensorRT: outputs, tiles and a soak test."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import Engine, machine
from sr_deploy.backends.cuda import driver
from sr_deploy.bundle.bundle import Bundle
from sr_export import photos
from sr_export.trt.plan_validation import places

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SOAK_SIDES = (33, 64, 120, 257, 360, 480, 640, 719, 720, 1080, 1281)
# GPU memory that may disappear after the first third of a soak test: caches of the driver.
_DRIFT = 64 << 20


def outputs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Upscale photos and save patches of the outputs, for comparison with a CPU."""
    bundle = Bundle.open(arguments.bundle)
    results: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for precision in arguments.precisions:
        with _engine(bundle.folder, precision) as engine:
            for size in arguments.sizes:
                name = f"{precision}-{size[0]}x{size[1]}"
                frame = _photo(bundle, size)
                start = time.perf_counter()
                whole = engine.upscale(frame)
                seconds = round(time.perf_counter() - start, 3)
                same = bool(np.array_equal(whole, engine.upscale(frame)))
                results[name] = {"first_seconds": seconds, "second_equal": same}
                kept |= {f"{name}-{i}": each for i, each in enumerate(_patches(bundle, whole))}
    np.savez_compressed(arguments.patches, **kept)
    return results


def tiles(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare untiled frames with tiled ones, which use the tile plans of another bundle."""
    bundle = Bundle.open(arguments.bundle)
    results: dict[str, Any] = {}
    for precision in arguments.precisions:
        with (
            _engine(bundle.folder, precision) as engine,
            _engine(arguments.tiled, precision) as other,
        ):
            for size in arguments.sizes:
                frame = _photo(bundle, size)
                difference = np.abs(engine.upscale(frame).astype(int) - other.upscale(frame))
                results[f"{precision}-{size[0]}x{size[1]}"] = {
                    "largest_difference": int(difference.max()),
                    "mean_difference": float(difference.mean()),
                    "ok": bool(difference.max() <= 1),
                }
    return results


def _engine(bundle: Path, precision: str) -> Engine:
    return Engine(bundle, backend="tensorrt", precision=precision, build="never")


def _photo(bundle: Bundle, size: tuple[int, int]) -> NDArray[np.uint8]:
    return photos.batch(1, *size, bundle.manifest.model.channels)[0]


def _patches(bundle: Bundle, whole: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    scale = bundle.manifest.model.scale
    height, width = whole.shape[0] // scale, whole.shape[1] // scale
    return [
        whole[_span(rows, scale), _span(columns, scale)]
        for rows, columns in places(bundle.manifest.model, height, width)
    ]


def _span(pixels: range, scale: int) -> slice:
    return slice(scale * pixels.start, scale * pixels.stop)


def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Upscale frames of changing sizes; memory must not leak and results must not change."""
    bundle = Bundle.open(arguments.bundle)
    choose = random.Random(0)  # noqa: S311  sizes, not secrets
    first: dict[tuple[int, int], int] = {}
    frames = wrong = 0
    marks: list[tuple[int, int]] = []
    with _engine(bundle.folder, arguments.precisions[0]) as engine:
        end = time.monotonic() + arguments.seconds
        third = time.monotonic() + arguments.seconds / 3
        while (now := time.monotonic()) < end:
            size = choose.choice(_SOAK_SIDES), choose.choice(_SOAK_SIDES)
            frame = _photo(bundle, size)
            checksum = int(engine.upscale(frame).astype(np.uint64).sum())
            wrong += first.setdefault(size, checksum) != checksum
            frames += 1
            if now > third:
                marks.append((driver.memory(0)[0], machine.resident_memory()))
    lost = max(0, marks[0][0] - min(free for free, _ in marks)) if marks else 0
    grown = max(0, max(held for _, held in marks) - marks[0][1]) if marks else 0
    return {
        "frames": frames,
        "sizes": len(first),
        "changed_results": wrong,
        "gpu_memory_lost": lost,
        "memory_grown": grown,
        "ok": bool(frames and not wrong and lost <= _DRIFT),
    }


_CHECKS = {"outputs": outputs, "tiles": tiles, "soak": soak}


def main() -> int:
    """Run one check and write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", choices=list(_CHECKS))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["fp16", "int8"])
    parser.add_argument("--sizes", nargs="+", type=_size, default=[(720, 1280)])
    parser.add_argument("--patches", type=Path)
    parser.add_argument("--tiled", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    found = _CHECKS[arguments.check](arguments)
    arguments.result.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
