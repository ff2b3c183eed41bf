"""What records say of where they were made, of what, and by whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Size = tuple[int, int]
"""Width and height of a frame that goes in."""

_SHOWN = {
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "contiguous": "eager",
}
_RUNTIMES = {"torch": "PyTorch", "sr-deploy": "sr-deploy"}


@dataclass(frozen=True)
class Hardware:
    """The machine, as far as it matters for speed; nothing that names it."""

    cpu: str
    features: tuple[str, ...]
    """Instruction sets that inference uses."""
    cores: int
    """How many the process may use, by affinity and quota."""
    free_memory: int
    """Bytes, before the measurement."""
    system: str
    gpu: str | None = None
    """None: there is none, or its driver's tools are not there to tell."""
    driver: str | None = None
    """Of the GPU."""


@dataclass(frozen=True)
class Environment:
    """When, where and with what a record was made."""

    date: str
    commit: str | None
    """Of sr-deploy's own checkout; None: it ran from an installed package."""
    dirty: bool | None
    """Whether tracked files differed from the commit."""
    device: Hardware
    versions: dict[str, str]


@dataclass(frozen=True)
class MeasuredModel:
    """The network that was measured, as its bundle's manifest has it."""

    name: str
    architecture: str
    scale: int
    checkpoint: str
    sha256: str
    """Of the checkpoint's file."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the bundle's ONNX files, by their names."""


@dataclass(frozen=True)
class Configuration:
    """One way to run the network."""

    runtime: Literal["sr-deploy", "torch"]
    backend: str
    """Of sr-deploy: its backend, or "auto" for the one that it chooses; of torch: "contiguous"
    (as people run it), "channels_last" or "compiled"."""
    precision: str
    """Or "auto"."""

    def __str__(self) -> str:
        runtime = _RUNTIMES[self.runtime]
        if self.backend == "auto":
            return f"{runtime} by default"
        return f"{runtime} {_SHOWN.get(self.backend, self.backend)} {self.precision.upper()}"


def size_text(size: Size, batch: int = 1) -> str:
    """Return a size as people read it: 480x270, or 480x270 x4 for a batch."""
    return "{}x{}".format(*size) + (f" x{batch}" if batch > 1 else "")
