"""torch tensors that live on the GPU: no copy through the host, on torch's own stream.

    python torch_on_gpu.py BUNDLE

Needs an NVIDIA GPU, TensorRT and torch with CUDA. It has not been run yet (docs/gpu.md).
"""

from __future__ import annotations

import sys

import torch
from torch.utils.dlpack import from_dlpack

from sr_deploy import Engine


def main(bundle: str) -> None:
    """Upscale what another network made, and go on with it in torch."""
    with Engine(bundle, backend="tensorrt") as engine:
        frame = torch.randint(0, 256, (540, 960, 3), dtype=torch.uint8, device="cuda")
        stream = torch.cuda.current_stream()
        big = from_dlpack(engine.upscale(frame, stream=stream))
        print(tuple(big.shape), big.float().mean().item())


if __name__ == "__main__":
    main(*sys.argv[1:])
