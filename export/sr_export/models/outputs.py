"""One output of a module with several: a tuple, a list or a dictionary of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
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


class Bordered(nn.Module):
    """A module that returns less than scale times the image: images get a border before.

    The border repeats the edge, as the programs of such networks do (waifu2x, SRCNN).

    Args:
        module: The module.
        scale: Its scale.
        missing: Pixels by which each side of its output is too short.
    """

    def __init__(self, module: nn.Module, scale: int, missing: int) -> None:
        super().__init__()
        self.module = module
        self._scale = scale
        self._border = -(-missing // (2 * scale))
        self._start = (2 * scale * self._border - missing) // 2

    def forward(self, image: Tensor) -> Tensor:
        height, width = (side * self._scale for side in image.shape[2:])
        output = self.module(F.pad(image, [self._border] * 4, mode="replicate"))
        first = self._start
        return output[:, :, first : first + height, first : first + width]


def with_border(module: nn.Module, channels: int, side: int) -> nn.Module:
    """Return a module with the border that it needs; itself if none helps.

    Args:
        module: A module that returns no whole multiple of an image.
        channels: Number of channels.
        side: A height and width that it accepts.
    """
    sides = (side, side + 32, side + 96)
    lengths = []
    for each in sides:
        with torch.inference_mode():
            lengths.append(module(torch.full((1, channels, each, each), 0.5)).shape[2])
    scale = (lengths[1] - lengths[0]) // 32
    missing = {scale * each - length for each, length in zip(sides, lengths, strict=True)}
    if scale < 1 or len(missing) != 1 or not 0 < min(missing) < scale * side:
        return module
    return Bordered(module, scale, min(missing))


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
