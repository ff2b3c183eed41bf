"""The export of one network, as users run it: precisions, tiles and backends."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch

from architectures.cells import build
from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.cli import console
from sr_deploy.errors import SrDeployError
from sr_export import photos, pipeline
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.options import Options

if TYPE_CHECKING:
    from architectures.cells import Cell
    from sr_deploy.bundle.manifest import Manifest, Model, Precision

BACKENDS = ("openvino", "onnxruntime")
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
# Random weights can lose any number of decibels, so a search for better layers is useless.
_BUDGETS = {"int8": 0.0}
_FRAME = (72, 101)
_STEP = 48


class ExportResult(TypedDict, total=False):
    """The result of an export: either `error`, or all other keys, including those of `Model`.

    Attributes:
        error: The reason of a failure.
        seconds: Seconds of the export.
        worst_error: Largest difference from PyTorch at any shape; white is 1.
        runs: For each backend "yes", or the failure.
        tiles: The tiled output compared with the untiled one.
        precisions: For each, the PSNR against FP32 of the worst photo (None: equal), or the reason
            of its refusal.
        share: Share of the multiply-adds that INT8 computes.
    """

    error: str
    parameters: int
    seconds: int
    worst_error: float
    runs: dict[str, str]
    tiles: str
    precisions: dict[str, float | str | None]
    share: float
    architecture: str
    scale: int
    channels: int
    halo: int | None
    multiple_of: int
    minimum: int
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None
    gflop_per_megapixel: float
    bytes_per_pixel: int


def export(cell: Cell) -> ExportResult:
    """Build a network, export its weights as `sr-export` does, and run the bundle."""
    try:
        module, spec = build(cell)
    except Exception as error:
        return {"error": f"cannot be built: {error}"}
    parameters = sum(each.numel() for each in module.parameters())
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{cell.name}.pth"
        torch.save(module.state_dict(), checkpoint)
        del module
        target = checkpoint.with_suffix(".srd")
        target.mkdir()
        started = time.monotonic()
        try:
            manifest = pipeline.build(_options(cell, checkpoint, spec), target, lambda _: None)
        except (SrDeployError, OSError, MemoryError) as error:
            reason = console.describe(error).replace(f"{checkpoint}: ", "")
            return {"error": reason, "parameters": parameters}
        seconds = round(time.monotonic() - started)
        bundle = Bundle.open(target)
        model: ExportResult = json.loads(manifest.to_json())["model"]
        row: ExportResult = {
            "seconds": seconds,
            "worst_error": max(each.max_error for each in manifest.checks),
            "runs": {name: run(bundle, name) for name in BACKENDS},
            "tiles": tiled(bundle),
            **_measured(manifest),
            **model,
        }
    return row


def _options(cell: Cell, checkpoint: Path, spec: str) -> Options:
    return Options(
        str(checkpoint),
        cell.name,
        architecture=spec or None,
        precisions=("fp32", *(PRECISIONS if cell.small else ())),
        budgets=_BUDGETS,
        accept=True,  # weights are random
    )


def run(bundle: Bundle, backend: str) -> str:
    """Upscale a photo on a backend; return the comparison with ONNX Runtime on the same graph."""
    frame = _photo(bundle.manifest.model, *_FRAME)
    try:
        with Engine(bundle.folder, backend=backend, precision="fp32") as engine:
            found = engine.upscale(frame)
    except SrDeployError as error:
        return console.describe(error)
    expected = OnnxRunner(bundle.folder / "fp32.onnx")
    with contextlib.suppress(SrDeployError):  # of a fixed size: only the engine tiles
        return _compared(found, expected(frame[None])[0], "yes")
    return "yes"


def tiled(bundle: Bundle) -> str:
    """Upscale a photo in tiles; return the comparison with the untiled output."""
    model = bundle.manifest.model
    if model.fixed_size:
        return "one size"
    side = 2 * (model.halo or 0) + max(_STEP, model.minimum, 2 * model.multiple_of)
    side = -(-side // model.multiple_of) * model.multiple_of
    frame = _photo(model, side + _STEP // 2, side + _STEP - 1)  # two tiles in each direction
    whole, found = (_upscaled(bundle, frame, tile) for tile in (None, side))
    return "blended" if model.halo is None else _compared(found, whole, "equal")


def _upscaled(bundle: Bundle, frame: Any, tile: int | None) -> Any:
    engine = Engine(bundle.folder, backend="onnxruntime", precision="fp32", tile=tile)
    with engine:
        return engine.upscale(frame)


def _compared(found: Any, expected: Any, same: str) -> str:
    difference = np.abs(found.astype(int) - expected).max()
    return same if difference <= 1 else f"differs by {difference} levels"


def _photo(model: Model, height: int, width: int) -> Any:
    return photos.batch(1, height, width, model.channels)[0]


def _measured(manifest: Manifest) -> ExportResult:
    """Return the results of the precisions."""
    found: dict[str, float | str | None] = dict(manifest.refused)
    for each in manifest.variants:
        if each.quality is not None:
            found[each.precision] = each.quality.psnr
    row: ExportResult = {"precisions": {name: found[name] for name in PRECISIONS if name in found}}
    if manifest.int8 is not None and manifest.int8.steps:
        row["share"] = round(manifest.int8.steps[-1].share, 3)
    return row
