"""TensorRT, fastest on NVIDIA GPUs, and TensorRT for RTX: one backend for both libraries.

TensorRT's plans are built on the machine that runs them. Those of TensorRT for RTX are portable;
see `rtx`. Supports TensorRT 8.6 to 11: names that differ between versions are looked up, version
numbers are not compared.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sr_deploy import backends
from sr_deploy.backends.base import Footprint
from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.buffers import Scratch
from sr_deploy.backends.cuda.device_frames import CudaFrames
from sr_deploy.backends.cuda.lane import CudaLane
from sr_deploy.backends.host import SAMPLES
from sr_deploy.backends.tensorrt.contexts import Contexts, LoadedPlan, library
from sr_deploy.backends.tensorrt.plans import PlanFinder
from sr_deploy.bundle import plan_verdicts
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import (
    BackendError,
    OutOfMemoryError,
    SrDeployError,
)
from sr_deploy.machine import format_bytes
from sr_deploy.tiling import native
from sr_deploy.tiling.planner import TilePlanner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.backends.base import LoadRequest
    from sr_deploy.bundle.manifest import Model, Precision
    from sr_deploy.bundle.plan_store import LibraryName, PlanRecord, Shape, StoredPlan

_log = logging.getLogger(__name__)

_LANES = 3
"""Frames in flight: one is uploaded and one downloaded while a third is computed."""
_SHARE = 0.9
"""Share of the GPU's free memory without a limit of the user: other programs need the rest."""
_ANY = 1 << 62
_NOISE_BYTES = np.dtype(np.float32).itemsize
_BF16_SINCE = (8, 0)
"""First compute capability with BF16 arithmetic."""


def create() -> TensorRtBackend:
    """Return the backend."""
    return TensorRtBackend("tensorrt")


class TensorRtBackend:
    """Runs networks with TensorRT, or with TensorRT for RTX.

    Args:
        name: The library.
    """

    def __init__(self, name: LibraryName) -> None:
        self.name: LibraryName = name

    def precisions(self, device: str | None) -> tuple[Precision, ...]:
        """Return the precisions of a device, fastest first.

        The library is imported after the driver is found: it takes 150 MB of memory.
        """
        halves: tuple[Precision, ...] = ("fp16", "fp32")
        if driver.describe(_index(device)).capability >= _BF16_SINCE:
            halves = ("fp16", "bf16", "fp32")
        self._library()
        # TensorRT for RTX computes most networks in INT8 more slowly: its kernels requantize in a
        # pass of their own.
        return (*halves, "int8") if self.name == "tensorrt_rtx" else ("int8", *halves)

    def load(self, request: LoadRequest) -> TensorRtNetwork:
        """Load a network; see `Backend.load`."""
        return TensorRtNetwork(request, _index(request.device), self.name, self._library())

    def _library(self) -> Any:
        try:
            return library(self.name)
        except Exception as error:
            raise BackendError(
                f"the package {backends.REGISTRY[self.name].package} is installed but does not "
                f"work ({type(error).__name__}: {error}); see sr-doctor"
            ) from error


def _index(name: str | None) -> int:
    """Return the index of a GPU: cuda, gpu, cuda:1 or gpu:1.

    Raises:
        BackendMissingError: cuda-python is not installed.
        BackendError: the device does not exist, or CUDA does not work.
    """
    match = re.fullmatch(r"(?:cuda|gpu)(?::(\d+))?", (name or "cuda").lower())
    count = driver.count()
    index = int(match[1] or 0) if match else count
    if index >= count:
        names = ", ".join(f"cuda:{each} ({driver.describe(each).name})" for each in range(count))
        raise BackendError(f"TensorRT has no device {name!r}; this machine has {names}")
    return index


@functools.cache
def _kernels(index: int) -> driver.Kernels | None:
    """Return the kernels of `native/` for a device, which must be the current one."""
    image = native.kernels()
    if image is None:
        _log.debug("no GPU kernels were built; frames are tiled on the CPU")
        return None
    try:
        return driver.Kernels(image)
    except SrDeployError as error:
        _log.warning("%s; frames of device %d are tiled on the CPU", error, index)
        return None


class TensorRtNetwork:
    """The plans of one variant; each is loaded when a frame first needs it."""

    def __init__(self, request: LoadRequest, index: int, name: LibraryName, trt: Any) -> None:
        self._request = request
        self._trt = trt
        self._model = request.model
        self._index = index
        self.device = f"cuda:{index}"
        self.device_frames = CudaFrames(request.model, self.device)
        self._rows = Fraction(3, 2) if request.pixel_format in get_args(YuvFormat) else Fraction(1)
        free, _ = driver.memory(index)
        self._bundle = request.file.parent
        self._gpu = driver.describe(index)
        free = int(_SHARE * free)
        self._budget = free if request.memory is None else min(request.memory, free)
        self._loading = threading.Lock()
        self._loaded_plans: dict[str, LoadedPlan] = {}
        self._plans = PlanFinder(request, index, name, trt.__version__).open(self._prepare)
        self._scratch = Scratch()

    @property
    def footprint(self) -> Footprint:
        """No host memory but page-locked copies of frames, which the runtime counts."""
        return Footprint(0, 0.0)

    def tile_planner(self, height: int, width: int) -> TilePlanner:
        """Return the planner for frames of a size; they are not tiled if a plan accepts them."""
        shape = (self._model.fixed_batch or 1, int(height * self._rows), width)
        whole = self._closest_plan(shape)
        options = [
            _planner(self._model, plan.record, self._affordable_pixels(plan.record), self._rows)
            for plan in (self._plans if whole is None else (whole,))
        ]
        return min(options, key=lambda each: each.plan(height, width, _ANY).pixels)

    @property
    def images_at_once(self) -> int | None:
        """Largest batch of a generator."""
        if self._model.latent is None:
            return None
        # A plan is only loaded if its largest batch fits into memory.
        return self._plans[0].record.shapes.most[0]

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a page-locked array."""
        driver.use(self._index)
        return driver.page_locked(shape)

    def open_lane(self) -> CudaLane:
        """Open another lane."""
        driver.use(self._index)
        contexts = Contexts(self._plan_for)
        return CudaLane(contexts, self._scratch, self._request, self._index, _kernels(self._index))

    def close(self) -> None:
        """Free the plans and their memory."""
        self._scratch.close()
        for each in self._loaded_plans.values():
            each.save_cache()
        self._loaded_plans.clear()

    def _prepare(self, plan: StoredPlan) -> None:
        """Load the first plan, and choose the number of lanes."""
        self.lanes = self._affordable_lanes(plan.record)
        self._load(plan)

    def _closest_plan(self, shape: Shape) -> StoredPlan | None:
        """Return the plan that accepts a shape and is tuned closest to it."""
        accepting = [each for each in self._plans if each.record.shapes.accept(shape)]
        pixels = shape[0] * shape[1] * shape[2]
        return min(accepting, key=lambda each: _distance(each.record, pixels), default=None)

    def _plan_for(self, shape: Shape) -> LoadedPlan:
        """Return the loaded plan for a shape.

        Raises:
            BackendError: no plan accepts the shape.
        """
        plan = self._closest_plan(shape)
        if plan is None:
            available = ", ".join(str(each.record.shapes) for each in self._plans)
            raise BackendError(
                f"no TensorRT plan accepts {'x'.join(map(str, shape))} (batch x height x width); "
                f"available: {available}"
            )
        return self._load(plan)

    def _load(self, plan: StoredPlan) -> LoadedPlan:
        with self._loading:
            name = plan.path.name
            if name not in self._loaded_plans:
                self._loaded_plans[name] = LoadedPlan(
                    self._trt,
                    plan.read(),
                    name,
                    version_compatible=plan.record.version_compatible,
                    cache=plan_verdicts.cache_path(plan, self._gpu),
                )
            return self._loaded_plans[name]

    def _affordable_lanes(self, record: PlanRecord) -> int:
        """Return the number of frames that fit into GPU memory beside the network.

        Raises:
            OutOfMemoryError: not even one frame fits.
        """
        best = record.shapes.best
        each = best[0] * best[1] * best[2] * self._pixel_bytes()
        left = self._budget - record.size - record.device_memory
        if left < each:
            needed = record.size + record.device_memory + each
            smaller = "--tile 512x512" if self._model.latent is None else "--batch 1"
            raise OutOfMemoryError(
                f"the TensorRT plan for {record.shapes} needs {format_bytes(needed)} of GPU "
                f"memory, {format_bytes(self._budget)} are allowed; allow more with --memory "
                "(memory= in Python), or build a smaller plan: "
                f"sr-export {self._bundle} --engine {smaller}"
            )
        return min(self._request.lanes or _LANES, left // each)

    def _affordable_pixels(self, record: PlanRecord) -> int:
        """Return the number of pixels per batch that fits into GPU memory."""
        most = record.shapes.most
        share = record.device_memory / (most[0] * most[1] * most[2])
        return int((self._budget - record.size) / (share + self.lanes * self._pixel_bytes()))

    def _pixel_bytes(self) -> int:
        """Return the bytes of an input pixel or noise value and of its part of the result."""
        colors = 3 if self._request.pixel_format.startswith("rgb") else 1
        depth = colors * SAMPLES[self._request.pixel_format].itemsize
        if latent := self._model.latent:
            return _NOISE_BYTES + -(-latent.height * latent.width * depth // latent.size)
        return depth * (1 + self._model.scale**2)


def _distance(record: PlanRecord, pixels: int) -> tuple[bool, int]:
    """Return a sort key: plans for one shape first, then by distance from the best shape."""
    batch, height, width = record.shapes.best
    return record.shapes.least != record.shapes.most, abs(batch * height * width - pixels)


def _planner(model: Model, record: PlanRecord, pixels: int, rows: Fraction) -> TilePlanner:
    """Return the tile planner for a plan.

    Args:
        model: The network's description in the manifest.
        record: The plan's record.
        pixels: Pixels per batch that fit into memory.
        rows: Rows of the array per row of the frame: 3/2 for YUV.
    """
    (least, *low), (most, *high) = record.shapes.least, record.shapes.most
    low[0], high[0] = (int(side / rows) for side in (low[0], high[0]))
    batch = least if least == most or least > 1 else model.fixed_batch
    if low == high:
        return TilePlanner(replace(model, fixed_size=(high[0], high[1]), fixed_batch=batch))
    model = replace(model, minimum=max(model.minimum, *low), fixed_batch=batch)
    return TilePlanner(model, (high[0], high[1]), pixels)
