"""What calibration found, kept for the next time: the same network on the same images."""

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

# Raised whenever the same graph and tiles would give other statistics than before.
_VERSION = 1
_MOST_FILES = 50
_DAMAGED = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)


def statistics(
    model: onnx.ModelProto,
    names: Sequence[str],
    tiles: Sequence[NDArray[np.uint8]],
    report: Callable[[str], None],
) -> Statistics:
    """Return the largest values of all tensors, and histograms of some; from the cache if there.

    Args:
        model: float32, NCHW RGB in [0, 1] in.
        names: Of the tensors to have histograms of.
        tiles: H,W,C of low resolution, all of one size.
        report: Called with how far it is.

    Raises:
        ExportError: ONNX Runtime cannot run it, or a named tensor has values that are not finite.
    """
    path = _path(_key(model, names, tiles))
    found = _load(path, names)
    if found is None:
        report("calibrating: how large activations get")
        largest_values = largest(model, tiles)
        found = largest_values, collect(model, names, tiles, largest_values, report)
        _store(path, found)
    return found


def folder() -> Path:
    """Return where statistics are kept."""
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
    """Return what is kept, or None where nothing is, or nothing that can be used."""
    try:
        # Opened here, because numpy leaves a damaged file open.
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
        os.utime(path)  # the oldest are those that were not needed for longest
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        _log.info("%s: damaged, so it is made again (%s)", path, error)
        return None
    return largest_values, histograms


def _store(path: Path, found: Statistics) -> None:
    """Keep statistics, and only the latest files; where nothing can be written, do without."""
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
        _log.info("%s: cannot be kept (%s)", path, error)


def _drop_oldest(place: Path) -> None:
    files = sorted(place.glob("*.npz"), key=lambda each: each.stat().st_mtime)
    for each in files[:-_MOST_FILES]:
        each.unlink(missing_ok=True)
