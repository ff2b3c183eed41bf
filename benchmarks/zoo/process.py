"""One entry: the origin's outputs, sr-export's bundle, and how far the two are apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.catalogue import Entry

_ORIGIN_SECONDS = 240
_EXPORT_SECONDS = 420
_CUT = 32
_SUMMARY = ("network", "weights", "pixel values", "colors", "input", "verified")
_HERE = Path(__file__).resolve().parent
_PHOTOS = _HERE.parents[1] / "export" / "sr_export" / "photos"


def inputs(entry: Entry) -> dict[str, np.ndarray]:
    """Return the images of an entry: a crop of a photo and a drawn one, RGB, uint8 (H, W, 3)."""
    size = entry.run.get("size")
    height, width = (size, size) if size else (40, 48)
    with Image.open(_PHOTOS / "astronaut.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB"))
    top, left = (pixels.shape[0] - height) // 4, (pixels.shape[1] - width) // 2
    photo_crop = pixels[max(top, 0) :, max(left, 0) :][:height, :width]
    images = {"photo": np.ascontiguousarray(photo_crop), "drawn": _drawn(height, width)}
    if entry.run.get("color") == "gray":
        gray = {name: Image.fromarray(image).convert("L") for name, image in images.items()}
        return {name: np.asarray(image.convert("RGB")) for name, image in gray.items()}
    return images


def _drawn(height: int, width: int) -> np.ndarray:
    """Draw gradients, edges, a disc and a little noise, the same each time."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    image = np.stack([x, y, 1 - x * y], 2) * 200 + 20
    image[(x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.05] = (230, 60, 40)
    image[(x * 8 % 1 < 0.2) & (y > 0.7)] = (15, 20, 90)
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def reference(entry: Entry, origins: Path, folder: Path, pythons: dict[str, str]) -> str | None:
    """Write the origin's outputs to a folder; return an error, or None.

    `pythons` names the interpreter for each kind of network, if it is not this one.

    The folder gets inputs.npz, and outputs.npz with `NAME.exact` and `NAME.image`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "inputs.npz", **inputs(entry))  # type: ignore[arg-type]
    spec = {
        **entry.run,
        "origin": str(entry.origin(origins)),
        "file": str(entry.file(origins)),
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    files = [str(folder / name) for name in ("spec.json", "inputs.npz", "outputs.npz")]
    python = pythons.get(entry.run["kind"], sys.executable)
    command = [python, str(_HERE / "origin.py"), *files]
    code, _, err = _run(command, _ORIGIN_SECONDS, cwd=entry.origin(origins))
    return None if code == 0 else _last_line(err) or f"exit code {code}"


def pair(folder: Path) -> list[str]:
    """Write the photo and what the origin's script made of it as PNG; return both paths."""
    files = [folder / "given.png", folder / "expected.png"]
    with np.load(folder / "inputs.npz") as images, np.load(folder / "outputs.npz") as outputs:
        for file, image in zip(files, (images["photo"], outputs["photo.image"]), strict=True):
            Image.fromarray(image).save(file)
    return [str(file) for file in files]


class Exporter:
    """A process that exports one file after another; it is started again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def export(self, file: Path, options: Sequence[str], folder: Path) -> dict[str, Any]:
        """Export a file, run its bundle on the entry's images, and return what happened.

        The result holds `exit`, `seconds` of processor time, and `error`, or `assumed` lines,
        `summary`, and the largest and the mean difference from the origin in levels.
        """
        if self._process is None:
            command = [sys.executable, str(_HERE / "exporting.py")]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        process = self._process
        timer = threading.Timer(_EXPORT_SECONDS, process.kill)
        timer.start()
        asked = [str(file), "--precision", "fp32", *options]
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"arguments": asked, "folder": str(folder)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            process.wait()
            self._process = None
            return {"exit": 124, "error": f"ended by signal, or after {_EXPORT_SECONDS} s"}
        return _row(json.loads(line), asked, folder)

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def _row(answer: dict[str, Any], asked: list[str], folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"exit": answer["exit"], "seconds": answer["seconds"]}
    text = answer["out"] + answer["err"]
    for argument in (str(folder / "out.srd"), *asked):  # the record names no folder of this machine
        if "/" in argument:
            text = text.replace(f"{Path(argument).parent}/", "")
    if row["exit"] != 0:
        return row | {"error": _last_line(text) or "no message"}
    lines = [" ".join(line.split()) for line in text.splitlines()]
    row["assumed"] = [line for line in lines if "assumed" in line.lower()]
    row["summary"] = [line for line in lines if line.startswith(_SUMMARY)]
    if "bundle_error" in answer:
        return row | {"error": f"bundle: {answer['bundle_error']}"}
    return row | difference(folder)


def commit() -> str:
    """Return the commit of sr-export that runs."""
    return _run(["git", "rev-parse", "--short", "HEAD"], 30, cwd=_HERE)[1].strip()


def difference(folder: Path) -> dict[str, Any]:
    """Compare a bundle's images with the origin's, in levels of 8 bits."""
    worst = 0.0
    means: list[float] = []
    with np.load(folder / "results.npz") as results, np.load(folder / "outputs.npz") as expected:
        for name in results.files:
            exact, image = expected[f"{name}.exact"], results[name]
            image = _center(image, exact.shape)
            if image.shape != exact.shape:
                shapes = [f"{s[1]}x{s[0]}" for s in (image.shape, exact.shape)]
                return {"error": f"size {shapes[0]} in place of {shapes[1]}"}
            apart = np.abs(image - np.clip(np.rint(exact), 0, 255))
            worst = max(worst, float(apart.max()))
            means.append(float(apart.mean()))
    return {"max": worst, "mean": round(float(np.mean(means)), 3)}


def _center(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Crop the center, if the origin's network cut off a few pixels at each side."""
    edges = [(ours - theirs) // 2 for ours, theirs in zip(image.shape, shape, strict=True)][:2]
    if edges[0] == edges[1] and 0 < edges[0] <= _CUT:
        return image[edges[0] : -edges[0], edges[1] : -edges[1]]
    return image


def _run(command: list[str], seconds: float, cwd: Path) -> tuple[int, str, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"more than {seconds:.0f} s"
    return done.returncode, done.stdout, done.stderr


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
