"""Networks in numpy with integer arithmetic, whose results do not depend on the order of sums.

Each upscales single frames (H, W, bytes) of uint8 and represents a class of real networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sr_deploy.backends.host import HostLane
from sr_deploy.bundle.manifest import Model
from sr_deploy.errors import OutOfMemoryError
from sr_deploy.tiling.planner import TilePlan
from tests.sr_deploy.manifests import MODEL

Frame = NDArray[np.uint8]


class Network(Protocol):
    scale: int

    @property
    def model(self) -> Model: ...

    def __call__(self, frame: Frame, /) -> Frame: ...


class Convolutions:
    """3x3 convolutions with zero padding, a modulo in between, and nearest upsampling.

    Every bit within the halo affects the output byte, so any wrong neighbor shows.
    """

    def __init__(self, depth: int = 3, scale: int = 2, grid: int = 1, seed: int = 0) -> None:
        self.scale, self.grid, self.depth = scale, grid, depth
        noise = np.random.default_rng(seed)
        self.weights = 2 * noise.integers(0, 128, (depth, 3, 3)) + 1
        # On a grid, each cell is mixed before and after, so the halo depends on the phase.
        self.halo = depth * grid + (grid - 1)

    @property
    def model(self) -> Model:
        return dataclasses.replace(
            MODEL, scale=self.scale, halo=self.halo, multiple_of=self.grid, minimum=self.grid
        )

    def __call__(self, frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        grid = self.grid
        padding = ((0, -height % grid), (0, -width % grid), (0, 0))
        values = np.pad(frame.astype(np.int64), padding, "reflect" if grid > 1 else "constant")
        for weights in self.weights:
            values = self._mixed(values)
            values = self._convolved(values, weights) % 251
        values = self._mixed(values)[:height, :width]
        return values.repeat(self.scale, 0).repeat(self.scale, 1).astype(np.uint8)

    def _convolved(
        self, values: NDArray[np.int64], weights: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Convolve with neighbors `grid` pixels apart, like those of a space-to-depth image."""
        grid = self.grid
        height, width = values.shape[:2]
        padded = np.pad(values, ((grid, grid), (grid, grid), (0, 0)))
        shifted = (
            weights[i, j] * padded[i * grid : i * grid + height, j * grid : j * grid + width]
            for i in range(3)
            for j in range(3)
        )
        return np.sum([*shifted], axis=0)

    def _mixed(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Replace each pixel by a weighted sum of its cell."""
        grid = self.grid
        if grid == 1:
            return values
        height, width, depth = values.shape
        cells = values.reshape(height // grid, grid, width // grid, grid, depth)
        weights = 1 + 2 * np.arange(grid * grid).reshape(1, grid, 1, grid, 1)
        total = (cells * weights).sum(axis=(1, 3), keepdims=True)
        return ((cells + total) % 251).reshape(values.shape)


class Pooling:
    """Adds the mean of its input: a global network, whose tiles differ from each other."""

    scale = 2
    model = dataclasses.replace(MODEL, scale=2, halo=None)

    def __call__(self, frame: Frame) -> Frame:
        values = np.clip(frame // 2 + frame.mean(axis=(0, 1)) / 2, 0, 255)
        return values.round().astype(np.uint8).repeat(2, 0).repeat(2, 1)


class Inference:
    """Runs an oracle like a backend, records its inputs, and can run out of memory."""

    def __init__(self, network: Callable[[Frame], Frame], most_pixels: int | None = None) -> None:
        self.network = network
        self.most_pixels = most_pixels
        self.shapes: list[tuple[int, ...]] = []
        self.released = self.closed = 0

    def infer(self, pixels: Frame, into: Frame, colour: object = None) -> None:
        self.shapes.append(pixels.shape)
        count, height, width, _ = pixels.shape
        if self.most_pixels is not None and count * height * width > self.most_pixels:
            raise OutOfMemoryError("too large for this test")
        assert pixels.flags.c_contiguous
        assert into.flags.c_contiguous
        for one, result in zip(pixels, into, strict=True):
            result[...] = self.network(one)

    def release(self) -> None:
        self.released += 1

    def close(self) -> None:
        self.closed += 1


def frame(height: int, width: int, depth: int = 3, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, depth), np.uint8)


def upscaled(network: Network, image: Frame, plan: TilePlan, model: Model | None = None) -> Frame:
    """Run a plan; pixels that the lane does not write keep noise."""
    scale = network.scale
    out = frame(scale * image.shape[0], scale * image.shape[1], image.shape[2], seed=99)
    HostLane(Inference(network), model or network.model, "rgb24").run(image, plan, out)
    return out
