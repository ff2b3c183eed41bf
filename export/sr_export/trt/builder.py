"""TensorRT's builder, from 8.6 to 11, through one code path that looks at what is there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import tensorrt as trt

from sr_deploy.backends.tensorrt.contexts import messages
from sr_deploy.errors import BackendError
from sr_deploy.files import atomic_file
from sr_export.trt import cast_pass, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.bundle.plan_store import Shapes
    from sr_export.trt.build_request import BuildRequest, BuildSettings

_log = logging.getLogger(__name__)

# Later releases leave these libraries out by default: without them a plan needs TensorRT alone.
_FOREIGN_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")
_FOREIGN_CORE = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
# Without it, only one lane can use a plan of 8.6; later releases always have it.
_SHARED_PROFILES = "PROFILE_SHARING_0806"
_ROW_AXES = 2
_REACHES = {"ampere": "AMPERE_PLUS", "capability": "SAME_COMPUTE_CAPABILITY"}


def version() -> str:
    """Return TensorRT's version."""
    return trt.__version__


def abilities() -> tuple[str, ...]:
    """Return the names of the flags that this TensorRT has."""
    return (*dir(trt.NetworkDefinitionCreationFlag), *dir(trt.BuilderFlag))


def build(order: BuildRequest, report: Callable[[str], None]) -> bytes:
    """Build a plan.

    Args:
        order: What to build.
        report: Called with what is being done.

    Raises:
        BackendError: TensorRT does not take the network or a setting; the text says which, in its
            words where it has some.
    """
    log = messages()
    builder = trt.Builder(log)
    flags = [getattr(trt.NetworkDefinitionCreationFlag, each) for each in order.recipe.creation]
    network = builder.create_network(sum(1 << int(each) for each in flags))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(_rewritten(order)):
        found = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise BackendError(f"TensorRT {version()} cannot read {Path(order.onnx).name}: {found}")
    config = builder.create_builder_config()
    _set_precision(builder, config, order)
    _set_tactics(config)
    _set(config, order.settings)
    _set_shapes(builder, config, network, order.shapes)
    timings = _read_timings(config, Path(order.timing_cache))
    monitor = progress.attach(trt, config, report)
    plan = builder.build_serialized_network(network, config)
    del monitor  # TensorRT does not keep it alive
    if plan is None:
        raise log.error(f"TensorRT {version()} built no plan")
    if timings is not None:
        with atomic_file(Path(order.timing_cache)) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _rewritten(order: BuildRequest) -> bytes:
    content = Path(order.onnx).read_bytes()
    if order.recipe.rewriting == "lowered":
        return cast_pass.lowered(content)
    return cast_pass.mixed(content) if order.recipe.rewriting == "mixed" else content


def _set_precision(builder: trt.Builder, config: trt.IBuilderConfig, order: BuildRequest) -> None:
    """Ask for the precision, where the file's types do not.

    Raises:
        BackendError: the GPU would compute INT8 more slowly than the rest of the network.
    """
    if "INT8" in order.recipe.flags and not getattr(builder, "platform_has_fast_int8", True):
        raise BackendError(f"TensorRT {version()} has no fast INT8 on this GPU")
    for name in order.recipe.flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if order.exact:
        config.clear_flag(trt.BuilderFlag.TF32)


def _set_tactics(config: trt.IBuilderConfig) -> None:
    sources = config.get_tactic_sources()
    for name in _FOREIGN_TACTICS:
        if hasattr(trt.TacticSource, name):
            sources &= ~(1 << int(getattr(trt.TacticSource, name)))
    config.set_tactic_sources(sources)
    if hasattr(trt.PreviewFeature, _FOREIGN_CORE):
        config.set_preview_feature(getattr(trt.PreviewFeature, _FOREIGN_CORE), True)


def _set(config: trt.IBuilderConfig, settings: BuildSettings) -> None:
    """Apply what the user set.

    Raises:
        BackendError: this TensorRT has no such thing.
    """
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    if settings.streams is not None:
        config.max_aux_streams = settings.streams
    if settings.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = settings.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.reach != "gpu":
        name = _REACHES[settings.reach]
        if not hasattr(trt.HardwareCompatibilityLevel, name):
            raise BackendError(
                f"TensorRT {version()} cannot build plans for all GPUs of one compute capability; "
                "it can for all from Ampere on"
            )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, name)


def _set_shapes(
    builder: trt.Builder,
    config: trt.IBuilderConfig,
    network: trt.INetworkDefinition,
    shapes: Shapes,
) -> None:
    """Say what the input's free dimensions may be.

    Raises:
        BackendError: the file fixes them otherwise.
    """
    pixels = network.get_input(0)
    fixed = tuple(pixels.shape)
    limits = [_filled(fixed, each) for each in (shapes.least, shapes.best, shapes.most)]
    for limit in limits:
        if any(side not in (-1, wanted) for side, wanted in zip(fixed, limit, strict=True)):
            text = "x".join("any" if side == -1 else str(side) for side in fixed[:3])
            raise BackendError(f"the network takes {text} (batch x height x width), not {shapes}")
    if -1 in fixed:
        profile = builder.create_optimization_profile()
        profile.set_shape(pixels.name, *limits)
        config.add_optimization_profile(profile)
        if hasattr(trt.PreviewFeature, _SHARED_PROFILES):
            config.set_preview_feature(getattr(trt.PreviewFeature, _SHARED_PROFILES), True)


def _filled(fixed: tuple[int, ...], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the shape of NHWC pixels: batch, height, width and what the file says.

    Numbers, (N, size), count as images of one row.
    """
    batch, _, width = shape
    return (batch, width) if len(fixed) == _ROW_AXES else (*shape, *fixed[3:])


def _read_timings(config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache | None:
    """Start from the timings of earlier builds on this GPU with this TensorRT."""
    known = path.read_bytes() if path.is_file() else b""
    for content in dict.fromkeys((known, b"")):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
        _log.warning("%s: TensorRT does not take it; starting anew", path)
    return None
