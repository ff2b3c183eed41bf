"""The TensorRT plans of a bundle: what each was built for, and which of them run on this machine.

A plan is a file in `engines/` with a JSON record of the same name. It is bound to one ONNX file,
one version of one library, and one kind of GPU. TensorRT for RTX builds portable plans: one runs on
all RTX GPUs since Ampere, or on all of Turing, and may come from a machine without a GPU. A bundle
may contain the plans of many machines, and no machine changes those of another. A library gets a
plan only if the record fits and the file has the recorded hash, because the library itself reports
wrong plans cryptically and crashes on damaged ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sr_deploy.bundle import schema

# Not for type checking only: sr_deploy.bundle.schema reads the annotations to decode records.
from sr_deploy.bundle.manifest import Precision, Stored
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import atomic_file, inside

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1
FOLDER = "engines"
TIMING_CACHE = "timing.cache"
_LARGEST_RECORD = 1 << 16

Shape = tuple[int, int, int]
"""Batch, height and width of the network's input. A generator's noise counts as an image of one
row."""
LibraryName = Literal["tensorrt", "tensorrt_rtx"]
"""NVIDIA's library that builds and runs a plan: TensorRT, or TensorRT for RTX."""
TITLES: dict[LibraryName, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
"""The libraries' names for messages."""
Compatibility = Literal["gpu", "capability", "ampere", "rtx", "turing"]
"""The GPUs that a plan runs on: those with the same name, those with the same compute capability,
or all since Ampere; of TensorRT for RTX, all since Ampere, or those of Turing."""
_SINCE_AMPERE = (8, 0)
TURING = (7, 5)
"""Compute capability of Turing."""
Computed = Literal["asked", "mixed"]
"""How a plan computes: in the requested precision, or with everything but convolutions in FP32,
because nothing else gave correct images."""


@dataclass(frozen=True)
class GpuInfo:
    """The properties of a GPU that plans depend on."""

    name: str
    """CUDA's name: NVIDIA H100 80GB HBM3."""
    capability: tuple[int, int]
    """Compute capability, major and minor."""
    driver: str
    """Version of the driver. Plans do not depend on it; errors mention it."""


@dataclass(frozen=True)
class Shapes:
    """The input shapes of a plan, from the smallest to the largest."""

    least: Shape
    best: Shape
    """The shape that the plan is optimized for."""
    most: Shape

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.least, self.best, self.most, strict=True):
            if not 1 <= low <= middle <= high:
                raise BundleError(f"shapes must grow from least to best to most, found {self}")

    @classmethod
    def exactly(cls, shape: Shape) -> Shapes:
        """Return the shapes of a plan for a single shape, the fastest kind."""
        return cls(shape, shape, shape)

    def accept(self, shape: Shape) -> bool:
        """Return whether a plan of these shapes accepts this one."""
        return all(
            low <= side <= high
            for low, side, high in zip(self.least, shape, self.most, strict=True)
        )

    def __str__(self) -> str:
        least, best, most = ("x".join(map(str, each)) for each in dataclasses.astuple(self))
        return best if least == most else f"{least} to {most}, best at {best}"


@dataclass(frozen=True)
class PlanRequest:
    """The requirements on a plan."""

    onnx: str
    """SHA-256 of the variant's ONNX file."""
    precision: Precision
    tensorrt: str
    """Version of the library that will run it: 10.16.1.11."""
    device: GpuInfo
    shape: Shape | None = None
    """None for any."""
    library: LibraryName = "tensorrt"


@dataclass(frozen=True)
class PlanRecord:
    """The JSON record of a plan."""

    schema: int
    onnx: str
    precision: Precision
    tensorrt: str
    """Version of the library that built it, which must be the one that runs it."""
    device: GpuInfo | None
    """The GPU that built it; None for a portable plan."""
    shapes: Shapes
    reach: Compatibility
    version_compatible: bool
    """Whether later releases of the same major version of TensorRT run it as well."""
    settings: dict[str, str]
    """The user's other settings by name."""
    plan: Stored | None
    """None if no build gave correct images; see `refused`."""
    refused: tuple[str, ...]
    """Builds that failed validation, each with the reason."""
    computed: Computed = "asked"
    size: int = 0
    """Size of the plan in bytes."""
    device_memory: int = 0
    """GPU memory of an execution context in bytes, without the weights."""
    library: LibraryName = "tensorrt"
    built: str = ""
    """Date and time of the build."""
    seconds: float = 0.0
    """Duration of the build."""
    psnr: float | None = None
    """PSNR in dB against FP32 on a CPU, in the worst region; None if equal or not compared."""
    compared: str = ""
    """Description of the images that were compared."""

    def __post_init__(self) -> None:
        for name in ("size", "device_memory"):
            if getattr(self, name) < 0:
                raise BundleError(f"{name} must be at least 0, found {getattr(self, name)}")

    @property
    def name(self) -> str:
        """Base name of the files, unique for each combination of machine, network and settings."""
        gpu = () if self.device is None else (self.device.name, self.device.capability)
        key = (
            (self.onnx, self.precision, self.tensorrt, *gpu),
            (self.shapes, self.reach, self.version_compatible, sorted(self.settings.items())),
        )
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:8]
        target = self.reach if self.device is None else file_part(self.device.name)
        most = "x".join(map(str, self.shapes.most))
        library = self.library.replace("_", "-")
        return f"{self.precision}-{most}-{target}-{library}-{self.tensorrt}-{digest}"

    def differences(self, wanted: PlanRequest) -> tuple[str, ...]:
        """Return the reasons why the plan does not meet a request; empty if it does."""
        found = [
            _differs("made from an ONNX file of SHA-256", self.onnx[:12], wanted.onnx[:12]),
            _differs("its precision is", self.precision, wanted.precision),
        ]
        if not _same_tensorrt(self.tensorrt, wanted.tensorrt, later=self.version_compatible):
            title = f"built with {TITLES[self.library]}"
            found.append(_differs(title, self.tensorrt, wanted.tensorrt))
        found += self._other_device(wanted.device)
        if wanted.shape is not None and not self.shapes.accept(wanted.shape):
            shape = "x".join(map(str, wanted.shape))
            found.append(f"it accepts {self.shapes} (batch x height x width), not {shape}")
        return tuple(each for each in found if each)

    def _other_device(self, device: GpuInfo) -> list[str]:
        here = _dotted(device.capability)
        if self.reach == "turing":
            if device.capability == TURING:
                return []
            return [f"built for GPUs of compute capability {_dotted(TURING)}, this one has {here}"]
        if self.reach in ("ampere", "rtx"):
            if device.capability >= _SINCE_AMPERE:
                return []
            least = _dotted(_SINCE_AMPERE)
            return [f"built for GPUs of compute capability {least} and up, this one has {here}"]
        if self.device is None:
            return [f"its record names no GPU, which plans for {self.reach} need"]
        there = _dotted(self.device.capability)
        found = [_differs("built for compute capability", there, here)]
        if self.reach == "gpu":
            found.append(_differs("built on a GPU", self.device.name, device.name))
        return found

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class StoredPlan:
    """A plan that runs on this machine, not read yet."""

    folder: Path
    """`engines/`."""
    record: PlanRecord

    @property
    def path(self) -> Path:
        """Path of the plan."""
        assert self.record.plan is not None
        return self.folder / self.record.plan.file

    def read(self) -> bytes:
        """Return the plan, verified by its hash: nothing else may reach TensorRT.

        Raises:
            NotFoundError: the file is missing.
            BundleError: the file is damaged, or its name leads out of the folder.
        """
        assert self.record.plan is not None
        content = inside(self.folder, self.record.plan.file).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.record.plan.sha256:
            raise BundleError(
                f"{self.path}: damaged or changed since it was built (SHA-256 {found[:12]}, "
                f"recorded {self.record.plan.sha256[:12]}); build it again"
            )
        return content


@dataclass(frozen=True)
class FoundPlan:
    """The plans of a bundle for a request."""

    plans: tuple[StoredPlan, ...] = ()
    """Usable plans: those for exactly this shape first, then those optimized for the closest."""
    reasons: tuple[str, ...] = ()
    """Why other plans of this ONNX file and precision are not usable, with their file names."""
    refused: tuple[str, ...] = field(default=())
    """Builds for this request that failed validation: building again would not help."""


def find(bundle: Path, wanted: PlanRequest) -> FoundPlan:
    """Return the plans for a request; only their records are read.

    A damaged record counts as not usable; its plan can be built again.
    """
    plans, reasons, refused = [], [], []
    for path in sorted((bundle / FOLDER).glob("*.json")):
        try:
            record = read(path)
        except (BundleError, OSError) as error:
            reasons.append(str(error))
            continue
        key = (wanted.onnx, wanted.precision, wanted.library)
        if (record.onnx, record.precision, record.library) != key:
            continue
        if differences := record.differences(wanted):
            reasons.append(f"{path.name}: {'; '.join(differences)}")
        elif record.plan is None:
            refused += [f"{path.name}: {each}" for each in record.refused]
        else:
            try:
                inside(path.parent, record.plan.file)
            except (BundleError, NotFoundError) as error:
                reasons.append(f"{path.name}: {error}")
            else:
                plans.append(StoredPlan(path.parent, record))
    plans.sort(key=lambda plan: _distance(plan.record.shapes, wanted.shape))
    return FoundPlan(tuple(plans), tuple(reasons), tuple(refused))


def read(path: Path) -> PlanRecord:
    """Read and check the record of a plan.

    Raises:
        BundleError: it is not JSON, has another schema, or an invalid field.
    """
    return schema.read(PlanRecord, path, SCHEMA, largest=_LARGEST_RECORD)


def write(bundle: Path, record: PlanRecord, content: bytes | None) -> StoredPlan | None:
    """Store a plan and its record, replacing those with the same machine, network and settings.

    Args:
        bundle: The bundle's folder.
        record: The record; its `plan` and `size` are filled in here.
        content: The plan; None to store only the record with the reasons of the failure.

    Returns:
        The stored plan, or None.

    Raises:
        NotFoundError: the bundle does not exist.
    """
    if not bundle.is_dir():
        raise NotFoundError(f"{bundle}: no such bundle")
    folder = bundle / FOLDER
    folder.mkdir(exist_ok=True)
    name = record.name
    stored = None
    if content is not None:
        stored = Stored(f"{name}.plan", hashlib.sha256(content).hexdigest())
        with atomic_file(folder / stored.file) as temporary:
            temporary.write_bytes(content)
    whole = dataclasses.replace(record, plan=stored, size=len(content or b""))
    # The record is written last: until then, an older record with the older hash reports an error.
    with atomic_file(folder / f"{name}.json") as temporary:
        temporary.write_text(whole.to_json(), encoding="utf-8")
    return None if stored is None else StoredPlan(folder, whole)


def _distance(shapes: Shapes, shape: Shape | None) -> tuple[bool, int]:
    """Return a sort key: the distance of a shape from the one a plan is optimized for."""
    batch, height, width = shapes.best
    pixels = batch * height * width
    if shape is None:
        return False, -pixels
    return shapes.least != shapes.most, abs(pixels - shape[0] * shape[1] * shape[2])


def file_part(text: str) -> str:
    """Return a text as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def _dotted(capability: tuple[int, int]) -> str:
    return "{}.{}".format(*capability)


def _differs(what: str, there: str, here: str) -> str:
    return "" if there == here else f"{what} {there}, here it is {here}"


def _same_tensorrt(built: str, running: str, *, later: bool) -> bool:
    """Return whether a plan of one version runs on another; `later`: on later ones, too."""
    if not later:
        return built == running
    there, here = (
        [int(each) for each in re.findall(r"\d{1,9}", text)] for text in (built, running)
    )
    return there[:1] == here[:1] and here >= there
