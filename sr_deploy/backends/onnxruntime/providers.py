"""Where ONNX Runtime computes: its execution providers, and how their inputs get there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime

from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision

# What TensorRT does not take of a network, CUDA computes.
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
# Bundles quantise the inputs of convolutions, not their outputs. The CPU's kernels want both; with
# this, INT8 takes 1.25 times as long as FP32. FP16 is converted back and forth.
_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": ("fp32", "int8", "fp16"),
    "cuda": ("fp16", "fp32", "int8"),
    "tensorrt": ("int8", "fp16", "fp32"),
}


@dataclass(frozen=True)
class Place:
    """Where a session computes."""

    kind: str
    """cpu, cuda or tensorrt."""
    index: int = 0
    """Of the GPU."""

    @property
    def name(self) -> str:
        """As the user names it."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it computes in, fastest first."""
        return _PRECISIONS[self.kind]

    def inputs(self) -> HostInputs | DeviceInputs:
        """Return what brings a lane's inputs there."""
        return HostInputs() if self.kind == "cpu" else DeviceInputs("cuda", self.index)

    def providers(self, precision: Precision) -> list[tuple[str, dict[str, str]]]:
        """Return the execution providers and their options, the one that is wanted first."""
        exact = precision == "fp32"
        options = {
            "CPUExecutionProvider": {},
            "CUDAExecutionProvider": {
                "device_id": str(self.index),
                "use_tf32": str(int(not exact)),
            },
            # TensorRT computes in FP32 whatever the file says, unless it is told that it need not.
            # What is float in an INT8 file is FP16.
            "TensorrtExecutionProvider": {
                "device_id": str(self.index),
                "trt_fp16_enable": str(not exact),
                "trt_int8_enable": str(precision == "int8"),
            },
        }
        return [(each, options[each]) for each in _PROVIDERS[self.kind]]


def place_of(device: str | None) -> Place:
    """Return where to compute for a device: cpu, cuda, tensorrt, or those with a number, cuda:1.

    Raises:
        BackendError: there is no such device, or this build of ONNX Runtime lacks it.
    """
    kind, colon, index = (device or "cpu").lower().partition(":")
    if kind not in _PROVIDERS or (colon and (kind == "cpu" or not index.isdecimal())):
        raise BackendError(
            f"ONNX Runtime has no device {device!r}; choose cpu, cuda or tensorrt; of several "
            "GPUs, cuda:1 or tensorrt:1"
        )
    provider = _PROVIDERS[kind][0]
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f"this build of ONNX Runtime has no {provider}, which {kind} needs; in its place: "
            "pip install onnxruntime-gpu"
        )
    return Place(kind, int(index or 0))


class HostInputs:
    """Inputs that the network reads where they are."""

    def bound(self, session: Any, given: Mapping[str, NDArray[Any]]) -> Any:
        """Return a binding of a session to arrays by name; it keeps them alive."""
        binding = session.io_binding()
        for name, array in given.items():
            binding.bind_cpu_input(name, array)
        return binding

    def release(self) -> None:
        """Nothing is kept."""


class DeviceInputs:
    """Inputs in a device's memory, which is taken once for all frames of a shape."""

    def __init__(self, device: str, index: int) -> None:
        self._device = device, index
        self._binding: Any = None
        self._values: dict[str, Any] = {}

    def bound(self, session: Any, given: Mapping[str, NDArray[Any]]) -> Any:
        """Return the binding of a session, with arrays by name copied to where it reads them.

        Until they are released, all have the shapes of the first.
        """
        if self._binding is None:
            self._binding = session.io_binding()
        for name, array in given.items():
            if name not in self._values:
                value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                    array.shape, array.dtype.type, *self._device
                )
                self._binding.bind_ortvalue_input(name, value)
                self._values[name] = value
            self._values[name].update_inplace(array)
        return self._binding

    def release(self) -> None:
        """Give the memory back."""
        self._binding = None
        self._values.clear()
