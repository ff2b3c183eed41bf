"""Runs a plan on photos and judges its images, after its build or at its first use on a GPU."""

from __future__ import annotations

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.cuda import driver
from sr_deploy.backends.host import SAMPLES
from sr_deploy.bundle import plan_verdicts
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.plan_verdicts import Verdict
from sr_deploy.errors import BackendError, DriverError
from sr_export.trt import plan_validation
from sr_export.trt.plan_validation import PlanValidator
from sr_export.trt.worker import TensorRtProcess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Model, Variant
    from sr_deploy.bundle.plan_store import PlanRecord, StoredPlan
    from sr_export.trt.plan_validation import PlanQuality


def judge_plan(folder: Path, plan: StoredPlan, device: int) -> Verdict:
    """Judge a plan that was built elsewhere, at its first use on a GPU; the verdict is kept.

    This is the entry point `sr_deploy.plan_validators`. The plan runs in a child process.

    Args:
        folder: The bundle's folder.
        plan: The plan, whose hash is verified.
        device: Index of the GPU.

    Raises:
        DriverError: CUDA or the driver does not work; nothing is recorded.
        OutOfMemoryError: the plan does not fit into memory; nothing is recorded.
    """
    bundle, gpu = Bundle.open(folder), driver.describe(device)
    variant = next(
        each
        for each in bundle.manifest.variants
        if (each.sha256, each.precision) == (plan.record.onnx, plan.record.precision)
    )
    model = bundle.manifest.model
    trial = PlanTrial(model, variant, plan.record, device, plan_verdicts.cache_path(plan, gpu))
    validator = PlanValidator(folder, model, variant)
    psnr, compared = None, "nothing"
    try:
        with TensorRtProcess(lambda _: None) as process:
            _, quality = trial.run(process, plan.path, validator)
        psnr, compared, problem = quality.psnr, quality.compared, quality.problem
    except DriverError:
        raise
    except BackendError as error:
        problem = str(error)
    finally:
        validator.close()
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    verdict = Verdict.of(plan, gpu, problem=problem, psnr=psnr, compared=compared, judged=now)
    plan_verdicts.write(plan, verdict)
    return verdict


@dataclass(frozen=True)
class PlanTrial:
    """A plan to run on photos.

    Attributes:
        model: The network's description in the manifest.
        variant: The variant that the plan was built from.
        record: The plan's record.
        device: Index of the GPU.
        cache: File for the kernels that are compiled for this GPU; None: they are not kept.
    """

    model: Model
    variant: Variant
    record: PlanRecord
    device: int
    cache: Path | None = None

    def run(
        self, process: TensorRtProcess, plan: Path, validator: PlanValidator
    ) -> tuple[int, PlanQuality]:
        """Run the plan in a child process, and judge its images.

        Args:
            process: The child.
            plan: The plan's file.
            validator: What compares the images.

        Returns:
            The memory of an execution context in bytes, and the quality.

        Raises:
            SrDeployError: the plan does not run.
        """
        sample = SAMPLES[self.variant.pixel_format]
        deep = sample.itemsize == 2
        batches = plan_validation.batches(self.model, self.record.shapes, deep=deep)
        shapes = [plan_validation.result_shape(self.model, each) for each in batches]
        # The arrays go through files.
        with tempfile.TemporaryDirectory() as folder:
            inputs, outputs = (Path(folder) / f"{each}.npz" for each in ("inputs", "outputs"))
            np.savez(inputs, *(each.view(np.uint8) for each in batches))
            found = process.call(
                "run",
                "validating its images",
                library=self.record.library,
                plan=str(plan),
                inputs=str(inputs),
                outputs=str(outputs),
                shapes=[(*shape[:3], shape[3] * sample.itemsize) for shape in shapes],
                version_compatible=self.record.version_compatible,
                device=self.device,
                cache=None if self.cache is None else str(self.cache),
            )
            with np.load(outputs) as arrays:
                images: list[NDArray[Any]] = [arrays[name].view(sample) for name in arrays.files]
        memory: int = found["device_memory"]
        return memory, validator.validate(batches, images)
