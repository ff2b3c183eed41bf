"""What a TensorRT plan was built for, and how that differs from what someone needs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal

# Not for type checking only: sr_deploy.bundle.schema reads the annotations to decode it.
from sr_deploy.bundle.manifest import Precision, Stored  # noqa: TC001
from sr_deploy.errors import BundleError

SCHEMA = 1

Shape = tuple[int, int, int]
"""Batch, height and width of what goes through the network at once. The numbers that a generator
takes count as an image of one row."""
Reach = Literal["gpu", "capability", "ampere"]
"""Where else a plan runs: only on GPUs of the same name, on all of the same compute capability, or
on all from Ampere on."""
Computed = Literal["asked", "mixed"]
"""How a plan computes: in the precision that was asked for, or with all but the convolutions in
FP32, because that alone gave right images."""


@dataclass(frozen=True)
class GpuInfo:
    """A GPU, as far as plans are bound to it."""

    name: str
    """As CUDA says it: NVIDIA H100 80GB HBM3."""
    capability: tuple[int, int]
    """Compute capability, major and minor."""
    driver: str
    """The driver's version, in words; plans are not bound to it, but errors tell it."""


@dataclass(frozen=True)
class Shapes:
    """The input that a plan takes, from the least to the most of each dimension."""

    least: Shape
    best: Shape
    """What it was tuned for."""
    most: Shape

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.least, self.best, self.most, strict=True):
            if not 1 <= low <= middle <= high:
                raise BundleError(f"shapes must grow from least to best to most, found {self}")

    @classmethod
    def exactly(cls, shape: Shape) -> Shapes:
        """Return those of a plan that takes one shape only, which is the fastest."""
        return cls(shape, shape, shape)

    def take(self, shape: Shape) -> bool:
        """Return whether a plan of these shapes runs on this one."""
        return all(
            low <= side <= high
            for low, side, high in zip(self.least, shape, self.most, strict=True)
        )

    def __str__(self) -> str:
        least, best, most = ("x".join(map(str, each)) for each in dataclasses.astuple(self))
        return best if least == most else f"{least} to {most}, best at {best}"


@dataclass(frozen=True)
class PlanRequest:
    """What someone needs a plan for."""

    onnx: str
    """SHA-256 of the variant's ONNX file."""
    precision: Precision
    tensorrt: str
    """The version that is going to run it: 10.16.1.11."""
    device: GpuInfo
    shape: Shape | None = None
    """None: any."""


@dataclass(frozen=True)
class PlanRecord:
    """All of a plan's JSON."""

    schema: int
    onnx: str
    precision: Precision
    tensorrt: str
    device: GpuInfo
    """Where it was built."""
    shapes: Shapes
    reach: Reach
    version_compatible: bool
    """Whether later releases of the same major version of TensorRT run it, too."""
    settings: dict[str, str]
    """What else the user set, by name."""
    plan: Stored | None
    """None: nothing that was built gave right images; see `refused`."""
    refused: tuple[str, ...]
    """What was built and thrown away, each with the reason."""
    computed: Computed = "asked"
    size: int = 0
    """Bytes of the plan."""
    device_memory: int = 0
    """Bytes of GPU memory that a context takes, beside the weights."""
    built: str = ""
    """When."""
    seconds: float = 0.0
    """How long building took."""
    psnr: float | None = None
    """Decibels against FP32 on a CPU, of the worst place; None: equal, or not compared."""
    compared: str = ""
    """With what its images were compared, in words."""

    @property
    def name(self) -> str:
        """The name of its files: readable, and different for all that must not clash."""
        key = (
            (self.onnx, self.precision, self.tensorrt, self.device.name, self.device.capability),
            (self.shapes, self.reach, self.version_compatible, sorted(self.settings.items())),
        )
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:8]
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self.device.name).strip("-")
        most = "x".join(map(str, self.shapes.most))
        return f"{self.precision}-{most}-{gpu}-tensorrt-{self.tensorrt}-{digest}"

    def differences(self, wanted: PlanRequest) -> tuple[str, ...]:
        """Return in words all that keeps the plan from serving; empty: it serves."""
        found = [
            _differs("made from an ONNX file of SHA-256", self.onnx[:12], wanted.onnx[:12]),
            _differs("its precision is", self.precision, wanted.precision),
        ]
        if not _same_tensorrt(self.tensorrt, wanted.tensorrt, later=self.version_compatible):
            found.append(_differs("built with TensorRT", self.tensorrt, wanted.tensorrt))
        found += self._other_device(wanted.device)
        if wanted.shape is not None and not self.shapes.take(wanted.shape):
            shape = "x".join(map(str, wanted.shape))
            found.append(f"it takes {self.shapes} (batch x height x width), not {shape}")
        return tuple(each for each in found if each)

    def _other_device(self, device: GpuInfo) -> list[str]:
        here, there = (f"{a}.{b}" for a, b in (device.capability, self.device.capability))
        if self.reach == "ampere":
            if device.capability >= (8, 0):
                return []
            return [f"built for GPUs of compute capability 8.0 and up, this one has {here}"]
        found = [_differs("built for compute capability", there, here)]
        if self.reach == "gpu":
            found.append(_differs("built on a GPU", self.device.name, device.name))
        return found

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def _differs(what: str, there: str, here: str) -> str:
    return "" if there == here else f"{what} {there}, here it is {here}"


def _same_tensorrt(built: str, running: str, *, later: bool) -> bool:
    """Return whether a plan of one version runs on another; `later`: it is version-compatible."""
    if not later:
        return built == running
    there, here = ([int(each) for each in re.findall(r"\d+", text)] for text in (built, running))
    return there[:1] == here[:1] and here >= there
