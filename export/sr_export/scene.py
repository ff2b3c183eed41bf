"""An image that the precisions of a network are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_export.metrics import psnr

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Scene:
    """An image with the outputs of several precisions.

    Raises:
        ValueError: The FP32 output is missing, or the shapes do not match.
    """

    name: str
    low: NDArray[np.uint8]
    """H x W x C, C 1 or 3: the input; for a generator, its latent values."""
    outputs: Mapping[Precision, NDArray[np.uint8]]
    """sH x sW x C: FP32 and each precision that is offered or refused."""
    truth: NDArray[np.uint8] | None
    """sH x sW x C: the original, if there is one."""

    def __post_init__(self) -> None:
        if "fp32" not in self.outputs:
            raise ValueError(f"{self.name}: no FP32 output; all others are compared with it")
        if self.low.ndim == 1:
            return
        height, width, channels = self.low.shape
        scale = self.outputs["fp32"].shape[0] // height
        wanted = (scale * height, scale * width, channels)
        found = {each.shape for each in (*self.outputs.values(), self.reference)}
        if scale < 1 or channels not in (1, 3) or found != {wanted}:
            raise ValueError(
                f"{self.name}: outputs and original have the shapes {sorted(found)}; each must be "
                f"the same multiple of the input, {self.low.shape}, with 1 or 3 channels"
            )

    @property
    def fp32(self) -> NDArray[np.uint8]:
        """The FP32 output."""
        return self.outputs["fp32"]

    @property
    def reference(self) -> NDArray[np.uint8]:
        """The original, or the FP32 output if there is none."""
        return self.fp32 if self.truth is None else self.truth

    @property
    def precisions(self) -> list[Precision]:
        """The precisions that have outputs, FP32 first."""
        return [each for each in PRECISIONS if each in self.outputs]

    def closeness(self) -> float:
        """Return the PSNR between FP32 and the precision that differs most."""
        return min(psnr(self.fp32, each) for each in self.outputs.values())
