"""What the user asked of an export; plain data, so that it can go to another process."""

from __future__ import annotations

from dataclasses import dataclass, field

# Not for type checking only: sr_deploy.bundle.schema reads the annotations when a job is decoded.
from sr_deploy.bundle.manifest import Method, Precision, YuvFormat  # noqa: TC001
from sr_export.models.ranges import Ranges  # noqa: TC001


@dataclass(frozen=True)
class Options:
    """What to export and how."""

    checkpoint: str
    """The file to read."""
    name: str
    """What the bundle calls itself."""
    key: str | None = None
    """Where in the checkpoint the weights are; None: found by the usual names."""
    ema: bool = True
    """Whether an averaged copy of the weights is preferred."""
    trust: bool = False
    """Whether a torch.export program may be opened, which can run code."""
    architecture: str | None = None
    """Its name and what its weights do not tell, `FSRCNN scale=3`; None: recognised by them."""
    arch_file: tuple[str, ...] = ()
    """A file and what in it makes the module, `FILE.py:CLASS`, and what to call that with,
    `KEY=VALUE`; empty: the architecture is one that is known."""
    latent: int | None = None
    """Of how many random numbers the module of `arch_file` makes an image; None: of an image."""
    ranges: Ranges | None = None
    """None: found out by looking at the output."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    """Those to offer if they hold; FP32 is always there."""
    yuv: tuple[YuvFormat, ...] = ()
    """Formats of video that get variants of their own."""
    calibration: str | None = None
    """A folder of images to calibrate INT8 on; None: the project's own."""
    low_resolution: bool = False
    """Whether the images of that folder are what the network will see, not to be made smaller."""
    method: Method = "percentile"
    """How the clipping of activations is chosen."""
    seed: int = 0
    """Of the choice of images and tiles."""
    budgets: dict[str, float] = field(default_factory=dict)
    """Decibels against FP32 that a precision must hold, where the usual ones do not do."""
