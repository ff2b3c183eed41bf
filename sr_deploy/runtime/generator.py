"""Images out of random numbers: what `Engine.generate` does."""

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
    from sr_deploy.runtime.lanes import LanePool
    from sr_deploy.runtime.memory import Budget
    from sr_deploy.runtime.session import Session

MOST_AT_ONCE = 16
"""Images that go through together; more of them gain nothing, and take more memory."""


class ImageGenerator:
    """Takes random numbers through the network of an engine; threads may share it.

    Args:
        networks: What runs it.
        model: What the manifest says of it.
        budget: The memory that may be taken.
    """

    def __init__(self, networks: Session, model: Model, budget: Budget) -> None:
        self._networks = networks
        self._model = model
        self._budget = budget

    def images(self, noise: NDArray[Any] | None, count: int, seed: int | None) -> NDArray[np.uint8]:
        """Return images; see `Engine.generate`."""
        latent = self._model.latent
        if latent is None:
            raise InvalidInputError(
                f"{self._model.architecture} takes images and makes none of its own; sr-upscale "
                "runs it, or Engine.upscale"
            )
        pool = self._networks.pool(pixel_format(self._model.channels, 1))
        if noise is None:
            noise = drawn(latent.size, count, seed)
        elif seed is not None or count != 1:
            raise InvalidInputError("count and seed are for noise that is drawn; noise was given")
        given = _checked(noise, latent)
        shape = (len(given), latent.height, latent.width, self._model.channels)
        try:
            result = np.empty(shape, np.uint8)
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory for images of {shape}: {error}") from error
        step = self._at_once(pool, latent, given.nbytes + result.nbytes)
        with pool.lane() as lane:
            _fill(result, given, lane, step)
        return result

    def _at_once(self, pool: LanePool, latent: Latent, held: int) -> int:
        """Return how many images the memory budget allows to go through together.

        Raises:
            OutOfMemoryError: not even one.
        """
        footprint = pool.network.footprint.times(pool.network.lanes)
        budget = replace(self._budget, held=self._networks.held)
        one = latent.height * latent.width
        budget.require(one, footprint, held, 0, f"an image of {latent.width}x{latent.height}")
        affordable = MOST_AT_ONCE
        if footprint.per_pixel:  # of the host's memory
            affordable = min(affordable, budget.pixels(footprint, held, 0) // one)
        return min(affordable, pool.network.images_at_once or affordable)


def _fill(images: NDArray[np.uint8], noise: NDArray[np.float32], lane: Lane, at_once: int) -> None:
    """Make images; where memory is short after all, fewer at once.

    Raises:
        OutOfMemoryError: there is none for a single one.
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


def drawn(size: int, count: int, seed: int | None) -> NDArray[np.float32]:
    """Return random numbers (count, size) of the standard normal distribution.

    Raises:
        InvalidInputError: the count is below 1, or the seed below 0.
    """
    if count < 1:
        raise InvalidInputError(f"count must be at least 1, found {count}")
    if seed is not None and seed < 0:
        raise InvalidInputError(f"seed must be at least 0, found {seed}")
    return np.random.default_rng(seed).standard_normal((count, size), np.float32)


def _checked(noise: object, latent: Latent) -> NDArray[np.float32]:
    """Return noise as the network takes it.

    Raises:
        InvalidInputError: it is no array of (N, size) finite numbers.
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
        raise InvalidInputError("noise holds NaN or infinity")
    return given
