"""What the weights of a plain network leave open: activations, skips, ranges, strides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sr_deploy.errors import InvalidInputError
from sr_export.models.ranges import UNIT, Ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

Options = dict[str, tuple[Any, ...]]
"""Values that a setting may have, by its name; the usual one first."""

UNIT_RANGES = Ranges()
SIGNED, BYTES = (-1.0, 1.0), (0.0, 255.0)
_LEAKY = re.compile(r"leaky(0?\.\d+)")


@dataclass(frozen=True)
class ArchSettings:
    """One choice of all that is open."""

    scale: int = 1
    activation: str = "relu"
    """Of stages whose weights tell of none: none, relu, tanh, or leaky and its slope: leaky0.2."""
    block_activation: str = "same"
    """Inside residual blocks: the same, or relu."""
    head_activation: bool = True
    """Whether there is one before residual blocks."""
    tail_activation: bool = True
    """Whether there is one behind each stage after residual blocks, but for the last."""
    residual_scale: float = 1.0
    long_skip: bool = False
    """Whether what goes into the residual blocks is added to what comes out."""
    residual: str = "none"
    """What is done with the input at the end: none, add, subtract (the output from it), or add it
    after enlarging it: nearest, bilinear, bicubic."""
    final: str = "none"
    """The last activation: none, tanh, sigmoid."""
    mean: str = "none"
    """Which mean of images is taken off and put back: none, div2k."""
    eps: float = 1e-5
    """Of normalisations."""
    padding: Literal["zeros", "reflect", "replicate"] = "zeros"
    full_size: int = 2
    """Stages that work at the full size, where pixels are repeated to enlarge; with the last."""
    strided: bool = False
    """Whether stages that widen make the image smaller."""
    output_padding: bool = True
    """Whether transposed convolutions are padded by half their kernel and their output by what is
    then missing, or by as little as fits."""
    ranges: Ranges = UNIT_RANGES

    @property
    def sensible(self) -> bool:
        """Whether somebody would train this: the ends fit each other."""
        given, taken = self.ranges.input, self.ranges.output
        plain = given == taken and self.ranges.std == (1.0,)
        if self.final == "sigmoid" and taken != UNIT:
            return False
        if self.final == "tanh" and taken not in (SIGNED, UNIT):
            return False
        if self.residual != "none" and (self.final != "none" or not plain):
            return False
        if self.residual != "none" and (self.residual in ("add", "subtract")) != (self.scale == 1):
            return False
        return self.mean == "none" or (plain and self.final == "none" and given != SIGNED)


def slope(activation: str) -> float | None:
    """Return the slope of a leaky activation, None for any other."""
    match = _LEAKY.fullmatch(activation)
    return float(match[1]) if match else None


def narrowed(options: Options, arguments: Mapping[str, str], what: str) -> Options:
    """Return options with those settled that the user gave.

    Raises:
        InvalidInputError: one is not open, or has no such value.
    """
    settled = dict(options)
    for name, text in arguments.items():
        if name in options and len(options[name]) == 1 and name != "ranges":
            told = shown(options[name][0])
            if told != text:
                raise InvalidInputError(f"{what}: the weights tell {name}={told}, not {text}")
        elif name not in _open(options):
            raise InvalidInputError(
                f"{what} has no argument {name!r} that these weights leave open; "
                f"they leave {described(options)}"
            )
        else:
            settled[name] = (_parsed(name, text, options[name], what),)
    return settled


def described(options: Options) -> str:
    """Return the names of options and their values, for people."""
    texts = [f"{name}={'|'.join(map(shown, values))}" for name, values in _open(options).items()]
    return ", ".join(texts) or "nothing"


def shown(value: object) -> str:
    """Return a value as the user writes it."""
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _open(options: Options) -> Options:
    """Return the options that the weights do not settle and that --arch can."""
    return {
        name: values for name, values in options.items() if name != "ranges" and len(values) > 1
    }


def _parsed(name: str, text: str, values: tuple[Any, ...], what: str) -> Any:
    kind = type(values[0])
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float):
        number = float(text) if re.fullmatch(r"[\d.]+(e-?\d+)?", text) else 0.0
        if number > 0 and kind(number) == number:
            return kind(number)
    if kind is str and (text in values or (name == "activation" and slope(text) is not None)):
        return text
    raise InvalidInputError(f"{what}: {name}={text} is none of {described({name: values})}")
