"""OpenVINO: fastest on x86 and ARM CPUs; FP32, INT8, and BF16 if the CPU has it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import openvino

from sr_deploy.backends.base import Footprint, HostNetwork, check_result, translate_error
from sr_deploy.backends.host import HostLane
from sr_deploy.backends.openvino.concat_pass import quantize_before_concat
from sr_deploy.backends.openvino.pixel_shuffle_pass import shuffle_bytes
from sr_deploy.errors import BackendError
from sr_deploy.machine import trim_heap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sr_deploy.backends.base import LoadRequest
    from sr_deploy.bundle.manifest import Precision

# Peak resident memory over the exporter's figure, measured on four networks (16 convolutions of
# 64 features x4; 6 of 32 features x2; SRResNet; RRDB), 128x128 to 1280x720: 1.05 to 1.59 in FP32,
# 0.53 to 1.26 in BF16; on three (16 of 64 x4; EDSR; RRDB) 0.5 to 1.22 in INT8. Weights: 3.1 copies
# with 23 RRDB blocks (67 MB): packed for any shape, and cloned and packed for one.
_FACTORS: dict[Precision, float] = {"fp32": 1.6, "fp16": 1.6, "bf16": 1.3, "int8": 1.3}
_WEIGHT_COPIES = 3.2
_FIXED = 32 << 20

# A network compiled for one shape runs 7 to 33 % faster than one for any shape, in INT8 20 to 80 %
# (for any shape, quantizers are not always fused with the layer before). But compiling takes as
# long as many small frames, so it waits until a shape has taken this many times the compile time.
_WORTHWHILE = 10
_WORTHWHILE_INT8 = 3


def create() -> OpenVinoBackend:
    """Return the backend."""
    return OpenVinoBackend()


class OpenVinoBackend:
    """Runs networks with OpenVINO."""

    name = "openvino"

    def __init__(self) -> None:
        self._core = openvino.Core()

    def precisions(self, device: str | None) -> tuple[Precision, ...]:
        """Return the precisions of a device, fastest first."""
        # FP16 is computed as FP32.
        return ("int8", *(("bf16",) if self._has_bf16(device) else ()), "fp32", "fp16")

    def load(self, request: LoadRequest) -> OpenVinoNetwork:
        """Load a network; see `Backend.load`."""
        # In FP32, the float layers of an INT8 network would cost half of its speed.
        bf16 = request.precision == "bf16" or (
            request.precision == "int8" and self._has_bf16(request.device)
        )
        hint = "bf16" if bf16 else "f32"
        return OpenVinoNetwork(self._core, request, self._named(request.device), hint)

    def _has_bf16(self, device: str | None) -> bool:
        return "BF16" in self._core.get_property(self._named(device), "OPTIMIZATION_CAPABILITIES")

    def _named(self, device: str | None) -> str:
        """Return OpenVINO's name of a device."""
        name = (device or "CPU").upper()
        devices = self._core.available_devices
        if name not in devices:
            raise BackendError(
                f"OpenVINO has no device {device!r}; this machine has {', '.join(devices)}"
            )
        return name


class OpenVinoNetwork(HostNetwork):
    """A network that OpenVINO has read; each lane compiles it."""

    def __init__(self, core: openvino.Core, request: LoadRequest, device: str, hint: str) -> None:
        self._core = core
        self._request = request
        self._hint = hint
        self.device = device
        self.lanes = request.host_lanes
        try:
            self._model = core.read_model(request.file)
            if request.precision == "int8":
                quantize_before_concat(self._model)
        except (RuntimeError, UnicodeError) as error:  # quotes of damaged files need not be text
            raise translate_error(error, f"OpenVINO cannot read {request.file.name}") from error

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
        """Compile the network and open a lane on it."""
        # OpenVINO computes in BF16 unasked where the CPU has it, so the precision is always set.
        # Unpinned threads are as fast on an idle machine, 12 % faster beside other work (measured
        # on two cores), and two pinned networks would share the first cores.
        configuration: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.device == "CPU":
            configuration |= {
                "INFERENCE_NUM_THREADS": max(1, self._request.threads // self.lanes),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
            }
        try:
            inference = _CompiledInference(
                self._core, self._model, self._request, self.device, configuration
            )
        except (RuntimeError, UnicodeError) as error:
            name = self._request.file.name
            raise translate_error(error, f"OpenVINO cannot compile {name}") from error
        return HostLane(inference, self._request.model, self._request.pixel_format)

    def close(self) -> None:
        """Free the network."""
        self._model = None


class _CompiledInference:
    """Runs a network that is compiled twice: for any shape, and for the shape that repeats.

    Outside FP32, the two may round differently. A video job must be able to resume after a kill
    with the same bits, so for streaming all frames use the second. At most one of the two keeps
    memory for intermediates.
    """

    def __init__(
        self,
        core: openvino.Core,
        model: Any,
        request: LoadRequest,
        device: str,
        configuration: dict[str, Any],
    ) -> None:
        self._core = core
        self._model = model
        self._is_int8 = request.precision == "int8"
        self._device = device
        self._configuration = configuration
        start = time.perf_counter()
        self._general = core.compile_model(model, device, configuration)
        worthwhile = _WORTHWHILE_INT8 if self._is_int8 else _WORTHWHILE
        self._price = 0 if request.streaming else worthwhile * (time.perf_counter() - start)
        self._special: Any = None
        self._shape: tuple[int, ...] = ()
        self._spent = 0.0
        # A network with a fixed shape gains nothing.
        self._can_specialize = model.inputs[0].partial_shape.is_dynamic

    def infer(
        self,
        pixels: NDArray[Any],
        into: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Run a batch in place; see `HostInference.infer`."""
        try:
            request = self._compiled_for(pixels.shape).create_infer_request()
            inputs: list[NDArray[Any]] = [pixels] if color is None else [pixels, color]
            for number, each in enumerate(inputs):
                # OpenVINO only shares writable arrays; Pillow's, for example, are read-only.
                shared = each if each.flags.writeable else each.copy()
                request.set_input_tensor(number, openvino.Tensor(shared, shared_memory=True))
            result = openvino.Tensor(into, shared_memory=True)
            request.set_output_tensor(result)
            start = time.perf_counter()
            # `infer` loses errors where one thread computes, and the next call ends the process
            # (2026.4).
            request.start_async()
            request.wait()
        except (RuntimeError, UnicodeError) as error:
            raise translate_error(error, f"OpenVINO on {self._device}") from error
        self._spent += time.perf_counter() - start
        # OpenVINO fills only the beginning of `into` if the network gives less. To iterate over its
        # shape takes ten times as long as to compare it.
        if result.get_shape() != openvino.Shape(into.shape):
            check_result(result.shape, into.shape, f"OpenVINO on {self._device}")

    def release(self) -> None:
        """Free the memory of intermediates and the network for one shape."""
        self._special = None
        self._shape = ()
        if self._general is not None:
            self._general.release_memory()

    def close(self) -> None:
        """Free the networks."""
        self._general = self._special = self._model = None

    def _compiled_for(self, shape: tuple[int, ...]) -> Any:
        """Return the compiled network for a shape; compile it for this shape when that pays."""
        if shape != self._shape:
            self._shape, self._spent, self._special = shape, 0.0, None
        if self._special is None and self._can_specialize and self._spent >= self._price:
            self._general.release_memory()
            trim_heap()
            special = self._model.clone()
            special.reshape({special.inputs[0]: list(shape)})
            if self._is_int8:
                shuffle_bytes(special)
            self._special = self._core.compile_model(special, self._device, self._configuration)
        return self._special or self._general
