"""The runner of PyTorch: what a script around the checkpoint does, with the exporter's network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sr_bench.timers import cuda_clock, wall_clock
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import BackendError, CheckpointError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sr_bench.configurations import WorkerSpec
    from sr_bench.records import Configuration
    from sr_bench.timers import Clock, Frames

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ROUNDING = 0.06
"""Relative to white: more than bfloat16 loses in a network."""
_PREPARED_BATCHES = 8
"""Batches converted to tensors for the network alone; its layers evict them from the caches."""


class TorchRunner:
    """A checkpoint in PyTorch; see `timers.Runner`."""

    resolved: Configuration | None = None

    def __init__(self, spec: WorkerSpec) -> None:
        if spec.device != "cpu" and not torch.cuda.is_available():
            raise BackendError(f"PyTorch {torch.__version__} has no device {spec.device!r}")
        torch.set_num_threads(spec.threads)
        plain = spec.configuration.backend == "contiguous"
        self._device = torch.device(spec.device)
        self._layout = torch.contiguous_format if plain else torch.channels_last
        self._type = _TYPES[spec.configuration.precision]
        module = _load(spec).to(self._device, self._type)
        module = module.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._plain = module
        self._module: Callable[[torch.Tensor], torch.Tensor] = module
        if spec.configuration.backend == "compiled":
            self._compile(freezing=True)

    def upscale(self, frames: Frames) -> NDArray[Any]:
        """Upscale a batch, with all copies."""
        with torch.inference_mode():
            return self._to_frames(self._module(self._to_tensor(frames)))

    def network(self, batches: Frames) -> Callable[[int], object]:
        """Return a call of the network alone."""
        tensors = [self._to_tensor(batch) for batch in batches[:_PREPARED_BATCHES]]

        @torch.inference_mode()
        def call(index: int) -> object:
            return self._module(tensors[index % len(tensors)])

        return call

    def stream(self, frames: Iterator[Frames]) -> Iterator[NDArray[Any]] | None:
        """Return None: a script runs one frame after the other."""
        return None

    def stages(self, frames: Frames) -> dict[str, float]:
        """Upscale a batch; return the milliseconds of each stage."""
        with torch.inference_mode():
            marks = [self._now()]
            tensor = self._to_tensor(frames)
            marks.append(self._now())
            output = self._module(tensor)
            marks.append(self._now())
            self._to_frames(output)
            marks.append(self._now())
        names = ("frame to tensor", "network", "tensor to frame")
        return {
            name: 1e3 * (end - start)
            for name, start, end in zip(names, marks, marks[1:], strict=False)
        }

    def settle(self, frames: Frames) -> NDArray[Any]:
        """Compile without freezing if freezing changes the output.

        PyTorch 2.13 computes a different function for an RRDB with frozen weights; a fast wrong
        answer is no baseline.
        """
        if self._module is not self._plain:
            with torch.inference_mode():
                tensor = self._to_tensor(frames)
                difference = self._plain(tensor).float() - self._module(tensor).float()
            if float(difference.abs().max()) > _ROUNDING:
                self._compile(freezing=False)
        return self.upscale(frames)

    def clock(self) -> Clock:
        """Return the clock of the device: CUDA events on a GPU."""
        return cuda_clock() if self._device.type == "cuda" else wall_clock

    def device_memory(self) -> int | None:
        """Return the peak GPU memory in bytes."""
        on_gpu = self._device.type == "cuda"
        return torch.cuda.max_memory_reserved(self._device) if on_gpu else None

    def close(self) -> None:
        """Do nothing: the process ends."""

    def _compile(self, *, freezing: bool) -> None:
        """Compile the module; freezing turns its weights into constants in the kernels' layout."""
        import torch._inductor.config as inductor

        torch.compiler.reset()
        inductor.freezing = freezing
        self._module = torch.compile(self._plain, dynamic=False)

    def _to_tensor(self, frames: Frames) -> torch.Tensor:
        tensor = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2)
        return tensor.to(self._type).div(255).contiguous(memory_format=self._layout)

    def _to_frames(self, output: torch.Tensor) -> NDArray[Any]:
        levels = output.float().clamp(0, 1).mul(255).round().byte()
        found: NDArray[Any] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return found

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _load(spec: WorkerSpec) -> torch.nn.Module:
    from sr_export.checkpoint import load, state_dict
    from sr_export.graph import to_onnx
    from sr_export.models.network import with_ranges
    from sr_export.models.recognize import recognize

    model = Bundle.open(spec.bundle).manifest.model
    if spec.checkpoint is None:
        raise InvalidInputError("PyTorch needs a checkpoint")
    content = load.read(Path(spec.checkpoint))
    if not isinstance(content, load.Weights):
        raise CheckpointError(f"{spec.checkpoint}: PyTorch's rows need a checkpoint of weights")
    found = recognize(state_dict.strippings(content.tensors), model.architecture)
    module = to_onnx.Padded(found, model.multiple_of)
    return with_ranges(module, found.ranges).eval()
