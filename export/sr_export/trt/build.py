"""Builds the plan of a variant, validates its images, and stores it in the bundle."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sr_deploy.backends.host import SAMPLES
from sr_deploy.bundle import plan_store, schema
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import PixelFormat, YuvFormat
from sr_deploy.bundle.plan_store import SCHEMA, GpuInfo, PlanRecord, PlanRequest
from sr_deploy.errors import BackendError, BundleError, InvalidInputError
from sr_export.trt import cast_pass, plan_validation
from sr_export.trt.build_request import BuildRequest, BuildSettings, ShapeOptions, recipes
from sr_export.trt.worker import TensorRtProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision, Variant
    from sr_deploy.bundle.plan_store import Shapes
    from sr_export.trt.build_request import PrecisionRecipe
    from sr_export.trt.plan_validation import PlanValidator

_log = logging.getLogger(__name__)

_DEFAULT_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
_RECIPE_NAMES = {"asked": "as exported", "mixed": "with all but the convolutions in FP32"}


def build_plan(
    folder: Path, precision: Precision, pixel_format: PixelFormat, device: int
) -> PlanRecord:
    """Build a plan that an engine shortfall: the entry point `sr_deploy.plan_builders`.

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
    bundle = Bundle.open(folder)
    (variant,) = choose_variants(bundle, (precision,), pixel_format)
    with TensorRtProcess(lambda _: None) as process:
        machine = Machine.of(process, device)
        shapes = ShapeOptions().shapes(bundle.manifest.model, pixel_format, machine.free)
        record = PlanBuilder(bundle, BuildSettings(), machine, process).build(variant, shapes)
    if record.plan is None:
        raise BackendError(f"no plan of {precision}: {'; '.join(record.refused)}")
    return record


def choose_variants(
    bundle: Bundle, precisions: Sequence[Precision], pixel_format: PixelFormat
) -> list[Variant]:
    """Return the variants of some precisions; of none, those of FP16 and INT8, or FP32.

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
    default = [each for each in _DEFAULT_PRECISIONS if each in variants]
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
        index: Index of the GPU.
        tensorrt: Version of TensorRT.
        abilities: Names of TensorRT's flags.
        device: The GPU.
        free: Free GPU memory in bytes.
    """

    index: int
    tensorrt: str
    abilities: tuple[str, ...]
    device: GpuInfo
    free: int

    @classmethod
    def of(cls, process: TensorRtProcess, index: int) -> Machine:
        """Describe this machine.

        Raises:
            BackendMissingError: TensorRT or cuda-python is not installed.
            BackendError: the GPU does not exist.
        """
        found = process.call("describe", "starting TensorRT", device=index)
        return schema.decode(cls, found | {"index": index}, "this machine")


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
            BackendError: this TensorRT cannot compute the precision.
        """
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
                f"TensorRT {self._machine.tensorrt} cannot compute {variant.precision} from "
                f"{variant.file}; build another precision"
            )
        return found

    def _existing(self, blank: PlanRecord) -> PlanRecord | None:
        """Return the record of an undamaged plan of the same request."""
        wanted = PlanRequest(blank.onnx, blank.precision, blank.tensorrt, blank.device)
        for plan in plan_store.find(self._bundle.folder, wanted).plans:
            if plan.record.name == blank.name:
                try:
                    plan.read()
                except (BundleError, OSError) as error:
                    _log.warning("%s", error)
                else:
                    return plan.record
        return None

    def _first_valid(
        self, variant: Variant, path: Path, ways: Sequence[PrecisionRecipe], blank: PlanRecord
    ) -> tuple[PlanRecord, bytes | None]:
        """Try the recipes in order until a plan passes validation."""
        refused: list[str] = []
        validator = plan_validation.PlanValidator(self._bundle.folder, self._model, variant)
        try:
            for recipe in ways:
                try:
                    attempt = self._attempt(variant, path, recipe, blank, validator)
                    problem = attempt.problem
                except BackendError as error:
                    problem = str(error)
                if problem is None:
                    record = dataclasses.replace(attempt.record, refused=tuple(refused))
                    return record, attempt.plan
                refused.append(f"{_RECIPE_NAMES[recipe.computed]}: {problem}")
        finally:
            validator.close()
        return dataclasses.replace(blank, refused=tuple(refused), built=_now()), None

    def _attempt(
        self,
        variant: Variant,
        path: Path,
        recipe: PrecisionRecipe,
        blank: PlanRecord,
        validator: PlanValidator,
    ) -> _Attempt:
        """Build with a recipe and validate the result.

        Raises:
            BackendError: TensorRT fails to build or to run the plan.
            OutOfMemoryError: the build or the run exceeds memory.
        """
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self._machine.device.name).strip("-")
        # Timings are valid for one version of TensorRT on one kind of GPU.
        timings = f"{gpu}-tensorrt-{self._machine.tensorrt}.{plan_store.TIMING_CACHE}"
        request = BuildRequest(
            onnx=str(path),
            recipe=recipe,
            exact=variant.precision == "fp32",
            shapes=blank.shapes,
            settings=self._settings,
            timing_cache=str(self._folder / timings),
            device=self._machine.index,
        )
        sample = SAMPLES[variant.pixel_format]
        batches = plan_validation.batches(self._model, blank.shapes, deep=sample.itemsize == 2)
        with tempfile.TemporaryDirectory() as name:
            plan = Path(name) / "plan"
            start = time.monotonic()
            stage = f"building {variant.precision} for {blank.shapes}"
            self._process.call("build", stage, request=dataclasses.asdict(request), plan=str(plan))
            seconds = time.monotonic() - start
            memory, images = self._run(plan, batches, sample)
            content = plan.read_bytes()
        result = validator.validate(batches, images)
        record = dataclasses.replace(
            blank,
            computed=recipe.computed,
            device_memory=memory,
            built=_now(),
            seconds=round(seconds, 1),
            psnr=result.psnr,
            compared=result.compared,
        )
        return _Attempt(record, content, result.problem)

    def _run(
        self, plan: Path, batches: list[NDArray[Any]], sample: np.dtype[Any]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Run a plan; the arrays go through files beside it.

        Returns:
            The memory of an execution context in bytes, and the images of each batch.
        """
        inputs, outputs = plan.with_name("inputs.npz"), plan.with_name("outputs.npz")
        np.savez(inputs, *(each.view(np.uint8) for each in batches))
        shapes = [plan_validation.result_shape(self._model, each) for each in batches]
        found = self._process.call(
            "run",
            "validating its images",
            plan=str(plan),
            inputs=str(inputs),
            outputs=str(outputs),
            shapes=[(*shape[:3], shape[3] * sample.itemsize) for shape in shapes],
            version_compatible=self._settings.version_compatible,
            device=self._machine.index,
        )
        with np.load(outputs) as arrays:
            images = [arrays[name].view(sample) for name in arrays.files]
        return found["device_memory"], images


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
