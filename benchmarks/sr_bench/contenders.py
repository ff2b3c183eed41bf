"""Ways to run a network on frames: uint8 in, uint8 out, with all that is needed in between."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sr_bench.records import Contender
from sr_deploy import backends, selection
from sr_deploy.bundle import Bundle
from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_deploy.manifest import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    Upscale = Callable[[NDArray[Any]], NDArray[Any]]

# With these, glibc keeps freed memory for the next layer. Stock PyTorch gives it back and has it
# mapped again, page by page, which costs a CPU more than half of the time of some networks.
KEEP_PAGES = (
    "glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592:"
    "glibc.malloc.top_pad=268435456"
)
# As people run it, which is the baseline, and the forms that are hard to beat.
TORCH = (
    Contender("torch", "contiguous", "fp32"),
    Contender("torch", "channels_last", "fp32"),
    Contender("torch", "channels_last", "bf16"),
)


def engines(
    bundle: Bundle, names: Sequence[str] | None, precisions: Sequence[str] | None
) -> list[Contender]:
    """Return what sr-deploy can run of a bundle on this machine, of what is asked for.

    Args:
        bundle: the bundle.
        names: of backends; None: all that are installed.
        precisions: None: all.

    Raises:
        InvalidInputError: nothing of it can be run.
        BackendMissingError: a named backend, or for None every one, is not installed.
    """
    frames = selection.pixel_format(bundle.manifest.model.channels, itemsize=1)
    found: list[Contender] = []
    refusal: InvalidInputError | None = None
    for name in names or [each.name for each in backends.candidates("auto")]:
        computed = backends.create(name).precisions(None)
        for precision in precisions or get_args(Precision):
            try:
                choice = selection.choose(bundle, frames, precision, computed)
            except InvalidInputError as error:
                refusal = error
            else:
                found.append(Contender("sr-deploy", name, choice.precision))
    if refusal and not found:
        raise refusal
    return found


@dataclass(frozen=True)
class Job:
    """A contender, and what it needs to run."""

    contender: Contender
    bundle: str
    checkpoint: str | None
    """Of the network in the bundle; needed by torch."""
    threads: int

    def environment(self) -> dict[str, str]:
        """Return the variables that its process needs beside the usual ones."""
        strong = self.contender.backend == "channels_last"
        return {"GLIBC_TUNABLES": KEEP_PAGES} if strong else {}


@contextlib.contextmanager
def opened(job: Job) -> Iterator[Upscale]:
    """Lend the function that upscales a frame (H,W,C uint8), as the contender does it."""
    if job.contender.runtime == "torch":
        yield _torch(job)
        return
    from sr_deploy.engine import Engine

    chosen = job.contender
    with Engine(
        job.bundle, backend=chosen.backend, precision=chosen.precision, threads=job.threads
    ) as engine:
        yield engine.upscale


def _torch(job: Job) -> Upscale:
    """Return what a script around the checkpoint does, the network being the exporter's."""
    import torch

    torch.set_num_threads(job.threads)
    module = _module(job)
    dtype = torch.bfloat16 if job.contender.precision == "bf16" else torch.float32
    layout = (
        torch.channels_last if job.contender.backend == "channels_last" else torch.contiguous_format
    )
    module = module.to(dtype).to(memory_format=layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def upscale(frame: NDArray[Any]) -> NDArray[Any]:
        image = torch.from_numpy(frame).permute(2, 0, 1)[None].to(dtype).div(255)
        output = module(image.contiguous(memory_format=layout))[0].float()
        levels = output.clamp(0, 1).mul(255).round().byte()
        return levels.permute(1, 2, 0).contiguous().numpy()

    return upscale


def _module(job: Job) -> torch.nn.Module:
    from sr_export import checkpoint, layout, network, to_onnx
    from sr_export.ranged import ranged

    model = Bundle.open(job.bundle).manifest.model
    if job.checkpoint is None:
        raise InvalidInputError("PyTorch needs a checkpoint")
    content = checkpoint.read(Path(job.checkpoint))
    if not isinstance(content, checkpoint.Weights):
        raise CheckpointError(f"{job.checkpoint}: PyTorch's rows need a checkpoint of weights")
    found = network.recognise(layout.strippings(content.tensors), model.architecture)
    module = to_onnx.Padded(found, model.multiple_of)
    return ranged(module, found.ranges).eval()
