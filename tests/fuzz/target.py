"""The child process of the fuzzer: opens files as the commands do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sr_deploy._worker import serve

Progress = Callable[[str], None]


def checkpoint(progress: Progress, path: str) -> str:
    """Read and recognize a checkpoint of any kind, as sr-export does before it exports."""
    import torch

    from sr_export.checkpoint import load
    from sr_export.checkpoint.state_dict import strippings
    from sr_export.graph import foreign_onnx
    from sr_export.models import generators
    from sr_export.models.recognize import recognize

    torch.set_num_threads(1)
    content = load.read(Path(path))
    if isinstance(content, load.Onnx):
        return f"ONNX x{foreign_onnx.read(content.path).scale}"
    assert isinstance(content, load.Weights)
    if generators.find(content.tensors) is not None:
        return "a generator"
    return recognize(strippings(content.tensors)).architecture


def bundle(progress: Progress, path: str) -> str:
    """Open a bundle and upscale an image of it."""
    import numpy as np

    from sr_deploy import Engine

    with Engine(path, threads=1, memory="512MiB", build="never") as engine:
        if engine.spec.latent is not None:
            return f"{engine.generate(count=1, seed=0).shape}"
        return f"{engine.upscale(np.zeros((24, 16, 3), np.uint8)).shape}"


def image(progress: Progress, path: str) -> str:
    """Read an image and write it back."""
    from sr_deploy.images.reading import read

    return str(type(read(Path(path))))


if __name__ == "__main__":
    serve({each.__name__: each for each in (checkpoint, bundle, image)})
