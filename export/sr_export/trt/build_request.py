"""What is to be built, as plain data that can go to another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

# Not for type checking only: sr_deploy.bundle.schema reads the annotations to decode it.
from sr_deploy.bundle.plan_store import Compatibility, Computed, Shapes  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Collection

    from sr_deploy.bundle.manifest import Precision

Rewriting = Literal["none", "lowered", "mixed"]
"""How the ONNX file is changed for TensorRT: not at all; in opset 17 and FP32; or with all but the
convolutions in FP32."""


@dataclass(frozen=True)
class BuildSettings:
    """What the user may set beside shapes and precision; None: TensorRT's own choice."""

    workspace: int | None = None
    """Bytes of GPU memory that a layer may take to be faster."""
    level: int | None = None
    """How long to search for fast kernels, 0 to 5."""
    streams: int | None = None
    """Auxiliary streams on which parts of the network may run side by side."""
    dla: int | None = None
    """The deep learning accelerator (of a Jetson) to run on; None: the GPU."""
    version_compatible: bool = False
    reach: Compatibility = "gpu"

    def words(self) -> dict[str, str]:
        """Return what was set, for the record of a plan."""
        named = {
            "workspace": self.workspace,
            "level": self.level,
            "streams": self.streams,
            "dla": self.dla,
        }
        return {name: str(value) for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """One way to have a precision computed."""

    computed: Computed
    rewriting: Rewriting = "none"
    creation: tuple[str, ...] = ()
    """Names in TensorRT's NetworkDefinitionCreationFlag."""
    flags: tuple[str, ...] = ()
    """Names in its BuilderFlag."""


@dataclass(frozen=True)
class BuildRequest:
    """One plan to build."""

    onnx: str
    """The file that the bundle has."""
    recipe: Recipe
    exact: bool
    """Whether FP32 is really computed in FP32, not rounded to TF32 on the way."""
    shapes: Shapes
    settings: BuildSettings
    timing_cache: str
    """The file to take known timings from and to add new ones to."""
    device: int


def recipes(
    precision: Precision, *, typed_file: bool, halves: Collection[str], abilities: Collection[str]
) -> tuple[Recipe, ...]:
    """Return the ways to have a precision, the best first; empty: this TensorRT has none.

    Nothing asks for TensorRT's version: 8.6 takes precisions from flags; 10 can, and can take them
    from the types in the file; 11 only knows the latter, without being told.

    Args:
        precision: What the variant promises.
        typed_file: Whether its file has it in its types; BF16 may be computed from FP32's file.
        halves: The half types in the file, "fp16" or "bf16".
        abilities: The names that this TensorRT has in NetworkDefinitionCreationFlag and
            BuilderFlag.
    """
    if "STRONGLY_TYPED" in abilities and typed_file:
        # Where there are no precision flags, types are always obeyed, and asking is deprecated.
        creation = ("STRONGLY_TYPED",) if "FP16" in abilities else ()
        asked = Recipe("asked", "none", creation)
        mixed = Recipe("mixed", "mixed", creation)
        return (asked,) if precision == "fp32" else (asked, mixed)
    wanted = [precision] if precision != "fp32" else []
    flags = [each.upper() for each in dict.fromkeys([*wanted, *halves])]
    if any(each not in abilities for each in flags):
        return ()
    old = "STRONGLY_TYPED" not in abilities
    asked = Recipe(
        "asked",
        "lowered" if old else "none",
        ("EXPLICIT_BATCH",) if old else (),
        tuple(flags),
    )
    if precision != "int8":
        return (asked,)
    return asked, Recipe("mixed", asked.rewriting, asked.creation, ("INT8",))
