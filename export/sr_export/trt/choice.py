"""Which shapes a plan is built for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.bundle.plan_store import Shapes
from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.generator import MOST_AT_ONCE
from sr_deploy.tiling.planner import TilePlanner

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import Latent, Model, PixelFormat
    from sr_deploy.bundle.plan_store import Shape

    Size = tuple[int, int]

_USUAL_FRAME = (1080, 1920)
_LEAST_SIDE = 64
# Of the GPU's free memory: lanes, their frames and other programs want some, too.
_SHARE = 0.5


@dataclass(frozen=True)
class Choice:
    """What the user says of the shapes; nothing: any frame of up to 1080p goes through whole.

    Of a generator, any number of images up to a batch goes through together.
    """

    frame: Size | None = None
    """Height and width of the frames that are to be upscaled, all of them."""
    tile: Size | None = None
    """Height and width of what goes through at once."""
    batch: int | None = None
    limits: tuple[Shape, Shape, Shape] | None = None
    """Batch, height and width, the least, the best and the most."""

    def shapes(self, model: Model, pixel_format: PixelFormat, free: int) -> Shapes:
        """Return the shapes to build a plan for.

        Args:
            model: What the manifest says of the network.
            pixel_format: Of the frames.
            free: Bytes of the GPU's memory that nobody holds.

        Raises:
            InvalidInputError: the network takes nothing of the kind.
        """
        if model.latent is not None:
            return self._numbers(model, model.latent, free)
        batch = self._batch(model)
        if self.limits is not None:
            return _fitting(Shapes(*self.limits), model)
        if model.fixed_size is not None:
            return _fitting(Shapes.exactly((batch, *(self.tile or model.fixed_size))), model)
        if self.tile is not None:
            return _fitting(Shapes.exactly((batch, *self.tile)), model)
        pixels = int(_SHARE * free / (batch * model.bytes_per_pixel))
        height, width = TilePlanner(model).plan(*(self.frame or _USUAL_FRAME), max(1, pixels)).tile
        if pixel_format in get_args(YuvFormat):  # the colour planes are below the brightness
            height = height * 3 // 2
        best = (batch, height, width)
        if self.frame is not None:
            return Shapes.exactly(best)
        least = max(_LEAST_SIDE, model.minimum)
        return Shapes((batch, min(least, height), min(least, width)), best, best)

    def _numbers(self, model: Model, latent: Latent, free: int) -> Shapes:
        """Return the shapes of what a generator takes."""
        if self.frame or self.tile or self.limits:
            raise InvalidInputError(
                "a generator takes numbers, no frames; only --batch can be chosen, the images that "
                "it makes together"
            )
        image = latent.height * latent.width * model.bytes_per_pixel
        most = self.batch or max(1, min(MOST_AT_ONCE, int(_SHARE * free / image)))
        best = (most, 1, latent.size)
        return Shapes((1, 1, latent.size), best, best)

    def _batch(self, model: Model) -> int:
        if model.fixed_batch is None:
            return self.batch or 1
        if self.batch not in (None, model.fixed_batch):
            raise InvalidInputError(
                f"the network takes batches of {model.fixed_batch} only, not of {self.batch}"
            )
        return model.fixed_batch


def _fitting(shapes: Shapes, model: Model) -> Shapes:
    """Return the shapes, if the network takes them.

    Raises:
        InvalidInputError: it does not.
    """
    _, height, width = shapes.least
    if min(height, width) < model.minimum:
        raise InvalidInputError(
            f"the network takes frames from {model.minimum}x{model.minimum} pixels on, "
            f"not {width}x{height}"
        )
    if model.fixed_size is not None and shapes != Shapes.exactly(
        (shapes.best[0], *model.fixed_size)
    ):
        sides = "x".join(map(str, model.fixed_size))
        raise InvalidInputError(f"the network takes frames of {sides} (height x width) only")
    return shapes
