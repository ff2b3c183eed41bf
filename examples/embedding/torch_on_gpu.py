"""Upscale torch tensors on the GPU: no copy through the host, on torch's current stream.

    python torch_on_gpu.py BUNDLE

Needs an NVIDIA GPU, TensorRT and torch with CUDA. Untested on GPUs (docs/gpu.md).
"""

from __future__ import annotations

import sys

import torch
from torch.utils.dlpack import from_dlpack

from sr_deploy import Engine


def main(bundle: str) -> None:
    """Upscale a tensor and continue with the result in torch."""
    with Engine(bundle, backend="tensorrt") as engine:
        frame = torch.randint(0, 256, (540, 960, 3), dtype=torch.uint8, device="cuda")
        stream = torch.cuda.current_stream()
        big = from_dlpack(engine.upscale(frame, stream=stream))
        print(tuple(big.shape), big.float().mean().item())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
