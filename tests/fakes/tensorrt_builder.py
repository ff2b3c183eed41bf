"""TensorRT without a GPU: the part that our code uses, in the shapes of several versions.

Plans hold the ONNX file that they were built from, and ONNX Runtime computes it, in the memory of
the fake CUDA, so that a build, the look at its images and a run go through all of our code. What
the versions refuse, it refuses; what only some of them have, only those have.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import sys
import types
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.fakes.cuda import FakeCuda

_OURS = (
    "sr_deploy.backends.tensorrt.backend",
    "sr_deploy.backends.tensorrt.contexts",
    "sr_export.trt.builder",
)
_CREATION = {
    "8.6.0": ["EXPLICIT_BATCH"],
    "10.3.0": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    "10.16.1.11": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    "11.4.0.106": ["STRONGLY_TYPED", "PREFER_JIT_PYTHON_PLUGINS"],
}
_FLAGS = ["TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE"]
_PRECISIONS = {
    "8.6.0": ["FP16", "INT8"],
    "10.3.0": ["FP16", "INT8", "BF16"],
    "10.16.1.11": ["FP16", "INT8", "BF16"],
    "11.4.0.106": [],
}
VERSIONS = tuple(_CREATION)


def _enum(name: str, members: list[str], first: int = 0) -> Any:
    return enum.IntEnum(name, {each: first + i for i, each in enumerate(members)})


class FakeTensorRt(types.ModuleType):
    """Stands for the module `tensorrt`.

    Args:
        version: One of `VERSIONS`.
        cuda: In whose memory and streams networks run.

    Attributes:
        faults: What is wrong with the next builds, one each: "black", "noise", "none" or "refused".
        builds: The configurations of all builds.
        fast_int8: Whether the GPU has INT8, which 11 takes for granted.
    """

    def __init__(self, version: str, cuda: FakeCuda) -> None:
        super().__init__("tensorrt")
        old, new = version.startswith("8."), version.startswith("11.")
        self.__version__ = version
        self.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # it is installed
        self.cuda = cuda
        self.faults: list[str] = []
        self.builds: list[_Config] = []
        self.fast_int8 = True
        # Numbers move between versions.
        self.BuilderFlag = _enum("BuilderFlag", _PRECISIONS[version] + _FLAGS, 0 if old else 3)
        self.NetworkDefinitionCreationFlag = _enum("Creation", _CREATION[version])
        self.TensorIOMode = _enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
        self.MemoryPoolType = _enum("MemoryPoolType", ["WORKSPACE", "DLA_LOCAL_DRAM"])
        self.DeviceType = _enum("DeviceType", ["GPU", "DLA"])
        own = ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
        self.TacticSource = _enum("Tactics", own if new else ["CUBLAS", "CUBLAS_LT", "CUDNN", *own])
        core = ["DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"]
        self.PreviewFeature = _enum("PreviewFeature", core if old else ["OTHER"])
        same = [] if version in ("8.6.0", "10.3.0") else ["SAME_COMPUTE_CAPABILITY"]
        self.HardwareCompatibilityLevel = _enum("Levels", ["NONE", "AMPERE_PLUS", *same])
        self.ILogger = _Logger
        self.Builder = lambda log: _Builder(self, log)
        self.OnnxParser = lambda network, log: _Parser(self, network, log)
        self.Runtime = lambda log: _Runtime(self, log)
        if not old:
            self.IProgressMonitor = _Monitor
            self.ExecutionContextAllocationStrategy = _enum("Strategy", ["STATIC", "USER_MANAGED"])

    @property
    def typed_only(self) -> bool:
        return not _PRECISIONS[self.__version__]


class _Logger:
    """A base class as TensorRT's is: a program writes `log`, or its messages end here."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Any, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "nvinfer1::ILogger::log"')


class _Monitor:
    """A base class, which TensorRT calls."""


class _Builder:
    def __init__(self, trt: FakeTensorRt, log: _Logger) -> None:
        self._trt, self._log = trt, log
        if not trt.typed_only:
            self.platform_has_fast_int8 = trt.fast_int8

    def create_network(self, flags: int = 0) -> _Network:
        creation = self._trt.NetworkDefinitionCreationFlag
        return _Network({each.name for each in creation if flags >> each & 1})

    def create_builder_config(self) -> _Config:
        return _Config(self._trt)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        trt = self._trt
        config.creation = network.creation
        trt.builds.append(config)
        problem = self._problem(network, config)
        fault = trt.faults.pop(0) if trt.faults else ""
        if fault == "refused":
            problem = "Could not find any implementation for node Conv_0"
        if problem:
            self._log.log(_Logger.ERROR, problem)
            return None
        if monitor := getattr(config, "progress_monitor", None):
            monitor.phase_start("Building", None, 2)
            assert monitor.step_complete("Building", 0) is True
            monitor.phase_finish("Building")
        config.timing_cache.content += b"timed "
        header: dict[str, Any] = {
            "fault": fault,
            "profiles": [each.shapes for each in config.profiles],
        }
        header["code"] = "VERSION_COMPATIBLE" in config.flags
        return json.dumps(header).encode() + b"\n" + network.onnx

    def _problem(self, network: _Network, config: _Config) -> str:
        precisions = config.flags & set(_PRECISIONS[self._trt.__version__])
        typed = self._trt.typed_only or "STRONGLY_TYPED" in network.creation
        if "EXPLICIT_BATCH" not in network.creation and self._trt.__version__.startswith("8."):
            return "implicit batch"
        if typed and precisions:
            return "precision flags of a strongly typed network"
        if -1 in network.get_input(0).shape and not config.profiles:
            return "dynamic shapes, and no profile"
        return ""


class _Network:
    def __init__(self, creation: set[str]) -> None:
        self.creation = creation
        self.onnx = b""

    def get_input(self, index: int) -> Any:
        value = onnx.load_from_string(self.onnx).graph.input[index]
        sides = [each.dim_value or -1 for each in value.type.tensor_type.shape.dim]
        return types.SimpleNamespace(name=value.name, shape=tuple(sides))


class _Parser:
    def __init__(self, trt: FakeTensorRt, network: _Network, log: _Logger) -> None:
        self._trt, self._network = trt, network
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: self._errors[index])

    def parse(self, content: bytes) -> bool:
        model = onnx.load_from_string(content)
        if self._trt.__version__.startswith("8."):
            types_found = {each.data_type for each in model.graph.initializer}
            if model.opset_import[0].version > 17:
                self._errors.append("opset")
            if TensorProto.FLOAT16 in types_found:
                self._errors.append("scales of half precision are read as FP32")
        self._network.onnx = content
        return not self._errors


class _Cache:
    def __init__(self, content: bytes) -> None:
        self.content = bytes(content)

    def serialize(self) -> bytes:
        return self.content


class _Config:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.flags: set[str] = {"TF32"}
        self.creation: set[str] = set()
        self.profiles: list[_Profile] = []
        self.limits: dict[str, int] = {}
        self.preview: set[str] = set()
        self.tactics = sum(1 << each for each in trt.TacticSource)
        self.timing_cache = _Cache(b"")
        self.builder_optimization_level = 3
        self.max_aux_streams = -1
        self.DLA_core = -1
        self.default_device_type = trt.DeviceType.GPU
        self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE

    def set_flag(self, flag: enum.IntEnum) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: enum.IntEnum) -> None:
        self.flags.discard(flag.name)

    def get_tactic_sources(self) -> int:
        return self.tactics

    def set_tactic_sources(self, sources: int) -> bool:
        self.tactics = sources
        return True

    def set_preview_feature(self, feature: enum.IntEnum, enable: bool) -> None:
        self.preview |= {feature.name} if enable else set()

    def set_memory_pool_limit(self, pool: enum.IntEnum, size: int) -> None:
        self.limits[pool.name] = size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return 0

    def create_timing_cache(self, content: bytes) -> _Cache | None:
        return _Cache(content)

    def get_timing_cache(self) -> _Cache:
        return self.timing_cache

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        self.timing_cache = cache
        return not cache.content.startswith(b"foreign")


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, *limits: tuple[int, ...]) -> None:
        self.shapes[name] = [list(each) for each in limits]


class _Runtime:
    def __init__(self, trt: FakeTensorRt, log: _Logger) -> None:
        self._trt, self._log = trt, log
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        header, _, content = bytes(plan).partition(b"\n")
        try:
            found = json.loads(header)
        except ValueError:
            raise AssertionError("a damaged plan reached TensorRT") from None
        if found["code"] and not self.engine_host_code_allowed:
            self._log.log(_Logger.ERROR, "host code is not allowed")
            return None
        return _Engine(self._trt, found, content)


class _Engine:
    def __init__(self, trt: FakeTensorRt, header: dict[str, Any], content: bytes) -> None:
        self.trt, self.header = trt, header
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.names = [*self.inputs, *(each.name for each in self.session.get_outputs())]
        if trt.__version__.startswith("8."):
            self.create_execution_context_without_device_memory = lambda: _Context(self)
        else:
            self.create_execution_context = lambda strategy: _Context(self)
        name = "device_memory_size_v2" if trt.typed_only else "device_memory_size"
        setattr(self, name, 4096)

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if name in self.inputs else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        found = [*self.session.get_inputs(), *self.session.get_outputs()][self.names.index(name)]
        return tuple(each if isinstance(each, int) else -1 for each in found.shape)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._memory = 0
        if not engine.trt.__version__.startswith("8."):
            self.update_device_memory_size_for_shapes = lambda: 1024
            self.set_device_memory = self._take
        self.device_memory = 0

    def _take(self, address: int, size: int) -> None:
        assert size >= 1024
        self.device_memory = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        for profile in self._engine.header["profiles"]:
            least, _, most = profile[name]
            if not all(
                low <= side <= high for low, side, high in zip(least, shape, most, strict=True)
            ):
                return False
        self._shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.names

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.device_memory, "no memory for intermediates was lent"
        trt, shape, addresses = self._engine.trt, self._shape, dict(self._addresses)

        def work() -> None:
            kind = np.dtype(np.float32 if len(shape) == 2 else np.uint8)  # numbers, or pixels
            size = int(np.prod(shape)) * kind.itemsize
            given = trt.cuda.array(addresses[self._engine.names[0]], size).view(kind)
            result = self._run(given.reshape(shape))
            target = trt.cuda.array(addresses[self._engine.names[-1]], result.size)
            target[...] = result.ravel()

        trt.cuda.put(stream_handle, work)
        return True

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        (result,) = self._engine.session.run(None, {self._engine.inputs[0]: pixels})
        fault = self._engine.header["fault"]
        if fault == "noise":
            shift = np.random.default_rng(0).integers(0, 60, result.shape, np.uint8)
            return np.asarray(result // 2 + shift, np.uint8)
        return np.zeros_like(result) if fault == "black" else np.asarray(result)


def install(patch: pytest.MonkeyPatch, version: str, cuda: FakeCuda) -> FakeTensorRt:
    """Have our code find a fake of a version, as if it were started anew."""
    for name in _OURS:
        patch.delitem(sys.modules, name, raising=False)
        package, _, module = name.rpartition(".")
        if package in sys.modules:
            patch.delattr(sys.modules[package], module, raising=False)
    fake = FakeTensorRt(version, cuda)
    patch.setitem(sys.modules, "tensorrt", fake)
    return fake


def uninstall() -> None:
    """Forget our modules that have met a fake."""
    for name in _OURS:
        sys.modules.pop(name, None)
