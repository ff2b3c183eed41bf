"""sr-export and the engine in one process for many files: PyTorch is imported once.

Reads a line of JSON per export, {"arguments": [...], "folder": ...}, and answers with one: the exit
code, what the command printed, and the images of the bundle in results.npz. The command is the
usual one, but for the child process that it would start.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sr_deploy
from sr_deploy.files import atomic_folder
from sr_export import cli, pipeline, subprocess_export

if TYPE_CHECKING:
    from sr_export.options import Options


def main() -> int:
    """Serve exports until the input ends."""
    subprocess_export.export = _export
    answers = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        answer = _run(asked["arguments"], Path(asked["folder"]))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _export(options: Options, target: Path, report: Any, *, module: str = "") -> None:
    with atomic_folder(target) as folder:
        pipeline.build(options, folder, report)


def _run(arguments: list[str], folder: Path) -> dict[str, Any]:
    bundle = folder / "out.srd"
    started = time.process_time()
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            code = cli.main([*arguments, "-o", str(bundle), "--overwrite"])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    answer = {"exit": code, "out": printed.getvalue(), "err": errors.getvalue()}
    answer["seconds"] = round(time.process_time() - started, 1)
    if code == 0:
        try:
            with np.load(folder / "inputs.npz") as images:
                results = _upscaled(bundle, dict(images.items()))
            np.savez(folder / "results.npz", **results)  # type: ignore[arg-type]
        except sr_deploy.SrDeployError as error:
            answer["bundle_error"] = str(error)
    return answer


def _upscaled(bundle: Path, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with sr_deploy.Engine(bundle, precision="fp32", backend="onnxruntime") as engine:
        return {name: engine.upscale(image) for name, image in images.items()}


if __name__ == "__main__":
    raise SystemExit(main())
