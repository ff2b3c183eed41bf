"""Image generation from noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.errors import InvalidInputError, OutOfMemoryError
from sr_deploy.runtime.selection import pixel_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.backends.base import Lane
    from sr_deploy.bundle.manifest import Latent, Model
    from sr_deploy.runtime.memory import Budget
    from sr_deploy.runtime.session import LanePool, Session

MOST_AT_ONCE = 16
"""Largest batch of images; larger ones gain nothing and take more memory."""


class ImageGenerator:
    """Generates images with the network of a session; threads may share it.

    Args:
        session: The loaded network.
        model: The network's description in the manifest.
        budget: Memory that may be taken.
    """

    def __init__(self, session: Session, model: Model, budget: Budget) -> None:
        self._session = session
        self._model = model
        self._budget = budget

    def images(self, noise: NDArray[Any] | None, count: int, seed: int | None) -> NDArray[np.uint8]:
        """Return images; see `Engine.generate`."""
        latent = self._model.latent
        if latent is None:
            raise InvalidInputError(
                f"{self._model.architecture} upscales images and is not a generator; run it with "
                "sr-upscale or Engine.upscale"
            )
        pool = self._session.pool(pixel_format(self._model.channels, 1))
        if noise is None:
            noise = draw_noise(latent.size, count, seed)
        elif seed is not None or count != 1:
            raise InvalidInputError("count and seed apply to drawn noise, but noise was passed")
        given = _checked(noise, latent)
        shape = (len(given), latent.height, latent.width, self._model.channels)
        try:
            result = np.empty(shape, np.uint8)
        except MemoryError as error:
            raise OutOfMemoryError(f"cannot allocate images of shape {shape}: {error}") from error
        step = self._batch(pool, latent, given.nbytes + result.nbytes)
        with pool.lane() as lane:
            _fill(result, given, lane, step)
        return result

    def _batch(self, pool: LanePool, latent: Latent, held: int) -> int:
        """Return the batch that the memory budget allows.

        Raises:
            OutOfMemoryError: not even one image fits.
        """
        footprint = pool.footprint
        budget = replace(self._budget, held=self._session.held)
        one = latent.height * latent.width
        budget.require(one, footprint, held, 0, f"an image of {latent.width}x{latent.height}")
        affordable = MOST_AT_ONCE
        if footprint.per_pixel:  # of the host's memory
            affordable = min(affordable, budget.pixels(footprint, held, 0) // one)
        return min(affordable, pool.network.images_at_once or affordable)


def _fill(images: NDArray[np.uint8], noise: NDArray[np.float32], lane: Lane, at_once: int) -> None:
    """Generate images, with a smaller batch after each out-of-memory error.

    Raises:
        OutOfMemoryError: not even one image fits.
    """
    done = 0
    while done < len(images):
        batch = slice(done, done + at_once)
        try:
            lane.generate(noise[batch], images[batch])
        except OutOfMemoryError:
            if at_once == 1:
                raise
            lane.release()
            at_once //= 2
        else:
            done += at_once


def draw_noise(size: int, count: int, seed: int | None) -> NDArray[np.float32]:
    """Return noise (count, size) from the standard normal distribution.

    Raises:
        InvalidInputError: `count` is below 1, or `seed` below 0.
    """
    if count < 1:
        raise InvalidInputError(f"count must be at least 1, found {count}")
    if seed is not None and seed < 0:
        raise InvalidInputError(f"seed must be at least 0, found {seed}")
    return np.random.default_rng(seed).standard_normal((count, size), np.float32)


def _checked(noise: object, latent: Latent) -> NDArray[np.float32]:
    """Return noise as contiguous float32 (N, size).

    Raises:
        InvalidInputError: it is not an array (N, size) of finite numbers.
    """
    if not isinstance(noise, np.ndarray) or noise.dtype.kind not in "fiu":
        found = getattr(noise, "dtype", type(noise).__name__)
        raise InvalidInputError(f"noise must be a numpy array of real numbers, found {found}")
    if noise.shape[1:] not in ((latent.size,), (latent.size, 1, 1)) or len(noise) == 0:
        raise InvalidInputError(
            f"noise must have shape (N, {latent.size}) with N of at least 1, found {noise.shape}"
        )
    given = np.ascontiguousarray(noise.reshape(len(noise), -1), np.float32)
    if not np.isfinite(given).all():
        raise InvalidInputError("noise contains NaN or infinity")
    return given
