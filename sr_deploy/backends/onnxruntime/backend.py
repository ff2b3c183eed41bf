"""ONNX Runtime: runs on any CPU, and on NVIDIA GPUs by its CUDA and TensorRT providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnxruntime

from sr_deploy.backends.base import Footprint, HostNetwork, translated
from sr_deploy.backends.host import HostLane
from sr_deploy.backends.onnxruntime.providers import Place, place_of
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.backends.base import LoadRequest
    from sr_deploy.bundle.manifest import Precision

_ERRORS_ONLY = 3

# Peak resident memory over the exporter's figure, measured on four networks (16 convolutions of
# 64 features x4; 6 of 32 features x2; SRResNet; RRDB), 128x128 to 1280x720: 1.3 to 2.12, with the
# memory pattern off. With it on, every buffer of a run comes in one more block: 2.5 to 2.7. On two
# (16 of 64 x4; EDSR), INT8 took 1.8; FP16, which is computed in FP32, up to 3.04.
_FACTORS: dict[Precision, float] = {"fp32": 2.2, "fp16": 3.2, "bf16": 2.2, "int8": 2.2}
_WEIGHT_COPIES = 1.0
_FIXED = 32 << 20


def create() -> OnnxRuntimeBackend:
    """Return the backend."""
    return OnnxRuntimeBackend()


class OnnxRuntimeBackend:
    """Runs networks with ONNX Runtime."""

    name = "onnxruntime"

    def precisions(self, device: str | None) -> tuple[Precision, ...]:
        """Return the precisions that a device computes in, fastest first."""
        return place_of(device).precisions

    def load(self, job: LoadRequest) -> OnnxRuntimeNetwork:
        """Load a network; see `Backend.load`."""
        return OnnxRuntimeNetwork(job, place_of(job.device))


class OnnxRuntimeNetwork(HostNetwork):
    """A network in a session; all its lanes share the session."""

    def __init__(self, job: LoadRequest, place: Place) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = job.threads
        options.enable_mem_pattern = False
        # Spinning threads would take the processors from the caller between frames; frames of
        # 256x256 and more run as fast without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._job = job
        self.lanes = job.host_lanes
        self._place = place
        self.device = place.name
        wanted = place.providers(job.precision)
        try:
            # Falling back by itself, it would print to the console and compute elsewhere.
            self._session = onnxruntime.InferenceSession(
                str(job.file), options, providers=wanted, enable_fallback=False
            )
        except Exception as error:
            raise translated(error, f"ONNX Runtime cannot load {job.file.name}") from error
        if wanted[0][0] not in self._session.get_providers():
            raise BackendError(f"ONNX Runtime could not start on {self.device}; see sr-doctor")

    @property
    def footprint(self) -> Footprint:
        """What one lane takes of the host's memory while it runs."""
        return Footprint.of(
            self._job.model,
            self._job.pixel_format,
            factor=_FACTORS[self._job.precision],
            fixed=_FIXED,
            copies=_WEIGHT_COPIES,
        )

    def open_lane(self) -> HostLane:
        """Open a lane on the session."""
        runs = _Runs(self._session, self._job, self._place)
        return HostLane(runs, self._job.model, self._job.pixel_format)

    def close(self) -> None:
        """Give the session back."""
        self._session = None


class _Runs:
    """Runs a session, reading and writing where the batch lies."""

    def __init__(
        self, session: onnxruntime.InferenceSession, job: LoadRequest, place: Place
    ) -> None:
        self._session = session
        self._model = job.model
        self._is_yuv = job.pixel_format in get_args(YuvFormat)
        self._on_cpu = place.kind == "cpu"
        self._inputs = place.inputs()
        self._shape: tuple[int, ...] = ()

    def infer(
        self,
        pixels: NDArray[Any],
        into: NDArray[np.uint8],
        colour: NDArray[np.float32] | None = None,
    ) -> None:
        """Run on a batch; see `Inference.infer`."""
        if self._shape not in ((), pixels.shape):
            self.release()
        self._shape = pixels.shape
        try:
            names = (each.name for each in self._session.get_inputs())
            given = dict(zip(names, (pixels, colour), strict=False))
            binding = self._inputs.bound(self._session, given)
            (fetched,) = self._session.get_outputs()
            # In the caller's own memory: from a GPU, the result is copied once.
            binding.bind_output(fetched.name, "cpu", 0, np.uint8, into.shape, into.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise translated(error, "ONNX Runtime") from error

    def release(self) -> None:
        """Give back what was kept for a shape; on a CPU, have the arena give back, too.

        It gives back at the end of a run that asks for it. Without this, the pieces of differing
        frames add up to 2.3 times what the largest needs, where it is 1.6 with it (measured); the
        smallest frame costs some milliseconds.
        """
        self._inputs.release()
        nothing_kept, self._shape = not self._shape, ()
        one_size = self._model.fixed_size is not None or self._model.latent is not None
        if nothing_kept or not self._on_cpu or one_size:
            return
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        fed, *others = self._session.get_inputs()
        side = self._model.minimum
        rows, columns = (side, side)
        if self._is_yuv:  # of an even size
            columns += side % 2
            rows = columns * 3 // 2
        pixels = np.zeros((self._model.fixed_batch or 1, rows, columns, fed.shape[3]), np.uint8)
        more = {each.name: np.zeros(each.shape, np.float32) for each in others}
        try:
            self._session.run(None, {fed.name: pixels} | more, options)
        except Exception as error:
            raise translated(error, "ONNX Runtime") from error

    def close(self) -> None:
        """Let go of the session."""
        self._session = None
