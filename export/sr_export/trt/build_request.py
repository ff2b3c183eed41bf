"""What to build: shapes, TensorRT's settings, and the recipes for a precision.

All of it is plain data that goes to the child process as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sr_deploy.bundle.manifest import YuvFormat

# Imported at run time: sr_deploy.bundle.schema reads the annotations to decode the JSON.
from sr_deploy.bundle.plan_store import TITLES, Compatibility, Computed, LibraryName, Shapes
from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.generator import MOST_AT_ONCE
from sr_deploy.tiling.planner import TilePlanner

if TYPE_CHECKING:
    from collections.abc import Collection

    from sr_deploy.bundle.manifest import Latent, Model, PixelFormat, Precision
    from sr_deploy.bundle.plan_store import Shape

    Size = tuple[int, int]

_DEFAULT_FRAME = (1080, 1920)
_SMALLEST_SIDE = 64
# Share of the GPU's free memory: lanes, their frames and other programs need the rest.
_MEMORY_SHARE = 0.5

PORTABLE: tuple[Compatibility, ...] = ("rtx", "turing")
"""Plans that are built without a GPU, by TensorRT for RTX."""
PORTABLE_MEMORY = 8 << 30
"""GPU memory that a portable plan is built for: that of a common RTX GPU."""
_OPTIONS = {"level": "optimization-level"}

Rewriting = Literal["none", "lowered", "mixed"]
"""Change of the ONNX file before the build: none; to opset 17 and FP32; or all layers but the
convolutions to FP32."""


@dataclass(frozen=True)
class ShapeOptions:
    """The user's choice of shapes. By default, frames up to 1080p are not tiled.

    Attributes:
        frame: Height and width of all frames.
        tile: Height and width of all tiles.
        batch: Tiles per batch; of a generator, the most images per batch.
        limits: Smallest, best and largest (batch, height, width).
    """

    frame: Size | None = None
    tile: Size | None = None
    batch: int | None = None
    limits: tuple[Shape, Shape, Shape] | None = None

    def shapes(self, model: Model, pixel_format: PixelFormat, free: int) -> Shapes:
        """Return the shapes to build a plan for.

        Args:
            model: The network's description in the manifest.
            pixel_format: Format of the frames.
            free: Free GPU memory in bytes.

        Raises:
            InvalidInputError: the network does not support the chosen shapes.
        """
        if model.latent is not None:
            return self._generator_shapes(model, model.latent, free)
        batch = self._batch(model)
        if self.limits is not None:
            return _supported(Shapes(*self.limits), model)
        if model.fixed_size is not None or self.tile is not None:
            size = self.tile or model.fixed_size
            assert size is not None
            return _supported(Shapes.exactly((batch, *size)), model)
        pixels = int(_MEMORY_SHARE * free / (batch * model.bytes_per_pixel))
        frame = self.frame or _DEFAULT_FRAME
        height, width = TilePlanner(model).plan(*frame, max(1, pixels)).tile
        if pixel_format in get_args(YuvFormat):  # the chroma planes follow the luma plane
            height = height * 3 // 2
        best = (batch, height, width)
        if self.frame is not None:
            return Shapes.exactly(best)
        smallest = max(_SMALLEST_SIDE, model.minimum)
        return Shapes((batch, min(smallest, height), min(smallest, width)), best, best)

    def _generator_shapes(self, model: Model, latent: Latent, free: int) -> Shapes:
        if self.frame or self.tile or self.limits:
            raise InvalidInputError(
                "--frame, --tile and --range do not apply to a generator; --batch sets the most "
                "images that it generates at once"
            )
        image = latent.height * latent.width * model.bytes_per_pixel
        count = self.batch or max(1, min(MOST_AT_ONCE, int(_MEMORY_SHARE * free / image)))
        largest = (count, 1, latent.size)
        return Shapes((1, 1, latent.size), largest, largest)

    def _batch(self, model: Model) -> int:
        if model.fixed_batch is None:
            return self.batch or 1
        if self.batch not in (None, model.fixed_batch):
            raise InvalidInputError(
                f"the network has a fixed batch of {model.fixed_batch}; --batch {self.batch} is "
                "not possible"
            )
        return model.fixed_batch


def _supported(shapes: Shapes, model: Model) -> Shapes:
    """Return the shapes.

    Raises:
        InvalidInputError: the network does not support them.
    """
    _, height, width = shapes.least
    if min(height, width) < model.minimum:
        raise InvalidInputError(
            f"the network needs frames of at least {model.minimum}x{model.minimum} pixels, found "
            f"{height}x{width}"
        )
    if model.fixed_size is not None and shapes != Shapes.exactly(
        (shapes.best[0], *model.fixed_size)
    ):
        sides = "x".join(map(str, model.fixed_size))
        raise InvalidInputError(f"the network has a fixed frame size of {sides} (height x width)")
    return shapes


@dataclass(frozen=True)
class BuildSettings:
    """TensorRT settings of the user; None for TensorRT's default.

    Attributes:
        workspace: GPU memory in bytes that a layer may use to be faster.
        optimization_level: Effort of the search for fast kernels, 0 to 5.
        streams: Auxiliary streams, on which parts of the network run in parallel.
        dla: Deep learning accelerator (of a Jetson) to run on; None: the GPU.
        version_compatible: Whether later releases of the same major version run the plan.
        compatibility: GPUs that run the plan.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    streams: int | None = None
    dla: int | None = None
    version_compatible: bool = False
    compatibility: Compatibility = "gpu"

    @property
    def library(self) -> LibraryName:
        """The library that builds plans for these GPUs."""
        return "tensorrt_rtx" if self.compatibility in PORTABLE else "tensorrt"

    def check(self) -> None:
        """Check that the library has what is set.

        Raises:
            InvalidInputError: it does not.
        """
        if self.library == "tensorrt":
            return
        given = [*self.recorded(), *(["version-compatible"] if self.version_compatible else [])]
        options = ", ".join(f"--{_OPTIONS.get(each, each)}" for each in given)
        if given:
            raise InvalidInputError(
                f"{TITLES[self.library]} does not support {options}: its plans run on one version, "
                "and their kernels are chosen on the GPU that runs them; drop it, or choose "
                "--compatibility this-gpu"
            )

    def recorded(self) -> dict[str, str]:
        """Return the settings for the plan's record, as text by the record's names."""
        settings = {
            "workspace": self.workspace,
            "level": self.optimization_level,
            "streams": self.streams,
            "dla": self.dla,
        }
        return {name: str(value) for name, value in settings.items() if value is not None}


@dataclass(frozen=True)
class PrecisionRecipe:
    """A way to make TensorRT compute a precision.

    Attributes:
        computed: Precision of the layers.
        rewriting: Change of the ONNX file.
        creation: Names in TensorRT's NetworkDefinitionCreationFlag.
        flags: Names in TensorRT's BuilderFlag.
    """

    computed: Computed
    rewriting: Rewriting = "none"
    creation: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildRequest:
    """A plan to build.

    Attributes:
        onnx: Path of the bundle's ONNX file.
        recipe: The way to compute the precision.
        exact: Whether FP32 must not be rounded to TF32.
        shapes: Shapes of the input.
        settings: The user's settings.
        timing_cache: Path of the file with kernel timings, which the build extends; None: TensorRT
            for RTX, which times nothing.
        device: Index of the GPU; None: the build needs none.
    """

    onnx: str
    recipe: PrecisionRecipe
    exact: bool
    shapes: Shapes
    settings: BuildSettings
    timing_cache: str | None
    device: int | None


def recipes(
    precision: Precision, *, typed_file: bool, halves: Collection[str], abilities: Collection[str]
) -> tuple[PrecisionRecipe, ...]:
    """Return the recipes for a precision, best first; empty if this TensorRT has none.

    The flags that exist decide, not the version number: 8.6 sets precisions by flags, 10 by flags
    or by the types in the file, and 11 only by types.

    Args:
        precision: Precision of the variant.
        typed_file: Whether the file's types have this precision; BF16 may use the file of FP32.
        halves: Half types in the file, "fp16" or "bf16".
        abilities: Names in this TensorRT's NetworkDefinitionCreationFlag and BuilderFlag.
    """
    if "STRONGLY_TYPED" in abilities and typed_file:
        # Without precision flags every network is strongly typed, and the flag is deprecated.
        creation = ("STRONGLY_TYPED",) if "FP16" in abilities else ()
        asked = PrecisionRecipe("asked", "none", creation)
        mixed = PrecisionRecipe("mixed", "mixed", creation)
        return (asked,) if precision == "fp32" else (asked, mixed)
    wanted = [precision] if precision != "fp32" else []
    flags = [each.upper() for each in dict.fromkeys([*wanted, *halves])]
    if any(each not in abilities for each in flags):
        return ()
    old = "STRONGLY_TYPED" not in abilities
    asked = PrecisionRecipe(
        "asked",
        "lowered" if old else "none",
        ("EXPLICIT_BATCH",) if old else (),
        tuple(flags),
    )
    if precision != "int8":
        return (asked,)
    return asked, PrecisionRecipe("mixed", asked.rewriting, asked.creation, ("INT8",))
