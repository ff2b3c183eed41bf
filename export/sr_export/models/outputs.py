"""One output of a module with several: a tuple, a list or a dictionary of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sr_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


class OneOutput(nn.Module):
    """A module that returns one of several outputs.

    Args:
        module: The module.
        key: The index or key of the output.
    """

    def __init__(self, module: nn.Module, key: object) -> None:
        super().__init__()
        self.module = module
        self._key = key

    def forward(self, image: Tensor) -> Tensor:
        outputs: Any = self.module(image)
        return outputs[self._key]


def with_one_output(
    module: nn.Module,
    output: object,
    channels: int,
    size: tuple[int, int],
    wanted: str | None,
) -> tuple[nn.Module, str]:
    """Return a module that returns one batch of images, and which output was chosen, for the user.

    Args:
        module: The module.
        output: What it returned for an image of these channels and size.
        channels: Number of channels.
        size: Height and width.
        wanted: Name or number of the output to use; None: the only one that is an image.

    Raises:
        CheckpointError: Several outputs are images, or the one that is wanted does not exist.
        ValueError: No output is an image.
    """
    if isinstance(output, torch.Tensor):
        return module, ""
    if isinstance(output, Mapping):
        values = {str(key): (key, each) for key, each in output.items()}
    elif isinstance(output, (tuple, list)):
        values = {str(i): (i, each) for i, each in enumerate(output)}
    else:
        raise ValueError(f"returns {type(output).__name__}, not a batch of images")
    listed = ", ".join(f"{name}: {_shown(each)}" for name, (_, each) in values.items())
    if wanted is not None:
        if wanted not in values:
            raise CheckpointError(f"the network has no output {wanted!r}; it has {listed}")
        return OneOutput(module, values[wanted][0]), f"output {wanted}"
    found = [name for name, (_, each) in values.items() if _is_image(each, channels, size)]
    if not found:
        raise ValueError(f"returns no image, but {listed}")
    if len(found) > 1:
        raise CheckpointError(
            f"{len(found)} outputs of the network are images ({', '.join(found)}); choose one with "
            f"--network-output NAME; they are {listed}"
        )
    return OneOutput(module, values[found[0]][0]), f"output {found[0]} of {', '.join(values)}"


def _is_image(value: object, channels: int, size: tuple[int, int]) -> bool:
    if not isinstance(value, torch.Tensor) or value.ndim != 4 or value.shape[1] != channels:
        return False
    (scale, rest), (other, more) = (
        divmod(new, old) for new, old in zip(value.shape[2:], size, strict=True)
    )
    return scale == other >= 1 and rest == more == 0


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return "x".join(map(str, value.shape)) or "a number"
    return type(value).__name__
