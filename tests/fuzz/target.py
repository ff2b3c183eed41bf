"""The child process of the fuzzer: opens files as the commands do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from sr_deploy._worker import serve

Progress = Callable[[str], None]


def read(progress: Progress, path: str) -> list[object]:
    """Read and recognize a checkpoint as sr-export does before it exports.

    Returns:
        0 and what it is, or 1 and the error, as the command would exit and print.
    """
    import torch

    from sr_deploy.cli import console
    from sr_deploy.errors import SrDeployError
    from sr_export.checkpoint import load
    from sr_export.checkpoint.state_dict import strippings
    from sr_export.graph import foreign_onnx
    from sr_export.models import generators
    from sr_export.models.recognize import recognize

    torch.set_num_threads(1)
    try:
        content = load.read(Path(path))
        if isinstance(content, load.Onnx):
            return [0, f"ONNX x{foreign_onnx.read(content.path).scale}"]
        assert isinstance(content, load.Weights)
        if generators.find(content.tensors) is not None:
            return [0, "a generator"]
        return [0, recognize(strippings(content.tensors)).architecture]
    except (SrDeployError, OSError, MemoryError) as error:
        return [1, console.printable(console.describe(error)) + "\n"]


def upscale(progress: Progress, arguments: list[str]) -> list[object]:
    """Run sr-upscale; return its exit code and what it prints to stderr."""
    from sr_deploy.cli import upscale

    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        code = upscale.main(arguments)
    return [code, printed.getvalue()]


if __name__ == "__main__":
    serve({each.__name__: each for each in (read, upscale)})
