"""Builds the plan of a variant, validates its images, and stores it in the bundle."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_deploy.backends.cuda import driver
from sr_deploy.bundle import plan_store, schema
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import PixelFormat, YuvFormat
from sr_deploy.bundle.plan_store import SCHEMA, TITLES, GpuInfo, LibraryName, PlanRecord, StoredPlan
from sr_deploy.errors import BackendError, BundleError, DriverError, InvalidInputError
from sr_export.trt import cast_pass, plan_validation
from sr_export.trt.build_request import BuildRequest, BuildSettings, ShapeOptions, recipes
from sr_export.trt.plan_trial import PlanTrial
from sr_export.trt.worker import TensorRtProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_deploy.bundle.manifest import Precision, Variant
    from sr_deploy.bundle.plan_store import Shapes
    from sr_export.trt.build_request import PrecisionRecipe
    from sr_export.trt.plan_validation import PlanValidator

_log = logging.getLogger(__name__)

# TensorRT for RTX computes most networks in INT8 more slowly than in FP16.
_DEFAULT_PRECISIONS: dict[LibraryName, tuple[Precision, ...]] = {
    "tensorrt": ("fp16", "int8"),
    "tensorrt_rtx": ("fp16",),
}
_RECIPE_NAMES = {"asked": "as exported", "mixed": "with all but the convolutions in FP32"}


def build_plan(
    folder: Path, precision: Precision, pixel_format: PixelFormat, device: int
) -> PlanRecord:
    """Build a plan that an engine lacks: the entry point `sr_deploy.plan_builders`.

    It takes minutes. TensorRT runs in a child process. Of several processes or threads that need
    the same plan, one builds it while the others wait.

    Args:
        folder: The bundle's folder.
        precision: Precision of the variant.
        pixel_format: Pixel format of the variant.
        device: Index of the GPU.

    Raises:
        SrDeployError: no plan was built.
    """
    machine = functools.partial(Machine.of, library="tensorrt", index=device)
    return _built(folder, precision, pixel_format, machine, BuildSettings())


def build_portable_plan(
    folder: Path, precision: Precision, pixel_format: PixelFormat, device: int
) -> PlanRecord:
    """Build a portable plan that an engine lacks: the entry point for TensorRT for RTX.

    It takes seconds, and other GPUs run the plan, too. Turing needs a plan of its own.

    Args:
        folder: The bundle's folder.
        precision: Precision of the variant.
        pixel_format: Pixel format of the variant.
        device: Index of the GPU.

    Raises:
        SrDeployError: no plan was built.
    """
    turing = driver.describe(device).capability == plan_store.TURING
    machine = functools.partial(Machine.of, library="tensorrt_rtx", index=None)
    settings = BuildSettings(compatibility="turing" if turing else "rtx")
    return _built(folder, precision, pixel_format, machine, settings)


def _built(
    folder: Path,
    precision: Precision,
    pixel_format: PixelFormat,
    describe: Callable[[TensorRtProcess], Machine],
    settings: BuildSettings,
) -> PlanRecord:
    bundle = Bundle.open(folder)
    (variant,) = choose_variants(bundle, (precision,), pixel_format)
    with TensorRtProcess(lambda _: None) as process:
        machine = describe(process)
        shapes = ShapeOptions().shapes(bundle.manifest.model, pixel_format, machine.free)
        record = PlanBuilder(bundle, settings, machine, process).build(variant, shapes)
    if record.plan is None:
        raise BackendError(f"no plan of {precision}: {'; '.join(record.refused)}")
    return record


def choose_variants(
    bundle: Bundle,
    precisions: Sequence[Precision],
    pixel_format: PixelFormat,
    library: LibraryName = "tensorrt",
) -> list[Variant]:
    """Return the variants of some precisions; of none, the fast ones of a library, or FP32.

    Raises:
        InvalidInputError: the bundle lacks a precision, or no plans are built for the format.
    """
    formats = [each for each in get_args(PixelFormat) if each not in get_args(YuvFormat)]
    if pixel_format not in formats:
        raise InvalidInputError(
            f"TensorRT plans support the pixel formats {', '.join(formats)}, found {pixel_format}"
        )
    variants = {
        each.precision: each
        for each in bundle.manifest.variants
        if each.pixel_format == pixel_format
    }
    default = [each for each in _DEFAULT_PRECISIONS[library] if each in variants]
    wanted = dict.fromkeys(precisions or default or ("fp32",))
    missing = [each for each in wanted if each not in variants]
    if missing:
        refused = bundle.manifest.refused
        reasons = "".join(f"; {each}: {refused[each]}" for each in missing if each in refused)
        raise InvalidInputError(
            f"{bundle.folder}: no {', '.join(missing)} for {pixel_format} frames; the bundle has "
            f"{', '.join(variants) or 'nothing'}{reasons}"
        )
    return [variants[each] for each in wanted]


@dataclass(frozen=True)
class Machine:
    """The machine that builds.

    Attributes:
        library: The library.
        index: Index of the GPU; None: the plans are portable, so neither CUDA nor a driver is used.
        tensorrt: Version of the library.
        abilities: Names of the library's flags.
        device: The GPU; None: as for `index`.
        free: Free GPU memory in bytes.
    """

    library: LibraryName
    index: int | None
    tensorrt: str
    abilities: tuple[str, ...]
    device: GpuInfo | None
    free: int

    @classmethod
    def of(cls, process: TensorRtProcess, library: LibraryName, index: int | None) -> Machine:
        """Describe this machine.

        Raises:
            BackendMissingError: the library or cuda-python is not installed.
            DriverError: the GPU does not exist, or CUDA does not work.
        """
        stage = f"starting {TITLES[library]}"
        found = process.call("describe", stage, library=library, device=index)
        return schema.decode(cls, found | {"index": index}, "this machine")

    @property
    def title(self) -> str:
        """Name and version of the library, for messages."""
        return f"{TITLES[self.library]} {self.tensorrt}"


@dataclass(frozen=True)
class _Attempt:
    """A built plan and the problem that forbids to keep it."""

    record: PlanRecord
    plan: bytes
    problem: str | None


class PlanBuilder:
    """Builds the plans of one bundle on one machine."""

    def __init__(
        self, bundle: Bundle, settings: BuildSettings, machine: Machine, process: TensorRtProcess
    ) -> None:
        self._bundle = bundle
        self._model = bundle.manifest.model
        self._settings = settings
        self._machine = machine
        self._process = process
        self._folder = bundle.folder / plan_store.FOLDER

    def build(self, variant: Variant, shapes: Shapes, *, rebuild: bool = False) -> PlanRecord:
        """Build the plan of a variant, unless it exists.

        Args:
            variant: A variant of the bundle.
            shapes: Shapes of the input.
            rebuild: Build the plan even if it exists.

        Returns:
            The record; its `plan` is None if validation failed.

        Raises:
            BundleError: the ONNX file was changed since the export.
            InvalidInputError: the library does not support the settings.
            DriverError: CUDA or the driver does not work; nothing is recorded.
            BackendError: this TensorRT cannot compute the precision.
        """
        self._settings.check()
        from sr_deploy.bundle.locking import locked  # needs filelock, which --help does not

        path = self._bundle.network(variant)
        ways = self._recipes(variant, path)
        blank = PlanRecord(
            schema=SCHEMA,
            onnx=variant.sha256,
            precision=variant.precision,
            tensorrt=self._machine.tensorrt,
            device=self._machine.device,
            shapes=shapes,
            reach=self._settings.compatibility,
            version_compatible=self._settings.version_compatible,
            settings=self._settings.recorded(),
            plan=None,
            refused=(),
            library=self._machine.library,
        )
        self._folder.mkdir(exist_ok=True)
        with locked(self._folder / ".lock", "building plans of this bundle"):
            record = None if rebuild else self._existing(blank)
            if record is None:
                record, content = self._first_valid(variant, path, ways, blank)
                stored = plan_store.write(self._bundle.folder, record, content)
                record = record if stored is None else stored.record
        return record

    def _recipes(self, variant: Variant, path: Path) -> tuple[PrecisionRecipe, ...]:
        exact = self._bundle.variant("fp32", variant.pixel_format)
        found = recipes(
            variant.precision,
            typed_file=exact is None or variant.file != exact.file or variant == exact,
            halves=cast_pass.halves(path.read_bytes()),
            abilities=self._machine.abilities,
        )
        if not found:
            raise BackendError(
                f"{self._machine.title} cannot compute {variant.precision} from "
                f"{variant.file}; build another precision"
            )
        return found

    def _existing(self, blank: PlanRecord) -> PlanRecord | None:
        """Return the record of an undamaged plan of the same request."""
        path = self._folder / f"{blank.name}.json"
        if not path.is_file():
            return None
        try:
            record = plan_store.read(path)
            if record.plan is not None:
                StoredPlan(self._folder, record).read()
                return record
        except (BundleError, OSError) as error:
            _log.warning("%s", error)
        return None

    def _first_valid(
        self, variant: Variant, path: Path, ways: Sequence[PrecisionRecipe], blank: PlanRecord
    ) -> tuple[PlanRecord, bytes | None]:
        """Try the recipes in order until a plan passes validation."""
        refused: list[str] = []
        validator = None
        if blank.device is not None:
            validator = plan_validation.PlanValidator(self._bundle.folder, self._model, variant)
        try:
            for recipe in ways:
                try:
                    attempt = self._attempt(variant, path, recipe, blank, validator)
                    problem = attempt.problem
                except DriverError:
                    raise
                except BackendError as error:
                    problem = str(error)
                if problem is None:
                    record = dataclasses.replace(attempt.record, refused=tuple(refused))
                    return record, attempt.plan
                refused.append(f"{_RECIPE_NAMES[recipe.computed]}: {problem}")
        finally:
            if validator is not None:
                validator.close()
        return dataclasses.replace(blank, refused=tuple(refused), built=_now()), None

    def _attempt(
        self,
        variant: Variant,
        path: Path,
        recipe: PrecisionRecipe,
        blank: PlanRecord,
        validator: PlanValidator | None,
    ) -> _Attempt:
        """Build with a recipe and validate the result; a portable plan at its first use.

        Raises:
            DriverError: CUDA or the driver does not work.
            BackendError: TensorRT fails to build or to run the plan.
            OutOfMemoryError: the build or the run exceeds memory.
        """
        request = BuildRequest(
            onnx=str(path),
            recipe=recipe,
            exact=variant.precision == "fp32",
            shapes=blank.shapes,
            settings=self._settings,
            timing_cache=self._timings(),
            device=self._machine.index,
        )
        with tempfile.TemporaryDirectory() as name:
            plan = Path(name) / "plan"
            start = time.monotonic()
            stage = f"building {variant.precision} for {blank.shapes}"
            library, asked = self._machine.library, dataclasses.asdict(request)
            found = self._process.call(
                "build", stage, library=library, request=asked, plan=str(plan)
            )
            record = dataclasses.replace(
                blank,
                computed=recipe.computed,
                device_memory=found["device_memory"],
                built=_now(),
                seconds=round(time.monotonic() - start, 1),
                compared="nothing: a portable plan is validated at its first use on a GPU",
            )
            if validator is None:
                return _Attempt(record, plan.read_bytes(), None)
            assert self._machine.index is not None
            trial = PlanTrial(self._model, variant, record, self._machine.index)
            memory, result = trial.run(self._process, plan, validator)
            content = plan.read_bytes()
        record = dataclasses.replace(
            record, device_memory=memory, psnr=result.psnr, compared=result.compared
        )
        return _Attempt(record, content, result.problem)

    def _timings(self) -> str | None:
        """Return the path of the kernel timings; None: the library times nothing."""
        if self._machine.device is None:
            return None
        # Timings are valid for one version of TensorRT on one kind of GPU.
        gpu = plan_store.file_part(self._machine.device.name)
        timings = f"{gpu}-tensorrt-{self._machine.tensorrt}.{plan_store.TIMING_CACHE}"
        return str(self._folder / timings)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
