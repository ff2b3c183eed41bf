"""The plans of a bundle that run on this machine: found, validated if from elsewhere, or built.

Building and validating are the exporter's work. It is reached through entry points, so the runtime
imports no exporter, and works without one.
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import TYPE_CHECKING, get_args

from sr_deploy.backends.cuda import driver
from sr_deploy.bundle import plan_store, plan_verdicts
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.bundle.plan_store import TITLES, PlanRequest
from sr_deploy.errors import (
    BackendError,
    BundleError,
    DriverError,
    NotFoundError,
    SrDeployError,
)
from sr_deploy.files import sha256_of
from sr_deploy.machine import trim_heap

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.backends.base import LoadRequest
    from sr_deploy.bundle.plan_store import LibraryName, StoredPlan

_log = logging.getLogger(__name__)

PLAN_BUILDERS = "sr_deploy.plan_builders"
"""Entry points that build plans, by library: `(folder, precision, pixel_format, device)`."""
PLAN_VALIDATORS = "sr_deploy.plan_validators"
"""Entry points that judge plans, by library: `(folder, plan, device)`."""


class _NoPlanError(BackendError):
    """No plan runs here, but one can be built."""


class PlanFinder:
    """The plans of one variant.

    Args:
        request: The network to load.
        index: Index of the GPU.
        name: The library.
        version: Its version.
    """

    def __init__(self, request: LoadRequest, index: int, name: LibraryName, version: str) -> None:
        self._request = request
        self._index = index
        self._name: LibraryName = name
        self._bundle = request.file.parent
        self._gpu = driver.describe(index)
        self._wanted = PlanRequest(
            onnx=sha256_of(request.file),
            precision=request.precision,
            tensorrt=version,
            device=self._gpu,
            library=name,
        )

    def open(self, load: Callable[[StoredPlan], None]) -> tuple[StoredPlan, ...]:
        """Return the plans that run here; build one if there is none.

        Args:
            load: Loads the first of them.

        Raises:
            DriverError: CUDA or the driver does not work.
            BackendError: no plan runs here; the text has the reason for each.
            BundleError, NotFoundError: a plan is damaged, and must not be built again.
            OutOfMemoryError: the plan does not fit into GPU memory.
        """
        try:
            return self._find(load)
        except (_NoPlanError, BundleError, NotFoundError) as error:
            if self._request.build != "auto":
                raise
            _log.debug("%s", error)
        _build(self._request, self._index, self._name)
        return self._find(load)

    def _find(self, load: Callable[[StoredPlan], None]) -> tuple[StoredPlan, ...]:
        found = plan_store.find(self._bundle, self._wanted)
        wrong = {plan.path.name: self._problem(plan) for plan in found.plans}
        plans = tuple(each for each in found.plans if wrong[each.path.name] is None)
        if plans:
            load(plans[0])
            return plans
        refused = found.refused or tuple(f"{name}: {why}" for name, why in wrong.items())
        reasons = "; ".join(refused or found.reasons) or "nothing was built"
        # A refused plan failed validation, so another build would fail too.
        kind = BackendError if refused else _NoPlanError
        portable = " --compatibility rtx" if self._name == "tensorrt_rtx" else ""
        raise kind(
            f"{self._bundle}: no plan of {self._request.precision} for {TITLES[self._name]} runs "
            f"here ({reasons}); build one: sr-export {self._bundle} --engine "
            f"{self._request.precision}{portable}"
        )

    def _problem(self, plan: StoredPlan) -> str | None:
        """Return why the images of a plan are wrong here; a plan from elsewhere is tried first.

        Raises:
            DriverError: the plan cannot be tried.
            BundleError: the plan is damaged.
        """
        if not plan_verdicts.needed(plan, self._gpu):
            return None
        plan.read()
        verdict = plan_verdicts.find(plan, self._gpu)
        if verdict is None:
            _log.info("%s: first use on this GPU, comparing its images with the CPU", plan.path)
            judge = _entry_point(PLAN_VALIDATORS, self._name)
            if judge is None:
                raise BackendError(
                    f"{plan.path}: not validated on this GPU, because the exporter is not "
                    "installed; reinstall sr-deploy"
                )
            verdict = judge.load()(self._bundle, plan, self._index)
            trim_heap()  # the validation has run the network on the CPU
        return verdict.problem


def _entry_point(group: str, name: str) -> importlib.metadata.EntryPoint | None:
    return next(iter(importlib.metadata.entry_points(group=group, name=name)), None)


def _build(request: LoadRequest, index: int, name: LibraryName) -> None:
    """Build a plan for this machine; the bundle keeps it.

    Raises:
        DriverError: CUDA or the driver does not work.
        BackendError: the plan cannot be built.
    """
    folder = request.file.parent
    if request.pixel_format in get_args(YuvFormat):
        raise BackendError(f"{folder}: TensorRT plans do not support {request.pixel_format} frames")
    builder = _entry_point(PLAN_BUILDERS, name)
    if builder is None:
        raise BackendError(
            f"{folder}: no TensorRT plan was built, because the exporter is not installed; "
            "reinstall sr-deploy, or copy the bundle with its plans from a machine with such a GPU"
        )
    title, takes = TITLES[name], "seconds" if name == "tensorrt_rtx" else "minutes"
    _log.warning(
        "%s: building a plan of %s for %s; this takes %s, once",
        *(folder, request.precision, title, takes),
    )
    try:
        builder.load()(folder, request.precision, request.pixel_format, index)
    except DriverError:
        raise
    except (OSError, SrDeployError) as error:
        raise BackendError(f"no TensorRT plan was built: {error}") from error
    trim_heap()  # the validation has run the network on the CPU
