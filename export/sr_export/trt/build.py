"""A plan of a variant: built, looked at, and put into the bundle; or the reasons why not."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.host import SAMPLES
from sr_deploy.bundle import plan_store, schema
from sr_deploy.bundle.locking import locked
from sr_deploy.bundle.plan_store import SCHEMA, GpuInfo, PlanRecord, PlanRequest
from sr_deploy.errors import BackendError, BundleError
from sr_export.trt import cast_pass, plan_validation
from sr_export.trt.build_request import BuildRequest, recipes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.bundle import Bundle
    from sr_deploy.bundle.manifest import Variant
    from sr_deploy.bundle.plan_store import Shapes
    from sr_export.trt.build_request import BuildSettings, Recipe
    from sr_export.trt.plan_validation import PlanValidator
    from sr_export.trt.worker import TensorRtProcess

_log = logging.getLogger(__name__)

_NAMES = {"asked": "as exported", "mixed": "with all but the convolutions in FP32"}


@dataclass(frozen=True)
class _Built:
    """What came of one attempt."""

    record: PlanRecord
    plan: bytes
    problem: str | None
    """Why it must not be kept."""


@dataclass(frozen=True)
class Machine:
    """Where plans are built."""

    index: int
    """Of the GPU."""
    tensorrt: str
    abilities: tuple[str, ...]
    device: GpuInfo
    free: int
    """Bytes of the GPU's memory that nobody holds."""

    @classmethod
    def of(cls, worker: TensorRtProcess, index: int) -> Machine:
        """Look at this machine.

        Raises:
            BackendMissingError: TensorRT or cuda-python is not installed.
            BackendError: there is no such GPU.
        """
        found = worker.call("describe", "starting TensorRT", device=index)
        return schema.decode(cls, found | {"index": index}, "this machine")


class Building:
    """Builds the plans of one bundle on one machine.

    Args:
        bundle: Where they go.
        settings: What the user set.
        machine: Where they are built.
        worker: That builds them.
    """

    def __init__(
        self, bundle: Bundle, settings: BuildSettings, machine: Machine, worker: TensorRtProcess
    ) -> None:
        self._bundle = bundle
        self._settings = settings
        self._machine = machine
        self._worker = worker

    def build(self, variant: Variant, shapes: Shapes, *, again: bool = False) -> PlanRecord:
        """Build the plan of a variant, unless it is there; its record says what came of it.

        Args:
            variant: Of the bundle.
            shapes: What it is to take.
            again: Build it even if it is there, or was refused before.

        Returns:
            The record, with or without a plan.

        Raises:
            BundleError: the ONNX file is not the one exported.
            BackendError: this TensorRT has no way to compute the precision.
        """
        path = self._bundle.verified(variant)
        ways = self._recipes(variant, path)
        folder = self._bundle.folder / plan_store.FOLDER
        folder.mkdir(exist_ok=True)
        blank = self._blank(variant, shapes)
        with locked(folder / ".lock", "building plans of this bundle"):
            record = None if again else self._known(blank)
            if record is None:
                record, content = self._first_right(variant, path, ways, blank)
                stored = plan_store.write(self._bundle.folder, record, content)
                record = record if stored is None else stored.record
        return record

    def _recipes(self, variant: Variant, path: Path) -> tuple[Recipe, ...]:
        exact = self._bundle.variant("fp32", variant.pixel_format)
        ways = recipes(
            variant.precision,
            typed_file=exact is None or variant.file != exact.file or variant == exact,
            halves=cast_pass.halves(path.read_bytes()),
            abilities=self._machine.abilities,
        )
        if not ways:
            raise BackendError(
                f"TensorRT {self._machine.tensorrt} cannot compute {variant.precision} from "
                f"{variant.file}; build another precision"
            )
        return ways

    def _blank(self, variant: Variant, shapes: Shapes) -> PlanRecord:
        return PlanRecord(
            schema=SCHEMA,
            onnx=variant.sha256,
            precision=variant.precision,
            tensorrt=self._machine.tensorrt,
            device=self._machine.device,
            shapes=shapes,
            reach=self._settings.reach,
            version_compatible=self._settings.version_compatible,
            settings=self._settings.words(),
            plan=None,
            refused=(),
        )

    def _known(self, blank: PlanRecord) -> PlanRecord | None:
        """Return the record of what was built for the same wish, if its plan is whole."""
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

    def _first_right(
        self, variant: Variant, path: Path, ways: Sequence[Recipe], blank: PlanRecord
    ) -> tuple[PlanRecord, bytes | None]:
        """Build in one way after the other, until what is built gives right images."""
        refused: list[str] = []
        examiner = plan_validation.PlanValidator(
            self._bundle.folder, self._bundle.manifest.model, variant
        )
        try:
            for way in ways:
                try:
                    built = self._attempt(variant, path, way, blank, examiner)
                except BackendError as error:
                    refused.append(f"{_NAMES[way.computed]}: {error}")
                    continue
                if built.problem is None:
                    return dataclasses.replace(built.record, refused=tuple(refused)), built.plan
                refused.append(f"{_NAMES[way.computed]}: {built.problem}")
        finally:
            examiner.close()
        return dataclasses.replace(blank, refused=tuple(refused), built=_now()), None

    def _attempt(
        self, variant: Variant, path: Path, way: Recipe, blank: PlanRecord, examiner: PlanValidator
    ) -> _Built:
        """Build in one way, and look at what comes out.

        Raises:
            BackendError: TensorRT does not build it, or does not run what it built.
            OutOfMemoryError: there is no memory for it.
        """
        order = BuildRequest(
            onnx=str(path),
            recipe=way,
            exact=variant.precision == "fp32",
            shapes=blank.shapes,
            settings=self._settings,
            timing_cache=str(self._timing_cache()),
            device=self._machine.index,
        )
        with tempfile.TemporaryDirectory() as name:
            plan = Path(name) / "plan"
            start = time.monotonic()
            stage = f"building {variant.precision} for {blank.shapes}"
            self._worker.call("build", stage, order=dataclasses.asdict(order), plan=str(plan))
            seconds = time.monotonic() - start
            sample = SAMPLES[variant.pixel_format]
            asked = plan_validation.frames(
                self._bundle.manifest.model, blank.shapes, deep=sample.itemsize == 2
            )
            memory, answers = self._run(plan, asked, sample)
            verdict = examiner.judge(asked, answers)
            content = plan.read_bytes()
        record = dataclasses.replace(
            blank,
            computed=way.computed,
            device_memory=memory,
            built=_now(),
            seconds=round(seconds, 1),
            psnr=verdict.psnr,
            compared=verdict.compared,
        )
        return _Built(record, content, verdict.problem)

    def _run(
        self, plan: Path, asked: list[NDArray[Any]], sample: np.dtype[Any]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Run a plan on some batches, which lie beside it meanwhile; it makes images of samples.

        Returns:
            The bytes that a context takes, and what became of the batches.
        """
        batches, answers = plan.with_name("batches.npz"), plan.with_name("answers.npz")
        np.savez(batches, *(each.view(np.uint8) for each in asked))
        model = self._bundle.manifest.model
        shapes = [plan_validation.answer_shape(model, each) for each in asked]
        found = self._worker.call(
            "run",
            "looking at its images",
            plan=str(plan),
            batches=str(batches),
            answers=str(answers),
            shapes=[(*shape[:3], shape[3] * sample.itemsize) for shape in shapes],
            version_compatible=self._settings.version_compatible,
            device=self._machine.index,
        )
        with np.load(answers) as arrays:
            images = [arrays[name].view(sample) for name in arrays.files]
        return found["device_memory"], images

    def _timing_cache(self) -> Path:
        """Return the file of timings, which only hold for one TensorRT on one kind of GPU."""
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self._machine.device.name).strip("-")
        name = f"{gpu}-tensorrt-{self._machine.tensorrt}.{plan_store.TIMING_CACHE}"
        return self._bundle.folder / plan_store.FOLDER / name


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
