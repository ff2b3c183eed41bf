"""The settings of a plain network that its weights do not determine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sr_export.models.ranges import SIGNED, UNIT, Ranges

_UNIT_RANGES = Ranges()


@dataclass(frozen=True)
class ArchSettings:
    """Everything that the weights of a plain network do not determine."""

    scale: int = 1
    activation: str = "relu"
    """Behind stages without PReLU: none, relu, tanh, or leaky with its slope, such as leaky0.2."""
    block_activation: str = "same"
    """Activation inside residual blocks: same or relu."""
    head_activation: bool = True
    """Whether the stages before residual blocks have an activation."""
    tail_activation: bool = True
    """Whether the stages after residual blocks have one, except the last."""
    residual_scale: float = 1.0
    long_skip: bool = False
    """Whether the input of the residual blocks is added to their output."""
    residual: str = "none"
    """Global residual: none, add, subtract (input minus output), or the interpolation by which the
    input is upscaled before the addition: nearest, bilinear, bicubic."""
    final: str = "none"
    """Last activation: none, tanh, sigmoid."""
    mean: str = "none"
    """Image mean that is subtracted and added again: none, div2k."""
    eps: float = 1e-5
    """Epsilon of the normalizations."""
    padding: Literal["zeros", "reflect", "replicate"] = "zeros"
    full_size: int = 2
    """Number of stages behind the last nearest-neighbor upsampling, including the last stage."""
    strided: bool = False
    """Whether stages that add channels have stride 2."""
    output_padding: bool = True
    """Padding of transposed convolutions: half the kernel, with the difference as output padding;
    or the smallest padding that fits."""
    norm: Literal["none", "instance"] = "none"
    """Normalization without weights behind hidden convolutions that have none with weights."""
    block_skip: bool = True
    """Whether the input of a residual block is added to its output."""
    enlarge: int = 1
    """Factor by which images are enlarged before the network."""
    ranges: Ranges = _UNIT_RANGES

    @property
    def sensible(self) -> bool:
        """Whether the combination makes sense: input, output and last activation fit."""
        given, taken = self.ranges.input, self.ranges.output
        plain = given == taken and self.ranges.std == (1.0,)
        if self.final == "sigmoid" and taken != UNIT:
            return False
        if self.final == "tanh" and taken not in (SIGNED, UNIT):
            return False
        if self.residual != "none" and (self.final != "none" or not plain):
            return False
        if self.residual != "none" and (self.residual in ("add", "subtract")) != (self.scale == 1):
            return False
        if self.enlarge > 1 and self.scale > 1:
            return False
        return self.mean == "none" or (plain and self.final == "none" and given != SIGNED)
