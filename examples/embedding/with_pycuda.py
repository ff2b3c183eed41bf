"""Embeds the engine in a PyCUDA program: one context, the program's stream and arrays, no copies.

    pip install sr-deploy[pycuda]     # PyCUDA comes as source and is built with the CUDA toolkit
    python with_pycuda.py checkpoint.srd photo.png big.png

The engine calls CUDA through cuda-python, in the primary context of the device. PyCUDA has no CUDA
graphs and takes no stream of others, so it is the engine that takes PyCUDA's.
"""

from __future__ import annotations

import sys

import numpy as np
import pycuda.autoprimaryctx  # the primary context: `pycuda.autoinit` would make another one
import pycuda.driver
from PIL import Image
from pycuda import gpuarray

from sr_deploy import Engine


def main(bundle: str, source: str, target: str) -> None:
    """Upscale an image in both ways that a PyCUDA program has its frames."""
    picture = np.asarray(Image.open(source).convert("RGB"))
    with Engine(bundle, backend="tensorrt") as engine:
        height, width, channels = picture.shape
        scale = engine.spec.scale
        larger = (scale * height, scale * width, channels)

        # Frames in PyCUDA's page-locked memory are uploaded from there and downloaded to there.
        frame = pycuda.driver.pagelocked_empty(picture.shape, np.uint8)
        result = pycuda.driver.pagelocked_empty(larger, np.uint8)
        frame[...] = picture
        engine.upscale(frame, result)

        # Frames on the GPU stay there. Nothing waits until the program does: what it puts into its
        # stream before and after the engine comes before and after the engine's work.
        stream = pycuda.driver.Stream()
        on_gpu = gpuarray.empty(picture.shape, np.uint8)
        upscaled = gpuarray.empty(larger, np.uint8)
        again = pycuda.driver.pagelocked_empty(larger, np.uint8)
        on_gpu.set_async(frame, stream)
        engine.upscale(on_gpu, upscaled, stream=stream)
        upscaled.get_async(stream, again)
        stream.synchronize()

    if not np.array_equal(result, again):
        sys.exit("the two ways differ")
    Image.fromarray(result).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
