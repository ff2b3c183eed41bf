"""The manifest of a bundle: `manifest.json` as typed and checked data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sr_deploy.bundle import schema
from sr_deploy.errors import BundleError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 2
NAME = "manifest.json"
REPORT = "report.html"
"""The exporter's report for people."""
_LARGEST_MANIFEST = 1 << 20

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Method = Literal["percentile", "minmax", "mse"]
"""How the clipping range of INT8 activations is chosen."""
YuvFormat = Literal["yuv420p", "nv12", "p010"]
"""Video formats with FFmpeg's names: 8 bits planar and semi-planar, and 10 bits in 16."""
PixelFormat = Literal["rgb24", "rgb48", "gray8", "gray16", YuvFormat]


@dataclass(frozen=True)
class Stored:
    """A file of the bundle: its name in the folder and its hash."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Latent:
    """Input and output of a generator, which makes images from noise."""

    size: int
    """Length of the noise vector of an image."""
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 1 <= value <= 1 << 16:
                raise BundleError(f"{name} must be from 1 to {1 << 16}, found {value}")


@dataclass(frozen=True)
class Model:
    """The properties of the network that the runtime needs, the same for all variants.

    Lengths are in pixels of the low-resolution image; for a generator, of the generated image.
    """

    architecture: str
    scale: int
    channels: Literal[1, 3]
    halo: int | None
    """Largest distance at which an input pixel affects an output pixel; None for unlimited."""
    multiple_of: int
    """Grid of tiles: at its multiples, the output of a tile equals that of the whole frame."""
    minimum: int
    """Smallest height and width that the graph accepts."""
    fixed_size: tuple[int, int] | None
    """The only (height, width) that the graph accepts; None for any."""
    fixed_batch: int | None
    """The only batch that the graph accepts; None for any."""
    parameters: int
    gflop_per_megapixel: float
    """10^9 floating-point operations per 10^6 low-resolution pixels."""
    bytes_per_pixel: int
    """Peak bytes of live FP32 intermediates per low-resolution pixel."""
    bytes_per_pair: float = 0.0
    """The same per pair of pixels, for global attention: memory grows with the square of the
    image."""
    latent: Latent | None = None
    """None for networks that upscale. Otherwise a generator: the input of all variants is float32
    (N, size) instead of pixels."""

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
        """Check that the network upscales images.

        Raises:
            InvalidInputError: it is a generator.
        """
        if self.latent is not None:
            raise InvalidInputError(
                f"{self.architecture} is a generator and does not upscale; run it with "
                "sr-generate or Engine.generate"
            )


@dataclass(frozen=True)
class Quality:
    """Quality of a precision against FP32, on images that were not used for calibration."""

    psnr: float | None
    """PSNR in dB between the two outputs, of the worst image; None if all are equal."""
    ssim: float
    """SSIM of the worst image."""
    largest_difference: int
    """Largest difference of a sample, in levels of 255."""
    loss: float | None
    """PSNR in dB lost against FP32, over all images, measured against the originals from which the
    low-resolution images were made; None without originals."""
    images: int


@dataclass(frozen=True)
class Variant:
    """An ONNX file (uint8 NHWC in and out) and the precision to run it in.

    Two variants may share a file: BF16 runs the FP32 file on devices that support it.
    """

    file: str
    sha256: str
    precision: Precision
    pixel_format: PixelFormat
    quality: Quality | None = None
    """None for FP32, the reference."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Backends whose output is worse than measured, by name, with the finding."""


@dataclass(frozen=True)
class Step:
    """One INT8 placement of the search."""

    restored: tuple[str, ...]
    """Layers kept in half precision."""
    fitted: bool
    """Whether weight rounding was optimized on activations, instead of rounding to nearest."""
    share: float
    """Share of the network's multiply-adds in INT8."""
    psnr: float | None
    """PSNR in dB against FP32, of the worst image; None if equal."""


@dataclass(frozen=True)
class Quantization:
    """Calibration of INT8, and the search for the layers that use it."""

    calibration: str
    """Description of the calibration data."""
    method: Literal[Method, "trained"]
    """How the clipping range of activations was chosen; "trained" after QAT."""
    layers: int
    """Number of layers that support INT8."""
    steps: tuple[Step, ...]
    """In the order of the search; the last one is used, if the bundle has INT8."""


@dataclass(frozen=True)
class OnnxCheck:
    """A comparison of the exported ONNX file with the PyTorch module."""

    shape: tuple[int, int, int, int]
    """Batch, channels, height, width."""
    max_error: float
    """Largest absolute difference, where white is 1."""


@dataclass(frozen=True)
class Source:
    """The source of the weights."""

    name: str
    sha256: str
    taken: str
    """Description of the part of the checkpoint that was used."""
    ranges: str
    """Description of the network's own value ranges; those of the bundle are [0, 1]."""
    assumed: tuple[str, ...] = ()
    """Properties that neither the weights nor photos decide, each with the runner-up."""
    proven: str = ""
    """How the result of the user's own program compares; empty if none was given."""


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    schema: int
    name: str
    created: str
    source: Source
    model: Model
    onnx: Stored
    """The float file for other tools: NCHW, RGB in [0, 1]."""
    variants: tuple[Variant, ...]
    checks: tuple[OnnxCheck, ...]
    int8: Quantization | None
    """None if INT8 was not requested, or no layer supports it."""
    refused: dict[str, str]
    """Requested precisions that the bundle does not have, each with the reason."""
    tools: dict[str, str]
    """Versions of the tools that wrote the bundle."""

    def to_json(self) -> str:
        """Return the manifest as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read(path: Path) -> Manifest:
    """Return a manifest after checking it.

    Raises:
        BundleError: it is not JSON, has another schema, or an invalid field.
    """
    advice = "export the checkpoint again with the version that you run"
    return schema.read(Manifest, path, SCHEMA, largest=_LARGEST_MANIFEST, advice=advice)
