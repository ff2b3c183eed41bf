"""What a bundle says of itself: `manifest.json`, as typed and checked data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sr_deploy.bundle import schema as strict
from sr_deploy.errors import BundleError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 2
NAME = "manifest.json"
REPORT = "report.html"
"""The exporter's pictures and figures, for people."""
_LARGEST_MANIFEST = 1 << 20

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Method = Literal["percentile", "minmax", "mse"]
"""How the range of activations that INT8 covers is chosen."""
YuvFormat = Literal["yuv420p", "nv12", "p010"]
"""Of video, by FFmpeg's names: 8 bits, planar and semi-planar, and 10 bits in 16."""
PixelFormat = Literal["rgb24", "rgb48", "gray8", "gray16", YuvFormat]


@dataclass(frozen=True)
class Stored:
    """A file of the bundle, by its name inside the folder and its hash."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Latent:
    """What a generator takes, which makes images out of random numbers, and what it gives."""

    size: int
    """How many numbers make an image."""
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 1 <= value <= 1 << 16:
                raise BundleError(f"{name} must be from 1 to {1 << 16}, found {value}")


@dataclass(frozen=True)
class Model:
    """What the runtime must know of the network, whatever file it then runs.

    Lengths are in pixels of the low-resolution image; of a generator, which has none, in pixels of
    the image that it makes.
    """

    architecture: str
    scale: int
    channels: Literal[1, 3]
    halo: int | None
    """How far away an input pixel can still change an output pixel; None: from everywhere."""
    multiple_of: int
    """Tiles must start at multiples of this for their output to equal the whole frame's."""
    minimum: int
    """The smallest height and width that the graph accepts."""
    fixed_size: tuple[int, int] | None
    """The only (height, width) that the graph accepts; None: any."""
    fixed_batch: int | None
    """The only batch that the graph accepts; None: any."""
    parameters: int
    gflop_per_megapixel: float
    """Billions of floating-point operations per million low-resolution pixels."""
    bytes_per_pixel: int
    """Bytes of FP32 intermediates alive at once, at their peak, per low-resolution pixel."""
    bytes_per_pair: float = 0.0
    """The same for each pair of those pixels, where attention has every pixel look at every other
    one: then memory grows with the square of the image."""
    latent: Latent | None = None
    """None: it takes images and upscales them. Else it is a generator, and none of its variants
    takes pixels: float32 (N, size) goes in."""

    def __post_init__(self) -> None:
        bounds = {
            "scale": (1, 64),
            "halo": (0, 1 << 20),
            "multiple_of": (1, 1 << 12),
            "minimum": (1, 1 << 12),
            "fixed_batch": (1, 1 << 12),
            "parameters": (0, 1 << 40),
            "bytes_per_pixel": (1, 1 << 32),
            "bytes_per_pair": (0, 1 << 16),
        }
        sides = self.fixed_size or ()
        checked = [(name, getattr(self, name), *bound) for name, bound in bounds.items()]
        checked += [("fixed_size", side, 1, 1 << 16) for side in sides]
        for name, value, low, high in checked:
            if value is not None and not low <= value <= high:
                raise BundleError(f"{name} must be from {low} to {high}, found {value}")

    def require_images(self) -> None:
        """Check that the network takes images.

        Raises:
            InvalidInputError: it is a generator.
        """
        if self.latent is not None:
            raise InvalidInputError(
                f"{self.architecture} makes images out of random numbers and takes none; "
                "sr-generate runs it, or Engine.generate"
            )


@dataclass(frozen=True)
class Quality:
    """How the frames of a precision compare with FP32's, on images that it was not tuned on."""

    psnr: float | None
    """Decibels between the two outputs, of the image where they differ most; None: all equal."""
    ssim: float
    """Of the image where they differ most."""
    largest_difference: int
    """In levels of 255."""
    loss: float | None
    """Decibels of PSNR, of all images together, against the originals that the low-resolution
    images were made from, lost beside FP32; None: there are no originals."""
    images: int


@dataclass(frozen=True)
class Variant:
    """One ONNX file and the precision to run it in: bytes in, bytes out, NHWC.

    Two variants may share a file: BF16 is computed from the FP32 one where the device can.
    """

    file: str
    sha256: str
    precision: Precision
    pixel_format: PixelFormat
    quality: Quality | None = None
    """None for FP32, the measure of the others."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Backends that compute it worse than it was measured, by name, each with what was found."""


@dataclass(frozen=True)
class Step:
    """One placement of INT8 that was tried."""

    restored: tuple[str, ...]
    """The layers that were kept in half precision."""
    fitted: bool
    """Whether weights were fitted to the inputs that they meet, or rounded to the nearest."""
    share: float
    """Of the network's multiply-adds that this leaves in INT8."""
    psnr: float | None
    """Decibels against FP32, of the worst image; None: equal."""


@dataclass(frozen=True)
class Quantisation:
    """How INT8 was calibrated, and how it was decided which layers compute in it."""

    calibration: str
    """On what, in words."""
    method: Literal[Method, "trained"]
    """How the clipping of activations was chosen; of a network trained for INT8, by training."""
    layers: int
    """Layers that could compute in INT8."""
    steps: tuple[Step, ...]
    """In the order in which they were tried; the last is the one taken, if INT8 is offered."""


@dataclass(frozen=True)
class Check:
    """One comparison of an exported file with the PyTorch module."""

    shape: tuple[int, int, int, int]
    """Batch, channels, height, width."""
    max_error: float
    """Largest absolute difference, on the scale where white is 1."""


@dataclass(frozen=True)
class Source:
    """Where the weights came from."""

    name: str
    sha256: str
    taken: str
    """Which part of the checkpoint was taken, in words."""
    ranges: str
    """The values that the network itself takes and gives, in words; the bundle's are [0, 1]."""


@dataclass(frozen=True)
class Manifest:
    """All of `manifest.json`."""

    schema: int
    name: str
    created: str
    source: Source
    model: Model
    onnx: Stored
    """The float file for other tools: NCHW RGB in [0, 1]."""
    variants: tuple[Variant, ...]
    checks: tuple[Check, ...]
    int8: Quantisation | None
    """None: INT8 was not asked for, or there was nothing to quantise."""
    refused: dict[str, str]
    """Precisions that were asked for and are not offered, each with the reason."""
    tools: dict[str, str]
    """Versions of what made this bundle."""

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        BundleError: it is not JSON, of another schema, or a field does not fit.
    """
    advice = "export the checkpoint again with the version that you run"
    return strict.read(Manifest, path, SCHEMA, largest=_LARGEST_MANIFEST, advice=advice)
