"""Verdicts on plans that were built elsewhere: whether their images are correct on this GPU.

A portable plan is built on any machine, perhaps without a GPU. TensorRT has bugs that only some
GPUs show, so such a plan is validated at its first use on a GPU. The verdict is a file beside the
plan, for each GPU and driver.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.bundle import schema

# Not for type checking only: sr_deploy.bundle.schema reads the annotations to decode records.
from sr_deploy.bundle.plan_store import GpuInfo, file_part
from sr_deploy.errors import BundleError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

    from sr_deploy.bundle.plan_store import StoredPlan

_SCHEMA = 1
_LARGEST = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """The result of a validation.

    Attributes:
        schema: Number of this format.
        plan: SHA-256 of the plan.
        device: The GPU and its driver.
        problem: The reason to reject the plan; None: its images are correct.
        psnr: PSNR of the worst patch against FP32 on a CPU, in dB; None if equal or not compared.
        compared: Description of the images that were compared.
        judged: Date and time.
    """

    schema: int
    plan: str
    device: GpuInfo
    problem: str | None
    psnr: float | None
    compared: str
    judged: str

    @classmethod
    def of(
        cls,
        plan: StoredPlan,
        device: GpuInfo,
        *,
        problem: str | None,
        psnr: float | None,
        compared: str,
        judged: str,
    ) -> Verdict:
        """Return the verdict on a plan."""
        assert plan.record.plan is not None
        return cls(_SCHEMA, plan.record.plan.sha256, device, problem, psnr, compared, judged)


def needed(plan: StoredPlan, device: GpuInfo) -> bool:
    """Return whether a plan was not validated on such a GPU when it was built."""
    return plan.record.device is None or plan.record.device.name != device.name


def cache_path(plan: StoredPlan, device: GpuInfo) -> Path:
    """Return the path for the kernels that TensorRT for RTX compiles for a GPU."""
    return _beside(plan, device, "kernels")


def find(plan: StoredPlan, device: GpuInfo) -> Verdict | None:
    """Return the verdict on a plan for a GPU and driver; None if it is not known."""
    path = _beside(plan, device, "verdict")
    if not path.is_file():
        return None
    try:
        found = schema.read(Verdict, path, _SCHEMA, largest=_LARGEST)
    except (BundleError, OSError) as error:
        _log.warning("%s; the plan is validated again", error)
        return None
    assert plan.record.plan is not None
    return found if (found.plan, found.device) == (plan.record.plan.sha256, device) else None


def write(plan: StoredPlan, verdict: Verdict) -> None:
    """Store a verdict; a bundle that cannot be written to keeps none."""
    path = _beside(plan, verdict.device, "verdict")
    try:
        with atomic_file(path) as temporary:
            text = json.dumps(dataclasses.asdict(verdict), indent=2) + "\n"
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        _log.debug("%s: not kept: %s", path, error)


def _beside(plan: StoredPlan, device: GpuInfo, suffix: str) -> Path:
    gpu = f"{file_part(device.name)}-{file_part(device.driver)}".strip("-")
    return plan.folder / f"{plan.record.name}.{gpu}.{suffix}"
