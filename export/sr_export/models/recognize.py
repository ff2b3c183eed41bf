"""Recognize the network that has given weights: by tensor names, else as a plain network.

Where both fail, the error names the nearest architecture and what to do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.models.custom import parse_arguments
from sr_export.models.generators import DCGAN
from sr_export.models.layer_chain import MismatchError
from sr_export.models.named_arch import NamedArch
from sr_export.models.network import Network, from_descriptor
from sr_export.models.plain_recognition import PlainArch, find
from sr_export.models.ranges import Ranges
from sr_export.models.registry import registry
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from sr_export.models.restoration import Expected

_SHOWN_TENSORS = 4
# Share of an architecture's characteristic names that makes it a near miss.
_NEAR = 0.5


class _MisfitError(CheckpointError):
    """A few names fit an architecture, but then its weights do not."""


def recognize(
    candidates: Iterable[dict[str, Tensor]],
    architecture: str | None = None,
    ranges: Ranges | None = None,
    expected: Expected | None = None,
) -> Network:
    """Build the network that has these weights.

    Args:
        candidates: the weights with different prefixes removed, likeliest first.
        architecture: name and settings given by the user, such as "FSRCNN scale=3".
        ranges: pixel values given by the user.
        expected: an image and the result of the user's own program.

    Raises:
        CheckpointError: unknown architecture, or one that cannot be exported.
        InvalidInputError: the name is unknown, or does not accept these settings.
    """
    name, arguments = _parse(architecture) if architecture else (None, {})
    stripped = list(candidates)
    plain = {
        str(each.architecture.id): each.architecture
        for each in registry()
        if isinstance(each.architecture, PlainArch)
    }
    misfit = None
    if name not in plain:
        found, misfit = _by_names(stripped, name, arguments)
        if found:
            return found
        if name:
            raise misfit or CheckpointError(_unknown_text(stripped, name))
    try:
        match = find(stripped[-1], name, arguments, ranges, expected)
    except MismatchError as error:
        text = _unknown_text(stripped, name, f"as a plain chain of convolutions, it {error}")
        raise misfit or CheckpointError(text) from error
    family = match.plan.family
    network = from_descriptor(match.descriptor(plain[family]), architecture or family)
    return replace(
        network,
        ranges=match.ranges,
        how=match.how,
        assumed=match.assumed,
        settled=True,
        restores=match.restores,
    )


def _parse(architecture: str) -> tuple[str, dict[str, str]]:
    """Return the name and the settings in "NAME key=value ...".

    Raises:
        InvalidInputError: the name is unknown, or a setting is malformed.
    """
    name, *pairs = architecture.split()
    known = sorted({*(str(each.architecture.id) for each in registry()), DCGAN}, key=str.lower)
    if name not in known:
        raise InvalidInputError(f"unknown architecture {name!r}; known: {', '.join(known)}")
    return name, parse_arguments(name, pairs)


def _by_names(
    candidates: list[dict[str, Tensor]], name: str | None, arguments: Mapping[str, str]
) -> tuple[Network | None, _MisfitError | None]:
    """Return the first network whose characteristic names and weights fit, or the first misfit."""
    misfit: _MisfitError | None = None
    for tensors in candidates:
        for support in registry().architectures("detection"):
            architecture, found = support.architecture, str(support.architecture.id)
            if isinstance(architecture, PlainArch) or name not in (None, found):
                continue
            if not support.detect(tensors):
                continue
            if arguments and not isinstance(architecture, NamedArch):
                raise InvalidInputError(f"{name}: accepts no settings; the weights determine all")
            try:
                if isinstance(architecture, NamedArch):
                    return _from_named(architecture, tensors, arguments), None
                descriptor = architecture.load(dict(tensors))
            except InvalidInputError:
                raise
            except (RuntimeError, LookupError, ValueError, AssertionError, TypeError) as error:
                reason = " ".join(str(error).split())[:300]
                misfit = misfit or _MisfitError(
                    f"the names of the weights look like {found}, but they do not fit: {reason}"
                )
                misfit.__cause__ = misfit.__cause__ or error
                continue
            return replace(from_descriptor(descriptor, found), ranges=Ranges()), None
    return None, misfit


def _from_named(
    architecture: NamedArch, tensors: dict[str, Tensor], arguments: Mapping[str, str]
) -> Network:
    descriptor, how, assumed = architecture.load_with(tensors, arguments)
    settings = [f"{name}={value}" for name, value in arguments.items()]
    network = from_descriptor(descriptor, " ".join([str(architecture.id), *settings]))
    assumptions = (assumed,) if assumed else ()
    return replace(network, ranges=architecture.ranges, how=how, assumed=assumptions)


def _unknown_text(
    candidates: Sequence[dict[str, Tensor]], name: str | None, obstacle: str = ""
) -> str:
    """Return the message for weights of an unknown architecture.

    Args:
        candidates: the weights with different prefixes removed.
        name: the architecture given by the user.
        obstacle: why they are not a plain network.
    """
    tensors = candidates[0]
    problem = f"not a network of the architecture {name}" if name else "unknown architecture"
    weights = [each for key, each in tensors.items() if key.endswith("weight") and each.ndim > 1]
    if weights and weights[-1].ndim == 2:
        problem += "; it looks like a classifier (the last layer is fully connected)"
    shown = [
        f"{key} {'x'.join(map(str, each.shape)) or 'scalar'}"
        for key, each in list(tensors.items())[:_SHOWN_TENSORS]
    ]
    more = ", ..." if len(tensors) > _SHOWN_TENSORS else ""
    reasons = "; ".join(each for each in (obstacle, _nearest(candidates)) if each)
    return (
        f"{problem}. Its {len(tensors)} tensors begin with: {', '.join(shown)}{more}. "
        f"{reasons[:1].upper()}{reasons[1:]}. For your own network, use --arch-file FILE.py:CLASS "
        "(with --latent N if it generates images from N random numbers), or export it as "
        "TorchScript, torch.export or ONNX"
    )


def _nearest(candidates: Sequence[dict[str, Tensor]]) -> str:
    shares = [
        (share, str(support.architecture.id))
        for support in registry()
        for names in candidates
        for share in _shares(support.architecture._detect, names)
    ]
    share, name = max(shares, key=lambda pair: pair[0], default=(0.0, ""))
    if share < _NEAR:
        return "no architecture has similar names"
    return f"by names it is nearest to {name}, of which {share:.0%} are present"


def _shares(condition: object, names: dict[str, Tensor]) -> Iterator[float]:
    """Yield the share of names that are present, for each set that identifies an architecture."""
    if not isinstance(condition, KeyCondition):
        return
    keys = [key for key in condition._keys if isinstance(key, str)]
    inner = [key for key in condition._keys if not isinstance(key, str)]
    if condition._kind == "all" and keys:
        yield sum(key in names for key in keys) / len(keys)
    for each in inner:
        yield from _shares(each, names)
