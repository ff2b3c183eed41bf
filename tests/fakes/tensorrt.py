"""A fake of TensorRT 8.6 to 11, builder and runtime, and of TensorRT for RTX.

A plan is a JSON header and the ONNX file that it was built from. ONNX Runtime computes the file, or
an oracle in its place, in the memory and streams of the fake CUDA. Each version has the names, and
rejects the networks, that the real one has and rejects.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.fakes.cuda import FakeCuda

# They keep kernels of the fake GPU.
_IMPORTERS = ("sr_deploy.backends.tensorrt.rtx", "sr_deploy.backends.tensorrt.backend")
_MODULES = ("tensorrt", "tensorrt_rtx_bindings", "tensorrt_rtx")
RTX = "1.7.1.116"
_CREATION = {
    "8.6.0": ["EXPLICIT_BATCH"],
    "10.3.0": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    "10.16.1.11": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    "11.4.0.106": ["STRONGLY_TYPED", "PREFER_JIT_PYTHON_PLUGINS"],
    RTX: ["STRONGLY_TYPED"],
}
_FLAGS = ["TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE"]
_PRECISIONS = {
    "8.6.0": ["FP16", "INT8"],
    "10.3.0": ["FP16", "INT8", "BF16"],
    "10.16.1.11": ["FP16", "INT8", "BF16"],
    "11.4.0.106": [],
    RTX: [],
}
ALL = tuple(_CREATION)
VERSIONS = tuple(each for each in ALL if each != RTX)
"""The versions of TensorRT."""


def _enum(name: str, members: list[str], first: int = 0) -> Any:
    return enum.IntEnum(name, {each: first + i for i, each in enumerate(members)})


class FakeTensorRt(types.ModuleType):
    """The module of a library.

    Args:
        version: One of `ALL`.
        cuda: The fake GPU.
        network: Maps a batch to its result in place of the plans' ONNX files.

    Attributes:
        faults: Faults of the next builds, one each: "black", "noise", "none" or "refused".
        builds: Configurations of all builds.
        fast_int8: Whether the GPU has fast INT8; 11 does not ask.
        memory: Bytes for the intermediates of the next plans.
        old: Whether it is 8.6.
        rtx: Whether it is TensorRT for RTX.
        typed_only: Whether precision flags are gone, as in 11.
    """

    def __init__(
        self,
        version: str,
        cuda: FakeCuda,
        network: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.rtx = version == RTX
        name = "tensorrt_rtx_bindings" if self.rtx else "tensorrt"
        super().__init__(name)
        self.memory = 4096
        self.old = old = version.startswith("8.")
        self.typed_only = new = not _PRECISIONS[version]
        self.network = network
        self.__version__ = version
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)  # it is installed
        self.cuda = cuda
        self.faults: list[str] = []
        self.builds: list[_Config] = []
        self.fast_int8 = True
        # Numbers move between versions.
        flags = _PRECISIONS[version] + _FLAGS + (["REQUIRE_USER_ALLOCATION"] if self.rtx else [])
        self.BuilderFlag = _enum("BuilderFlag", flags, 0 if old else 3)
        self.NetworkDefinitionCreationFlag = _enum("Creation", _CREATION[version])
        self.TensorIOMode = _enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
        self.MemoryPoolType = _enum("MemoryPoolType", ["WORKSPACE", "DLA_LOCAL_DRAM"])
        self.DeviceType = _enum("DeviceType", ["GPU", "DLA"])
        self.DataType = _enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"])
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
        if self.rtx:
            self.ComputeCapability = _enum("ComputeCapability", ["NONE", "CURRENT", "SM75", "SM80"])
            self.DynamicShapesKernelSpecializationStrategy = _enum(
                "Specialization", ["LAZY", "EAGER", "NONE"]
            )


class _Logger:
    """The base class: a subclass must define `log`."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Any, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "nvinfer1::ILogger::log"')


class _Monitor:
    """The base class of progress monitors."""


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
        if not trt.rtx:
            config.timing_cache.content += b"timed "
        self._log.log(_Logger.INFO, f"Total Activation Memory: {trt.memory} bytes")
        header = {
            "fault": fault,
            "code": "VERSION_COMPATIBLE" in config.flags,
            "memory": trt.memory,
            "capturable": not trt.rtx or "REQUIRE_USER_ALLOCATION" in config.flags,
            "profiles": [each.shapes for each in config.profiles],
            "inputs": network.shapes("input"),
            "outputs": network.shapes("output"),
            "floats": [],
        }
        return json.dumps(header).encode() + b"\n" + network.onnx

    def _problem(self, network: _Network, config: _Config) -> str:
        precisions = config.flags & set(_PRECISIONS[self._trt.__version__])
        typed = self._trt.typed_only or "STRONGLY_TYPED" in network.creation
        if "EXPLICIT_BATCH" not in network.creation and self._trt.old:
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
        name, shape = list(self.shapes("input").items())[index]
        return types.SimpleNamespace(name=name, shape=shape)

    def shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the inputs or outputs by name."""
        return {
            value.name: tuple(each.dim_value or -1 for each in value.type.tensor_type.shape.dim)
            for value in getattr(onnx.load_from_string(self.onnx).graph, kind)
        }


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
        if self._trt.old:
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
        self.num_compute_capabilities = 0
        self.capabilities: dict[int, str] = {}
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

    def set_compute_capability(self, capability: enum.IntEnum, index: int) -> bool:
        self.capabilities[index] = capability.name
        return index < self.num_compute_capabilities

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
            self._log.log(_Logger.ERROR, "magic tag does not match")
            return None
        if self._trt.cuda.driver_fault:
            self._log.log(
                _Logger.ERROR, f"Error Code 1: Cuda Runtime ({self._trt.cuda.driver_fault})"
            )
            return None
        if found["code"] and not self.engine_host_code_allowed:
            self._log.log(_Logger.ERROR, "host code is not allowed")
            return None
        return _Engine(self._trt, self._log, found, content)


class _Engine:
    def __init__(
        self, trt: FakeTensorRt, log: _Logger, header: dict[str, Any], content: bytes
    ) -> None:
        self.trt, self.log, self.header = trt, log, header
        self.network = trt.network or _session(content, header)
        self.results: dict[tuple[int, ...], tuple[int, ...]] = {}
        if trt.rtx:
            self.create_runtime_config = lambda: _RuntimeConfig(trt)
            self.create_execution_context: Callable[..., _Context] = self._create_configured
        elif trt.old:
            self.create_execution_context_without_device_memory = lambda: _Context(self)
        else:
            self.create_execution_context = self._create
        name = "device_memory_size_v2" if trt.typed_only else "device_memory_size"
        setattr(self, name, header["memory"])

    def _create(self, strategy: Any) -> _Context:
        assert strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return _Context(self)

    def _create_configured(self, runtime_config: _RuntimeConfig) -> _Context:
        trt = self.trt
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        user = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        assert runtime_config.strategy == user
        assert runtime_config.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER
        context = _Context(self)
        context.compiled = runtime_config.get_runtime_cache()
        context.is_stream_capturable = lambda _: bool(self.header["capturable"])
        return context

    @property
    def tensors(self) -> dict[str, list[int]]:
        tensors: dict[str, list[int]] = self.header["inputs"] | self.header["outputs"]
        return tensors

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if name in self.header["inputs"] else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name])

    def get_tensor_dtype(self, name: str) -> Any:
        types = self.trt.DataType
        if name in self.header["floats"]:
            return types.FLOAT
        return types.UINT8 if len(self.tensors[name]) == 4 else types.FLOAT

    def result_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a batch's result, which the real library infers."""
        if shape not in self.results:
            kind = np.dtype(np.float32 if len(shape) == 2 else np.uint8)
            self.results[shape] = self.network(np.zeros(shape, kind)).shape
        return self.results[shape]


class _RuntimeCache:
    """The kernels of TensorRT for RTX; here, the shapes that they were compiled for."""

    def __init__(self, environment: str) -> None:
        self._environment = environment
        self.shapes: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        environment, _, shapes = bytes(blob).decode().partition(":")
        if environment != self._environment:
            return False
        self.shapes = set(shapes.split())
        return True

    def serialize(self) -> bytes:
        return f"{self._environment}:{' '.join(sorted(self.shapes))}".encode()


class _RuntimeConfig:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt
        self.strategy = trt.ExecutionContextAllocationStrategy.STATIC
        specialization = trt.DynamicShapesKernelSpecializationStrategy
        self.dynamic_shapes_kernel_specialization_strategy = specialization.LAZY
        self._cache: _RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: enum.IntEnum) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> _RuntimeCache:
        return _RuntimeCache(f"{self._trt.__version__} {self._trt.cuda.driver_version}")

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> _RuntimeCache:
        assert self._cache is not None
        return self._cache


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._lent = (0, 0)
        self.compiled: _RuntimeCache | None = None
        self.is_stream_capturable: Callable[[int], bool]
        if not engine.trt.old:
            self.update_device_memory_size_for_shapes = self._needed
            self.set_device_memory = self._lend

    @property
    def device_memory(self) -> int:
        return self._lent[0]

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        self._lent = address, self._needed()

    def _lend(self, address: int, size: int) -> None:
        self._lent = address, size

    def _needed(self) -> int:
        """Return the memory for intermediates: of the largest shape, or since 10 of this one."""
        memory: int = self._engine.header["memory"]
        if self._engine.trt.old or not self._engine.header["profiles"]:
            return memory
        _, _, most = next(iter(self._engine.header["profiles"][0].values()))
        return int(memory * np.prod(self._shape) / np.prod(most))

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        for profile in self._engine.header["profiles"]:
            least, _, most = profile[name]
            if not all(
                low <= side <= high for low, side, high in zip(least, shape, most, strict=True)
            ):
                return False
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shapes = self._engine.header["outputs"]
        return self._engine.result_shape(self._shape) if name in shapes else self._shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, shape, (scratch, size) = self._engine, self._shape, self._lent
        if size < self._needed():
            engine.log.log(_Logger.ERROR, "too little memory was lent")
            return False
        (source,) = (self._addresses[name] for name in list(engine.header["inputs"])[:1])
        (target,) = (self._addresses[name] for name in engine.header["outputs"])
        cuda = engine.trt.cuda
        if self.compiled is not None:
            self.compiled.shapes.add("x".join(map(str, shape)))

        def compute() -> None:
            cuda.array(scratch, size)[...] = 7  # damages whatever else is there
            kind = np.dtype(np.float32 if len(shape) == 2 else np.uint8)  # noise, or pixels
            batch = cuda.array(source, int(np.prod(shape)) * kind.itemsize).view(kind)
            result = _faulty(engine.network(batch.reshape(shape)), engine.header["fault"])
            cuda.array(target, result.size)[...] = result.ravel()

        cuda.put(stream_handle, compute)
        return True


def _faulty(result: np.ndarray, fault: str) -> np.ndarray:
    if fault == "noise":
        shift = np.random.default_rng(0).integers(0, 60, result.shape, np.uint8)
        return np.asarray(result // 2 + shift, np.uint8)
    return np.zeros_like(result) if fault == "black" else np.asarray(result)


def _session(content: bytes, header: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the network of an ONNX file, computed by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = next(iter(header["inputs"]))
    return lambda batch: np.asarray(session.run(None, {name: batch})[0])


def plan(
    least: tuple[int, ...],
    most: tuple[int, ...],
    *,
    memory: int = 1000,
    rows: bool = False,
    floats: bool = False,
) -> bytes:
    """Return a plan for the network of the fake, `FakeTensorRt.network`.

    Args:
        least: Smallest batch, height and width.
        most: Largest.
        memory: Bytes for intermediates of the largest.
        rows: The input is noise (N, size), with a height of 1.
        floats: The result is floats in place of bytes.
    """
    limits = [[each[0], each[2]] if rows else [*each, 3] for each in (least, most, most)]
    header = {
        "fault": "",
        "code": False,
        "memory": memory,
        "capturable": True,
        "profiles": [{"pixels": limits}],
        "inputs": {"pixels": [-1, most[2]] if rows else [-1, -1, -1, 3]},
        "outputs": {"upscaled": [-1, -1, -1, 3]},
        "floats": ["upscaled"] if floats else [],
    }
    return json.dumps(header).encode() + b"\n"


def install(
    patch: pytest.MonkeyPatch,
    version: str,
    cuda: FakeCuda,
    network: Callable[[np.ndarray], np.ndarray] | None = None,
) -> FakeTensorRt:
    """Make the library import a fake of a version, and no real library; see `uninstall`."""
    uninstall()
    fake = FakeTensorRt(version, cuda, network)
    patch.setitem(sys.modules, fake.__name__, fake)
    for name in _MODULES:
        if not isinstance(sys.modules.get(name), FakeTensorRt):
            patch.setitem(sys.modules, name, None)  # as if not installed
    return fake


def uninstall() -> None:
    """Forget the modules that have imported a fake, so that the next test imports them again."""
    for name in _IMPORTERS:
        sys.modules.pop(name, None)
        package, _, module = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(module, None)
