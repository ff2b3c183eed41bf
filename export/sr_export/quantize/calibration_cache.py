"""A cache of calibration statistics, for the same network on the same images."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.files import atomic_file
from sr_export.quantize.activations import BINS, Histogram, collect, largest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    from numpy.typing import NDArray

    Statistics = tuple[dict[str, float], dict[str, Histogram]]

_log = logging.getLogger(__name__)

# Increased when the statistics of the same graph and tiles change.
_VERSION = 1
_MOST_FILES = 50
_DAMAGED = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)


def statistics(
    model: onnx.ModelProto,
    names: Sequence[str],
    tiles: Sequence[NDArray[np.uint8]],
    report: Callable[[str], None],
) -> Statistics:
    """Return the largest values of all tensors and histograms of some, from the cache if possible.

    Args:
        model: Float32, NCHW in [0, 1].
        names: Names of the tensors with histograms.
        tiles: Low-resolution images (H, W, C), all of one size.
        report: Called with the progress.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or a named tensor has infinities or NaN.
    """
    path = _path(_key(model, names, tiles))
    found = _load(path, names)
    if found is None:
        report("calibrating: activation ranges")
        largest_values = largest(model, tiles)
        found = largest_values, collect(model, names, tiles, largest_values, report)
        _store(path, found)
    return found


def folder() -> Path:
    """Return the folder of the cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "sr-deploy" / "calibration"


def _path(key: str) -> Path:
    return folder() / f"{key}.npz"


def _key(model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256(repr((_VERSION, BINS, list(names))).encode())
    digest.update(model.SerializeToString(deterministic=True))
    for tile in tiles:
        digest.update(repr(tile.shape).encode())
        digest.update(tile.tobytes())
    return digest.hexdigest()


def _load(path: Path, names: Sequence[str]) -> Statistics | None:
    """Return cached statistics; None if there are none, or they are damaged."""
    try:
        # Opened here, because numpy does not close a damaged file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            largest_values = dict(
                zip(kept["names"].tolist(), kept["largest"].tolist(), strict=True)
            )
            counts = kept["counts"]
        if counts.shape != (len(names), BINS) or counts.dtype != np.int64:
            raise ValueError(f"counts of shape {counts.shape} and dtype {counts.dtype}")
        histograms = {
            name: Histogram(each, largest_values[name])
            for name, each in zip(names, counts, strict=True)
        }
        os.utime(path)  # files are dropped by time of last use
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        _log.info("%s: damaged, computing it again (%s)", path, error)
        return None
    return largest_values, histograms


def _store(path: Path, found: Statistics) -> None:
    """Write statistics and drop old files; if the cache cannot be written, continue without."""
    largest_values, histograms = found
    counts = [each.counts for each in histograms.values()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            np.savez_compressed(
                temporary,
                names=np.array(list(largest_values), np.str_),
                largest=np.array(list(largest_values.values())),
                counts=np.array(counts, np.int64).reshape(-1, BINS),
            )
        _drop_oldest(path.parent)
    except OSError as error:
        _log.info("%s: cannot be written (%s)", path, error)


def _drop_oldest(place: Path) -> None:
    files = sorted(place.glob("*.npz"), key=lambda each: each.stat().st_mtime)
    for each in files[:-_MOST_FILES]:
        each.unlink(missing_ok=True)
