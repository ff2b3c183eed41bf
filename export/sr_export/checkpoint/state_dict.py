"""Find the generator's state dict in a training checkpoint.

Every collection of weights in the file becomes a `Group` with its path. The names on the path give
its role: discriminators and optimizers are left out, a generator has priority over unnamed weights,
and averaged (EMA) weights have priority over the raw weights.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from sr_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
Path = tuple[str, ...]
Role = Literal["generator", "training", "unknown"]

# Names are split into lower-case words: netG_ema becomes net, g, ema.
_GENERATOR = frozenset({"generator", "gen", "netg", "gnet", "student"})
_AVERAGED = frozenset({"ema", "swa", "averaged", "shadow"})
_TRAINING = frozenset(
    {"discriminator", "discriminators", "disc", "critic", "netd", "dnet", "teacher"}
    | {"optimizer", "optimizers", "optimiser", "optimisers", "optim", "scheduler", "schedulers"}
    | {"loss", "losses", "criterion", "perceptual", "vgg", "lpips", "metric", "metrics", "scaler"}
)
# A lone g or d is a role only by itself or beside these: netG, G_state_dict, but not conv_g or g1.
_BESIDE_A_LETTER = frozenset(
    {"net", "network", "model", "gan", "state", "states", "dict", "params", "weights"} | _AVERAGED
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Prefixes that wrappers put into keys: torch.compile, FSDP, activation checkpointing.
_WRAPPER = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Counters that averaging wrappers save beside the weights.
_COUNTERS = frozenset({"n_averaged", "initted", "step", "decay", "num_updates"})

_MAX_DEPTH = 8


@dataclass(frozen=True)
class Group:
    """The weights of one network at `path`; an empty path is the file itself."""

    path: Path
    tensors: Tensors
    averaged: bool

    @property
    def name(self) -> str:
        """The path in the syntax of --key."""
        return ".".join(self.path)

    @property
    def role(self) -> Role:
        """The role given by the names on the path; "training" has priority."""
        found = [role_of(name) for name in self.path]
        weighty: tuple[Role, ...] = ("training", "generator")
        return next((role for role in weighty if role in found), "unknown")


def role_of(name: str) -> Role:
    """Return the role that one name gives; "training" is anything inference does not need."""
    words = _words(name)
    letters = words & {"g", "d"}
    others = words - letters
    if others and not others & _BESIDE_A_LETTER:
        letters = set()
    if words & _TRAINING or "d" in letters:
        return "training"
    return "generator" if words & _GENERATOR or "g" in letters else "unknown"


def is_averaged(name: str) -> bool:
    """Return whether a name denotes a moving average of weights."""
    return bool(_words(name) & _AVERAGED)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


def select(content: object, *, ema: bool = True, key: str | None = None) -> tuple[str, Tensors]:
    """Return the location of the generator in `content`, and its state dict.

    Args:
        content: tensors in nested mappings and sequences.
        ema: prefer the averaged copy of the weights if there is one.
        key: path of the weights, such as "netG.params"; the search starts there.

    Returns:
        A text such as "params_ema (of params, params_ema, epoch)", and the tensors, not copied,
        without the prefixes of outer wrappers.

    Raises:
        CheckpointError: there is no generator, or more than one; the message lists the names.
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
    """Yield `tensors` unchanged, then without each prefix that all names share.

    A common prefix may come from a wrapper or from the network itself (old ESRGAN files:
    `model.0.weight`). The caller takes the first variant that an architecture recognizes.
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
            "%s is ignored: its names and shapes differ from those of %s",
            averages[0].name,
            group.name or "the weights",
        )
    return _only(twins) if twins else group


def _larger(groups: list[Group]) -> list[Group]:
    """Drop smaller groups nested in larger ones, or around them: a blur kernel, statistics."""
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
    """Return the only group, or the first of several with equal weights."""
    first, *others = groups
    if all(_equal(first.tensors, other.tensors) for other in others):
        return first
    names = [f"{group.name} ({len(group.tensors)} tensors)" for group in groups]
    raise CheckpointError(
        f"contains {len(groups)} networks: {_listed(names)}; select one, such as --key {first.name}"
    )


def _twin(average: Group, raw: Group) -> Group | None:
    """Return `average` under the names of `raw`, or None if it is the average of other weights.

    Some trainers average parameters only; the buffers then come from `raw`. Some remove the dots
    from names, so names are compared without dots.
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
    """Yield every collection of weights in `content`, except optimizer states."""
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
    """Yield the networks of one flat state dict, separated by the first name of their keys."""
    whole = _group(path, tensors)
    *_, short = strippings(whole.tensors)
    parts: dict[str, Tensors] = {}
    for key, short_key in zip(whole.tensors, short, strict=True):
        name = short_key.partition(".")[2]
        parts.setdefault(key[: len(key) - len(name)], {})[name] = whole.tensors[key]
    named = {head: part for head, part in parts.items() if _tells(head) and "" not in part}
    if {head.lower() for head in named} in ({"g."}, {"d."}):
        named = {}  # a single letter may be any layer; both together are a GAN
    groups = [_group((*path, *head.split(".")[:-1]), part) for head, part in named.items()]
    rest = {
        key: tensor for key, tensor in whole.tensors.items() if not key.startswith(tuple(named))
    }
    # A layer may be called ema, too (attention). An average has the names of the raw weights.
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
    """Return whether the last name of `head`, such as "model.ema.", gives a role."""
    name = head[:-1].rpartition(".")[2]
    return role_of(name) != "unknown" or is_averaged(name)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Remove the additions of wrappers: their names anywhere, a leading `module.`, counters."""
    tensors = {
        _WRAPPER.sub("", key): tensor
        for key, tensor in tensors.items()
        if not (key in _COUNTERS and tensor.numel() == 1)
    }
    while _common_prefix(tensors) == "module.":
        tensors = {key[len("module.") :]: tensor for key, tensor in tensors.items()}
    return tensors


def _common_prefix(tensors: Tensors) -> str:
    """Return the first name with its dot if all keys share it, else an empty string."""
    heads = {key.partition(".")[0] if "." in key else "" for key in tensors}
    head = heads.pop() if len(heads) == 1 else ""
    return f"{head}." if head else ""


def _is_network(tensors: Tensors) -> bool:
    """Return whether there is a matrix or a kernel, which loss lists and RNG states lack."""
    return any(tensor.is_floating_point() and tensor.ndim >= 2 for tensor in tensors.values())


def _equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def _follow(content: object, key: str) -> object:
    """Return the content at the path `key`, through containers and then dotted names."""
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
        raise CheckpointError(f"no weights at --key {key}")
    return content


def _items(content: object) -> dict[str, Any]:
    """Return the items of a mapping or sequence by name, empty for any other type."""
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
        return f"contains no generator, only training state ({names}); --key can select one anyway"
    found = _listed(_top_names(content))
    return f"contains no weights of a network; found {found or type(content).__name__}"
