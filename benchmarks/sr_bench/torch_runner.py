"""PyTorch: what a script around the checkpoint does, the network being the exporter's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sr_bench import clocks
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import BackendError, CheckpointError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sr_bench.jobs import Frames, WorkerSpec
    from sr_bench.records import Configuration

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ROUNDING = 0.06
"""Of white: more than bfloat16 loses on the way through a network."""
_LAID_OUT = 8
"""So many batches are made tensors for the network alone; their layers flush the caches anyway."""


class TorchRunner:
    """A checkpoint in PyTorch; see `jobs.Runner`."""

    ran: Configuration | None = None

    def __init__(self, job: WorkerSpec) -> None:
        if job.device != "cpu" and not torch.cuda.is_available():
            raise BackendError(f"this PyTorch ({torch.__version__}) sees no device {job.device!r}")
        torch.set_num_threads(job.threads)
        plain = job.contender.backend == "contiguous"
        self._device = torch.device(job.device)
        self._layout = torch.contiguous_format if plain else torch.channels_last
        self._type = _TYPES[job.contender.precision]
        module = _module(job).to(self._device, self._type)
        module = module.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._plain = module
        self._module: Callable[[torch.Tensor], torch.Tensor] = module
        if job.contender.backend == "compiled":
            self._compile(freezing=True)

    def upscale(self, frames: Frames) -> NDArray[Any]:
        """Upscale a batch, with all copies."""
        with torch.inference_mode():
            return self._frames(self._module(self._tensor(frames)))

    def network(self, batches: Frames) -> Callable[[int], object]:
        """Return a call of the network alone."""
        laid_out = [self._tensor(batch) for batch in batches[:_LAID_OUT]]

        @torch.inference_mode()
        def call(index: int) -> object:
            return self._module(laid_out[index % len(laid_out)])

        return call

    def through(self, frames: Iterator[Frames]) -> Iterator[NDArray[Any]] | None:
        """Return None: a script runs one frame after the other."""
        return None

    def staged(self, frames: Frames) -> dict[str, float]:
        """Upscale a batch; return the milliseconds of each stage."""
        with torch.inference_mode():
            marks = [self._now()]
            tensor = self._tensor(frames)
            marks.append(self._now())
            output = self._module(tensor)
            marks.append(self._now())
            self._frames(output)
            marks.append(self._now())
        names = ("frame to tensor", "network", "tensor to frame")
        return {
            name: 1e3 * (end - start)
            for name, start, end in zip(names, marks, marks[1:], strict=False)
        }

    def settle(self, frames: Frames) -> NDArray[Any]:
        """Have it compiled without freezing, where with that it computes something else.

        It was compiled at the first call. PyTorch 2.13 makes another network of an RRDB with frozen
        weights; a fast wrong answer is no baseline.
        """
        if self._module is not self._plain:
            with torch.inference_mode():
                tensor = self._tensor(frames)
                difference = self._plain(tensor).float() - self._module(tensor).float()
            if float(difference.abs().max()) > _ROUNDING:
                self._compile(freezing=False)
        return self.upscale(frames)

    def _compile(self, *, freezing: bool) -> None:
        """Compile the module; freezing makes its weights constants, laid out as kernels want."""
        import torch._inductor.config as inductor

        torch.compiler.reset()
        inductor.freezing = freezing
        self._module = torch.compile(self._plain, dynamic=False)

    def clock(self) -> Callable[[Callable[[], object]], float]:
        """Return CUDA's events on a GPU, else the wall clock."""
        return clocks.cuda_events() if self._device.type == "cuda" else clocks.wall

    def device_memory(self) -> int | None:
        """Return the most bytes of the GPU's memory that were held."""
        on_gpu = self._device.type == "cuda"
        return torch.cuda.max_memory_reserved(self._device) if on_gpu else None

    def close(self) -> None:
        """Do nothing: the process ends."""

    def _tensor(self, frames: Frames) -> torch.Tensor:
        tensor = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2)
        return tensor.to(self._type).div(255).contiguous(memory_format=self._layout)

    def _frames(self, output: torch.Tensor) -> NDArray[Any]:
        levels = output.float().clamp(0, 1).mul(255).round().byte()
        found: NDArray[Any] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return found

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _module(job: WorkerSpec) -> torch.nn.Module:
    from sr_export.checkpoint import load, state_dict
    from sr_export.graph import to_onnx
    from sr_export.models import network
    from sr_export.models.ranged_module import ranged

    model = Bundle.open(job.bundle).manifest.model
    if job.checkpoint is None:
        raise InvalidInputError("PyTorch needs a checkpoint")
    content = load.read(Path(job.checkpoint))
    if not isinstance(content, load.Weights):
        raise CheckpointError(f"{job.checkpoint}: PyTorch's rows need a checkpoint of weights")
    found = network.recognise(state_dict.strippings(content.tensors), model.architecture)
    module = to_onnx.Padded(found, model.multiple_of)
    return ranged(module, found.ranges).eval()
