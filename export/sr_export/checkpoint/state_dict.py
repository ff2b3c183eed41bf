"""Finding the generator's state dict in what training programs save around it.

Every collection of weights in the file becomes a `Group` with the path that leads to it. Names
on that path tell its role. What belongs to training is left out, a generator goes before what
has no such name, and an average of the weights goes before the weights that it averages.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint.roles import Role, is_averaged, role_of

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
Path = tuple[str, ...]

# Wrappers name themselves inside of keys: torch.compile, FSDP, activation checkpointing.
_WRAPPER = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Counters that averaging wrappers keep beside the weights.
_COUNTERS = frozenset({"n_averaged", "initted", "step", "decay", "num_updates"})

_MAX_DEPTH = 8


@dataclass(frozen=True)
class Group:
    """The weights of one network, found at `path`; an empty path is the file itself."""

    path: Path
    tensors: Tensors
    averaged: bool

    @property
    def name(self) -> str:
        """The path as the user writes it."""
        return ".".join(self.path)

    @property
    def role(self) -> Role:
        """What the names on the path say; one that speaks of training outweighs the others."""
        found = [role_of(name) for name in self.path]
        weighty: tuple[Role, ...] = ("training", "generator")
        return next((role for role in weighty if role in found), "unknown")


def select(content: object, *, ema: bool = True, key: str | None = None) -> tuple[str, Tensors]:
    """Return where the generator is in `content`, in words for the user, and its state dict.

    Args:
        content: tensors in mappings and sequences, nested in any way.
        ema: take the averaged copy of the weights where there is one.
        key: the path to take, such as "netG.params"; nothing is guessed above it.

    Returns:
        Words such as "params_ema (of params, params_ema, epoch)", and the tensors, not copied,
        with the outer wrappers' prefixes taken off the names.

    Raises:
        CheckpointError: there is no generator, or more than one; the text names what there is.
    """
    inner = content if key is None else _follow(content, key)
    groups = list(_groups(inner, (), set()))
    group = _choose(groups, inner, ema=ema)
    name = ".".join(part for part in (key or "", group.name) if part)
    top = _top_names(content)
    if not name:
        return "the whole file", group.tensors
    return (f"{name} (of {_listed(top)})" if len(top) > 1 else name), group.tensors


def strippings(tensors: Tensors) -> Iterator[Tensors]:
    """Yield `tensors` as they are, then without each prefix that all names share.

    A common prefix may be a wrapper's or the network's own (old ESRGAN files: `model.0.weight`),
    so the reader tries the first that an architecture recognises.
    """
    yield tensors
    while prefix := _common_prefix(tensors):
        tensors = {key[len(prefix) :]: tensor for key, tensor in tensors.items()}
        yield tensors


def _choose(groups: list[Group], content: object, *, ema: bool) -> Group:
    networks = [group for group in groups if group.role != "training"]
    if not networks:
        raise CheckpointError(_nothing_text(groups, content))
    generators = [group for group in networks if group.role == "generator"] or networks
    raw = [group for group in generators if not group.averaged]
    group = _only(_larger(raw or generators))
    if group.averaged or not ema:
        return group
    averages = [each for each in networks if each.averaged]
    twins = [twin for each in averages if (twin := _twin(each, group))]
    if averages and not twins:
        logger.warning(
            "%s does not have the names and shapes of %s and is left out",
            averages[0].name,
            group.name or "the weights",
        )
    return _only(twins) if twins else group


def _larger(groups: list[Group]) -> list[Group]:
    """Leave out the smaller where one group is inside of another: a blur kernel, statistics."""
    return [
        group
        for group in groups
        if not any(
            len(other.tensors) > len(group.tensors)
            and all(one == two for one, two in zip(group.path, other.path, strict=False))
            and len(group.path) != len(other.path)
            for other in groups
        )
    ]


def _only(groups: list[Group]) -> Group:
    """Return the one group, or the first of several with the same weights."""
    first, *others = groups
    if all(_equal(first.tensors, other.tensors) for other in others):
        return first
    names = [f"{group.name} ({len(group.tensors)} tensors)" for group in groups]
    raise CheckpointError(
        f"holds more than one network: {_listed(names)}; name one, such as --key {first.name}"
    )


def _twin(average: Group, raw: Group) -> Group | None:
    """Return `average` under the names of `raw`, if it averages it; else None.

    Some trainers average parameters only: the buffers are those of `raw`. Some take the dots out
    of the names, so these are compared without.
    """
    *_, shortest = strippings(raw.tensors)
    own = {short.replace(".", ""): key for short, key in zip(shortest, raw.tensors, strict=True)}
    for tensors in strippings(average.tensors):
        renamed = {own.get(key.replace(".", ""), ""): value for key, value in tensors.items()}
        if len(renamed) == len(tensors) and all(
            key and raw.tensors[key].shape == value.shape for key, value in renamed.items()
        ):
            return Group(average.path, raw.tensors | renamed, averaged=True)
    return None


def _groups(content: object, path: Path, seen: set[int]) -> Iterator[Group]:
    """Yield every collection of weights in `content`; optimizer states are none."""
    if id(content) in seen or len(path) > _MAX_DEPTH:
        return
    seen.add(id(content))
    items = _items(content)
    if "param_groups" in items:
        return
    tensors = {name: value for name, value in items.items() if isinstance(value, torch.Tensor)}
    if isinstance(content, Mapping) and _is_network(tensors):
        yield from _split(path, tensors)
    for name, value in items.items():
        yield from _groups(value, (*path, name), seen)


def _split(path: Path, tensors: Tensors) -> Iterator[Group]:
    """Yield the networks of one flat state dict, told apart by the first name in its keys."""
    whole = _group(path, tensors)
    *_, short = strippings(whole.tensors)
    parts: dict[str, Tensors] = {}
    for key, short_key in zip(whole.tensors, short, strict=True):
        name = short_key.partition(".")[2]
        parts.setdefault(key[: len(key) - len(name)], {})[name] = whole.tensors[key]
    named = {head: part for head, part in parts.items() if _tells(head) and "" not in part}
    if {head.lower() for head in named} in ({"g."}, {"d."}):
        named = {}  # one such letter may be any layer; the two together are a GAN
    groups = [_group((*path, *head.split(".")[:-1]), part) for head, part in named.items()]
    rest = {
        key: tensor for key, tensor in whole.tensors.items() if not key.startswith(tuple(named))
    }
    # A layer may be called ema too (attention): an average has the names of what it averages.
    if not groups or not all(
        each.role != "unknown" or _twin(each, _group((), rest)) for each in groups
    ):
        yield whole
        return
    if prefix := _common_prefix(rest):
        path = (*path, prefix[:-1])
        rest = {key[len(prefix) :]: tensor for key, tensor in rest.items()}
    yield from (each for each in (*groups, _group(path, rest)) if _is_network(each.tensors))


def _group(path: Path, tensors: Tensors) -> Group:
    averaged = "n_averaged" in tensors or any(is_averaged(name) for name in path)
    return Group(path, _unwrapped(tensors), averaged)


def _tells(head: str) -> bool:
    """Return whether the last name of `head`, such as "model.ema.", tells a role."""
    name = head[:-1].rpartition(".")[2]
    return role_of(name) != "unknown" or is_averaged(name)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Take off what wrappers add: their own names anywhere, `module.` in front, counters."""
    tensors = {
        _WRAPPER.sub("", key): tensor
        for key, tensor in tensors.items()
        if not (key in _COUNTERS and tensor.numel() == 1)
    }
    while _common_prefix(tensors) == "module.":
        tensors = {key[len("module.") :]: tensor for key, tensor in tensors.items()}
    return tensors


def _common_prefix(tensors: Tensors) -> str:
    """Return the first name and its dot if all keys begin so, else nothing."""
    heads = {key.partition(".")[0] if "." in key else "" for key in tensors}
    head = heads.pop() if len(heads) == 1 else ""
    return f"{head}." if head else ""


def _is_network(tensors: Tensors) -> bool:
    """Return whether there is a matrix or a kernel; lists of losses and random states have none."""
    return any(tensor.is_floating_point() and tensor.ndim >= 2 for tensor in tensors.values())


def _equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def _follow(content: object, key: str) -> object:
    """Return what is at the path `key`: through containers, then through dotted names."""
    rest = key
    while rest and (items := _items(content)):
        step = next((name for name in items if f"{rest}.".startswith(f"{name}.")), None)
        if step is None:
            names = _unwrapped({k: v for k, v in items.items() if isinstance(v, torch.Tensor)})
            content = {k[len(rest) + 1 :]: v for k, v in names.items() if k.startswith(f"{rest}.")}
            rest = ""
        else:
            content, rest = items[step], rest[len(step) + 1 :]
    if rest or not _items(content):
        raise CheckpointError(f"there are no weights at --key {key}")
    return content


def _items(content: object) -> dict[str, Any]:
    """Return what a mapping or sequence holds by name; nothing for anything else."""
    if isinstance(content, Mapping):
        return {str(name): value for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return {str(index): value for index, value in enumerate(content)}
    return {}


def _top_names(content: object) -> list[str]:
    if not isinstance(content, Mapping):
        return []
    return list(dict.fromkeys(str(key).partition(".")[0] for key in content))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _nothing_text(groups: list[Group], content: object) -> str:
    if groups:
        names = _listed([group.name for group in groups])
        return f"holds no generator, only what trains one ({names}); --key takes one of them anyway"
    found = _listed(_top_names(content))
    return f"holds no weights of a network; found {found or type(content).__name__}"
