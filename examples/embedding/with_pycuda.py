"""Embed the engine in a PyCUDA program: its context, stream and arrays, without copies.

    pip install "sr-deploy[pycuda]"     # builds PyCUDA from source with the CUDA toolkit
    python with_pycuda.py BUNDLE photo.png big.png

The engine calls CUDA through cuda-python in the device's primary context. PyCUDA has no CUDA graphs
and accepts no foreign streams, so the engine uses PyCUDA's stream. Untested on GPUs (docs/gpu.md).
"""

from __future__ import annotations

import sys

import numpy as np
import pycuda.autoprimaryctx  # the primary context; `pycuda.autoinit` creates another
import pycuda.driver
from PIL import Image
from pycuda import gpuarray

from sr_deploy import Engine


def main(bundle: str, source: str, target: str) -> None:
    """Upscale an image from page-locked host memory and from GPU memory, and compare."""
    picture = np.asarray(Image.open(source).convert("RGB"))
    with Engine(bundle, backend="tensorrt") as engine:
        height, width, channels = picture.shape
        scale = engine.spec.scale
        larger = (scale * height, scale * width, channels)

        # PyCUDA's page-locked arrays are uploaded and downloaded without another copy.
        frame = pycuda.driver.pagelocked_empty(picture.shape, np.uint8)
        result = pycuda.driver.pagelocked_empty(larger, np.uint8)
        frame[...] = picture
        engine.upscale(frame, result)

        # Frames on the GPU stay there. The engine's work runs in the order of the stream, after
        # `set_async` and before `get_async`; only `synchronize` waits.
        stream = pycuda.driver.Stream()
        on_gpu = gpuarray.empty(picture.shape, np.uint8)
        upscaled = gpuarray.empty(larger, np.uint8)
        again = pycuda.driver.pagelocked_empty(larger, np.uint8)
        on_gpu.set_async(frame, stream)
        engine.upscale(on_gpu, upscaled, stream=stream)
        upscaled.get_async(stream, again)
        stream.synchronize()

    if not np.array_equal(result, again):
        sys.exit("the results differ")
    Image.fromarray(result).save(target)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
