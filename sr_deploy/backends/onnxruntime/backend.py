"""ONNX Runtime: any CPU; NVIDIA GPUs through its CUDA and TensorRT execution providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnxruntime

from sr_deploy.backends.base import Footprint, HostNetwork, translate_error
from sr_deploy.backends.host import HostLane
from sr_deploy.backends.onnxruntime.version import TRUNCATES_HALF
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sr_deploy.backends.base import LoadRequest
    from sr_deploy.bundle.manifest import Precision

_ERRORS_ONLY = 3

# Peak resident memory over the exporter's figure, measured on four networks (16 convolutions of
# 64 features x4; 6 of 32 features x2; SRResNet; RRDB), 128x128 to 1280x720: 1.3 to 2.12 without the
# memory pattern. With it, every buffer of a run is part of one more block: 2.5 to 2.7. On two
# networks (16 of 64 x4; EDSR), INT8 took 1.8 and FP16, which is computed in FP32, up to 3.04.
_FACTORS: dict[Precision, float] = {"fp32": 2.2, "fp16": 3.2, "bf16": 2.2, "int8": 2.2}
_WEIGHT_COPIES = 1.0
_FIXED = 32 << 20

# CUDA computes the layers that TensorRT rejects.
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
# Bundles quantize the inputs of convolutions, but the CPU's kernels need quantized outputs too:
# INT8 takes 1.25 times as long as FP32. FP16 is converted to FP32 and back.
_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": ("fp32", "int8", "fp16"),
    "cuda": ("fp16", "fp32", "int8"),
    "tensorrt": ("int8", "fp16", "fp32"),
}


@dataclass(frozen=True)
class OrtDevice:
    """A device of ONNX Runtime.

    Attributes:
        kind: cpu, cuda or tensorrt.
        index: Index of the GPU.
    """

    kind: str
    index: int = 0

    @classmethod
    def named(cls, name: str | None) -> OrtDevice:
        """Return the device of a name: cpu, cuda, tensorrt, or with an index, cuda:1.

        Raises:
            BackendError: the device does not exist, or this build of ONNX Runtime lacks it.
        """
        kind, colon, index = (name or "cpu").lower().partition(":")
        if kind not in _PROVIDERS or (colon and (kind == "cpu" or not index.isdecimal())):
            raise BackendError(
                f"ONNX Runtime has no device {name!r}; choose cpu, cuda or tensorrt; with several "
                "GPUs, cuda:1 or tensorrt:1"
            )
        provider = _PROVIDERS[kind][0]
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"the device {kind} needs {provider}, which this build of ONNX Runtime lacks; "
                "install onnxruntime-gpu instead"
            )
        return cls(kind, int(index or 0))

    @property
    def name(self) -> str:
        """The user's name of the device."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    def inputs(self) -> HostInputs | DeviceInputs:
        """Return a lane's way to bring inputs to the device."""
        return HostInputs() if self.kind == "cpu" else DeviceInputs("cuda", self.index)

    def providers(self, precision: Precision) -> list[tuple[str, dict[str, str]]]:
        """Return the execution providers and their options, the preferred one first."""
        exact = precision == "fp32"
        options = {
            "CPUExecutionProvider": {},
            "CUDAExecutionProvider": {
                "device_id": str(self.index),
                "use_tf32": str(int(not exact)),
            },
            # TensorRT computes in FP32 regardless of the file's types unless these flags allow
            # less. The float layers of an INT8 file are FP16.
            "TensorrtExecutionProvider": {
                "device_id": str(self.index),
                "trt_fp16_enable": str(not exact),
                "trt_int8_enable": str(precision == "int8"),
            },
        }
        return [(each, options[each]) for each in _PROVIDERS[self.kind]]


def create() -> OnnxRuntimeBackend:
    """Return the backend."""
    return OnnxRuntimeBackend()


class OnnxRuntimeBackend:
    """Runs networks with ONNX Runtime."""

    name = "onnxruntime"

    def precisions(self, device: str | None) -> tuple[Precision, ...]:
        """Return the precisions of a device, fastest first."""
        return _PRECISIONS[OrtDevice.named(device).kind]

    def load(self, request: LoadRequest) -> OnnxRuntimeNetwork:
        """Load a network; see `Backend.load`."""
        return OnnxRuntimeNetwork(request, OrtDevice.named(request.device))


class OnnxRuntimeNetwork(HostNetwork):
    """A network in one session, which all lanes share."""

    def __init__(self, request: LoadRequest, device: OrtDevice) -> None:
        if TRUNCATES_HALF and request.precision == "int8" and device.kind == "cpu":
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} computes INT8 inaccurately on CPUs; use "
                "version 1.30 or newer, another precision, or the backend openvino"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = request.threads
        options.enable_mem_pattern = False
        # Spinning threads would take CPU time from the caller between frames. From 256x256 on,
        # frames are as fast without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._request = request
        self.lanes = request.host_lanes
        self._place = device
        self.device = device.name
        providers = device.providers(request.precision)
        try:
            # ONNX Runtime's own fallback prints to the console and computes on another device.
            self._session = onnxruntime.InferenceSession(
                str(request.file), options, providers=providers, enable_fallback=False
            )
        except Exception as error:
            raise translate_error(error, f"ONNX Runtime cannot load {request.file.name}") from error
        if providers[0][0] not in self._session.get_providers():
            raise BackendError(f"ONNX Runtime could not start on {self.device}; see sr-doctor")

    @property
    def footprint(self) -> Footprint:
        """Host memory of one running lane."""
        return Footprint.of(
            self._request.model,
            self._request.pixel_format,
            factor=_FACTORS[self._request.precision],
            fixed=_FIXED,
            copies=_WEIGHT_COPIES,
        )

    def open_lane(self) -> HostLane:
        """Open a lane on the session."""
        inference = _SessionInference(self._session, self._request, self._place)
        return HostLane(inference, self._request.model, self._request.pixel_format)

    def close(self) -> None:
        """Free the session."""
        self._session = None


class _SessionInference:
    """Runs a session on arrays in place."""

    def __init__(
        self, session: onnxruntime.InferenceSession, request: LoadRequest, device: OrtDevice
    ) -> None:
        self._session = session
        self._model = request.model
        self._is_yuv = request.pixel_format in get_args(YuvFormat)
        self._on_cpu = device.kind == "cpu"
        self._inputs = device.inputs()
        self._shape: tuple[int, ...] = ()

    def infer(
        self,
        pixels: NDArray[Any],
        into: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Run a batch; see `HostInference.infer`."""
        if self._shape not in ((), pixels.shape):
            self.release()
        self._shape = pixels.shape
        try:
            names = (each.name for each in self._session.get_inputs())
            arrays = dict(zip(names, (pixels, color), strict=False))
            binding = self._inputs.bound(self._session, arrays)
            (output,) = self._session.get_outputs()
            # The output is the caller's memory: a GPU's result is copied only once.
            binding.bind_output(output.name, "cpu", 0, np.uint8, into.shape, into.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise translate_error(error, "ONNX Runtime") from error

    def release(self) -> None:
        """Free the buffers of a shape; on a CPU, shrink the arena.

        The arena shrinks at the end of a run that requests it, so this runs the smallest frame,
        which takes milliseconds. Otherwise the blocks of frames of several sizes add up to 2.3
        times the memory of the largest; with it, to 1.6 times (measured).
        """
        self._inputs.release()
        nothing_kept, self._shape = not self._shape, ()
        one_size = self._model.fixed_size is not None or self._model.latent is not None
        if nothing_kept or not self._on_cpu or one_size:
            return
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        frame, *others = self._session.get_inputs()
        side = self._model.minimum
        rows, columns = (side, side)
        if self._is_yuv:  # its sides are even
            columns += side % 2
            rows = columns * 3 // 2
        pixels = np.zeros((self._model.fixed_batch or 1, rows, columns, frame.shape[3]), np.uint8)
        more = {each.name: np.zeros(each.shape, np.float32) for each in others}
        try:
            self._session.run(None, {frame.name: pixels} | more, options)
        except Exception as error:
            raise translate_error(error, "ONNX Runtime") from error

    def close(self) -> None:
        """Drop the session."""
        self._session = None


class HostInputs:
    """Inputs that the session reads in place."""

    def bound(self, session: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """Return a binding of arrays by input name; it keeps them alive."""
        binding = session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        return binding

    def release(self) -> None:
        """Do nothing: there are no buffers."""


class DeviceInputs:
    """Input buffers on a device, allocated once for all frames of a shape."""

    def __init__(self, device: str, index: int) -> None:
        self._device = device, index
        self._binding: Any = None
        self._values: dict[str, Any] = {}

    def bound(self, session: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """Copy arrays to the device and return their binding.

        Until `release`, all arrays must have the shapes of the first ones.
        """
        if self._binding is None:
            self._binding = session.io_binding()
        for name, array in arrays.items():
            if name not in self._values:
                value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                    array.shape, array.dtype.type, *self._device
                )
                self._binding.bind_ortvalue_input(name, value)
                self._values[name] = value
            self._values[name].update_inplace(array)
        return self._binding

    def release(self) -> None:
        """Free the buffers."""
        self._binding = None
        self._values.clear()
