"""The options of an export: plain data, which is sent to the worker process as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

# Imported at run time: sr_deploy.bundle.schema reads the annotations to decode the JSON.
from sr_deploy.bundle.manifest import Method, Precision, YuvFormat  # noqa: TC001
from sr_export.models.ranges import Ranges  # noqa: TC001


@dataclass(frozen=True)
class Options:
    """What to export and how."""

    checkpoint: str
    """Path of the file."""
    name: str
    """Name of the bundle."""
    key: str | None = None
    """Path of the weights in the checkpoint; None: search."""
    ema: bool = True
    """Whether averaged weights are preferred."""
    trust: bool = False
    """Whether TorchScript and torch.export programs, which can run code, may be opened."""
    architecture: str | None = None
    """Architecture and settings, such as `FSRCNN scale=3`; None: recognized by the weights."""
    arch_file: tuple[str, ...] = ()
    """The user's module, `FILE.py:CLASS`, and its arguments, `KEY=VALUE`; empty: none."""
    latent: int | None = None
    """Random numbers from which the module of `arch_file` generates an image; None: an upscaler."""
    network_output: str | None = None
    """Name or number of the output to use, of several; None: the only one that is an image."""
    ranges: Ranges | None = None
    """Pixel values of the network; None: known for the architecture, or inferred from photos."""
    expect: tuple[str, str] | None = None
    """Paths of an image and of the result of the user's own program; None: photos decide."""
    accept: bool = False
    """Whether a network is exported that restores no photo."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    """Precisions to offer if their quality is sufficient; FP32 is always included."""
    yuv: tuple[YuvFormat, ...] = ()
    """Video formats that get variants of their own."""
    calibration: str | None = None
    """Folder of photos to calibrate INT8 on; None: the photos of sr-export."""
    low_resolution: bool = False
    """Whether these photos are used without downscaling."""
    method: Method = "percentile"
    """How the clipping of activations is chosen."""
    seed: int = 0
    """Selects calibration photos and tiles."""
    budgets: dict[str, float] = field(default_factory=dict)
    """Minimum PSNR in dB against FP32 by precision, where it differs from the default."""
