"""The builder of TensorRT 8.6 to 11 and of TensorRT for RTX: one code path for all.

The library's module is handed in, as `trt`. The code checks for names instead of versions.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_deploy.backends.tensorrt.contexts import messages, title
from sr_deploy.errors import BackendError
from sr_deploy.files import atomic_file
from sr_export.trt import cast_pass, fusion_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorrt

    from sr_deploy.bundle.plan_store import Shapes
    from sr_export.trt.build_request import BuildRequest, BuildSettings

_log = logging.getLogger(__name__)

# A plan that uses these libraries needs them where it runs. Later releases exclude them by default.
_FOREIGN_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")
_FOREIGN_CORE = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
# With 8.6, only one lane can use a plan without it; later releases always share profiles.
_SHARED_PROFILES = "PROFILE_SHARING_0806"
_NOISE_AXES = 2
# A plan of TensorRT for RTX allocates memory while it runs, which a CUDA graph cannot hold, unless
# this is set. It then needs all of it at once: networks with attention need several times as much.
_NO_ALLOCATION = "REQUIRE_USER_ALLOCATION"
_MOST_MEMORY = 4 << 30
_COMPATIBILITY = {"ampere": "AMPERE_PLUS", "capability": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True)
class BuiltPlan:
    """A plan.

    Attributes:
        content: Content of its file.
        memory: GPU memory for intermediates in bytes, as the library reported it; 0: it did not.
    """

    content: bytes
    memory: int


def abilities(trt: Any) -> tuple[str, ...]:
    """Return the names of a library's flags."""
    return (*dir(trt.NetworkDefinitionCreationFlag), *dir(trt.BuilderFlag))


def build(trt: Any, request: BuildRequest, report: Callable[[str], None]) -> BuiltPlan:
    """Build a plan.

    Args:
        trt: The library's module.
        request: The plan.
        report: Called with the phase and its progress.

    Raises:
        DriverError: CUDA or the driver does not work.
        BackendError: the library rejects the network or a setting; its messages are in the text.
    """
    log = messages(trt)
    builder = trt.Builder(log.logger)
    flags = [getattr(trt.NetworkDefinitionCreationFlag, each) for each in request.recipe.creation]
    network = builder.create_network(sum(1 << int(each) for each in flags))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(_rewritten(request)):
        found = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise BackendError(f"{title(trt)} cannot read {Path(request.onnx).name}: {found}")
    config = builder.create_builder_config()
    _set_precision(trt, builder, config, request)
    _set_tactics(trt, config)
    _set(trt, config, request.settings)
    _set_shapes(trt, builder, config, network, request.shapes)
    timings = _read_timings(config, request.timing_cache)
    monitor = monitor_progress(trt, config, report)
    flag = getattr(trt.BuilderFlag, _NO_ALLOCATION, None)
    if flag is not None:
        config.set_flag(flag)
    plan = builder.build_serialized_network(network, config)
    if flag is not None and log.activations > _MOST_MEMORY:
        config.clear_flag(flag)
        plan = builder.build_serialized_network(network, config)
    del monitor  # the library keeps no reference to it
    if plan is None:
        raise log.error(f"{title(trt)} failed to build the plan")
    if timings is not None and request.timing_cache is not None:
        with atomic_file(Path(request.timing_cache)) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    return BuiltPlan(bytes(plan), log.activations)


def _rewritten(request: BuildRequest) -> bytes:
    content = fusion_pass.fusible(Path(request.onnx).read_bytes())
    if request.recipe.rewriting == "lowered":
        return cast_pass.lowered(content)
    return cast_pass.mixed(content) if request.recipe.rewriting == "mixed" else content


def _set_precision(
    trt: Any,
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    request: BuildRequest,
) -> None:
    """Set the flags of the recipe.

    Raises:
        BackendError: the GPU computes INT8 more slowly than FP16.
    """
    if "INT8" in request.recipe.flags and not getattr(builder, "platform_has_fast_int8", True):
        raise BackendError(f"{title(trt)} has no fast INT8 on this GPU")
    for name in request.recipe.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if request.exact:
        config.clear_flag(trt.BuilderFlag.TF32)


def _set_tactics(trt: Any, config: tensorrt.IBuilderConfig) -> None:
    sources = config.get_tactic_sources()
    for name in _FOREIGN_TACTICS:
        if hasattr(trt.TacticSource, name):
            sources &= ~(1 << int(getattr(trt.TacticSource, name)))
    config.set_tactic_sources(sources)
    if hasattr(trt.PreviewFeature, _FOREIGN_CORE):
        config.set_preview_feature(getattr(trt.PreviewFeature, _FOREIGN_CORE), True)


def _set(trt: Any, config: tensorrt.IBuilderConfig, settings: BuildSettings) -> None:
    """Apply the user's settings.

    Raises:
        BackendError: this TensorRT lacks a setting.
    """
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.streams is not None:
        config.max_aux_streams = settings.streams
    if settings.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = settings.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.compatibility == "turing":  # not among the targets of other plans
        targets: Any = config  # TensorRT 8 and 10 have none
        targets.num_compute_capabilities = 1
        capabilities = getattr(trt, "ComputeCapability", None)
        if capabilities is None or not targets.set_compute_capability(capabilities.SM75, 0):
            raise BackendError(f"{title(trt)} does not support --compatibility turing")
    elif settings.compatibility in _COMPATIBILITY:
        name = _COMPATIBILITY[settings.compatibility]
        if not hasattr(trt.HardwareCompatibilityLevel, name):
            raise BackendError(
                f"{title(trt)} does not support --compatibility {settings.compatibility}; choose "
                "this-gpu or ampere"
            )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, name)


def _set_shapes(
    trt: Any,
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    network: tensorrt.INetworkDefinition,
    shapes: Shapes,
) -> None:
    """Set the range of the input's dynamic dimensions.

    Raises:
        BackendError: the file has other fixed dimensions.
    """
    pixels = network.get_input(0)
    fixed = tuple(pixels.shape)
    limits = [_input_shape(fixed, each) for each in (shapes.least, shapes.best, shapes.most)]
    for limit in limits:
        if any(side not in (-1, wanted) for side, wanted in zip(fixed, limit, strict=True)):
            text = "x".join("any" if side == -1 else str(side) for side in fixed[:3])
            raise BackendError(f"the network needs {text} (batch x height x width), found {shapes}")
    if -1 in fixed:
        profile = builder.create_optimization_profile()
        profile.set_shape(pixels.name, *limits)
        config.add_optimization_profile(profile)
        if hasattr(trt.PreviewFeature, _SHARED_PROFILES):
            config.set_preview_feature(getattr(trt.PreviewFeature, _SHARED_PROFILES), True)


def _input_shape(fixed: tuple[int, ...], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the input's shape: NHWC for pixels, (N, size) for a generator's noise."""
    batch, _, width = shape
    return (batch, width) if len(fixed) == _NOISE_AXES else (*shape, *fixed[3:])


def _read_timings(
    config: tensorrt.IBuilderConfig, file: str | None
) -> tensorrt.ITimingCache | None:
    """Load the kernel timings of earlier builds; None if TensorRT rejects even an empty cache."""
    if file is None:
        return None
    path = Path(file)
    known = path.read_bytes() if path.is_file() else b""
    for content in dict.fromkeys((known, b"")):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
        _log.warning("%s: TensorRT rejects this timing cache; it will be replaced", path)
    return None


def monitor_progress(trt: Any, config: Any, report: Callable[[str], None]) -> Any:
    """Report the progress of the build; nothing before TensorRT 10, which cannot.

    Returns:
        The monitor, which must live until the build ends.
    """
    base = getattr(trt, "IProgressMonitor", None)
    if base is None:
        return None
    phases = Phases(report)
    # The base class is not known before run time, so the subclass is made here.
    methods = {name: _delegate(getattr(phases, name)) for name in _MONITOR_METHODS}
    monitor = type("Monitor", (base,), methods)()
    config.progress_monitor = monitor
    return monitor


_MONITOR_METHODS = ("phase_start", "step_complete", "phase_finish")


def _delegate(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _self, *arguments: function(*arguments)


class Phases:
    """The nested phases of a build; TensorRT reports them from several threads."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._open: dict[str, tuple[str | None, int, int]] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Add a phase."""
        self._open[phase_name] = (parent_phase, num_steps, 0)
        self._tell()

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Count a step; True continues the build."""
        parent, steps, _ = self._open.get(phase_name, (None, 1, 0))
        self._open[phase_name] = (parent, steps, step + 1)
        self._tell()
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Remove a phase."""
        self._open.pop(phase_name, None)

    def _tell(self) -> None:
        phases = dict(self._open)
        for name, (parent, _, _) in phases.items():
            if parent not in phases:
                self._report(f"{name}, {_share(name, phases):.0%}")
                return


def _share(name: str, phases: dict[str, tuple[str | None, int, int]]) -> float:
    """Return the completed share of a phase, including the phases inside its running step."""
    _, steps, done = phases[name]
    inner = [_share(each, phases) for each, (parent, _, _) in phases.items() if parent == name]
    return min(1.0, (done + max(inner, default=0.0)) / max(1, steps))
