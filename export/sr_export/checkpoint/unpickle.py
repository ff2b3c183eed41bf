"""Opening what torch.save wrote without running anything that the file names.

torch's restricted unpickler builds tensors and plain containers. Checkpoints also hold a few
harmless things beside the weights (NumPy scalars, paths, option objects); these are replaced
by stand-ins that drop what they are given, so that none of their own code runs either.
"""

from __future__ import annotations

import collections
import io
import mmap
import pickle
import pickletools
import re
import warnings
import zipfile
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from sr_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What the restricted unpickler itself knows: tensors and how they are put together.
_TENSORS = re.compile(
    r"torch\.(\w*Storage|Tensor|Size|device|b?float\w*|u?int\d+|bool|complex\d+|half|double|long)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+|torch\.storage\.\w+Storage"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(bytearray|set|complex)"
)

# Found beside weights, of no use to an exporter: read as nothing.
_IGNORED = re.compile(
    r"numpy\..+|argparse\.Namespace|types\.SimpleNamespace|pathlib\..+|datetime\..+|uuid\.UUID"
    r"|typing\.\w+|omegaconf\..+|torch\.optim\..+"
    r"|builtins\.(int|float|bool|str|list|dict|tuple|frozenset|slice|range|object)"
    r"|(pytorch_lightning|lightning)\..*callbacks\..+"
)
# Mappings and lists of other makes: read as plain ones, since weights may be inside.
_MAPPINGS = re.compile(
    r"collections\.defaultdict|easydict\.EasyDict|addict\.addict\.Dict|yacs\.config\.CfgNode"
    r"|(pytorch_lightning|lightning)\..*\.AttributeDict|(mmcv|mmengine)\..*\.ConfigDict"
)
_LISTS = re.compile(r"collections\.deque")

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Nothing:
    """Takes any arguments and any state, and keeps none."""

    def __new__(cls, *_: object) -> _Nothing:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _Mapping:
    def __new__(cls, *_: object) -> Any:
        return collections.OrderedDict()


class _List:
    def __new__(cls, *_: object) -> Any:
        return []


def load(path: Path, *, legacy: bool) -> object:
    """Return the tensors and plain containers of a file that torch.save wrote.

    Tensors may be mapped from the file: clone what is kept.

    Args:
        path: the file.
        legacy: whether it is of the format before PyTorch 1.6, which is no zip file.

    Raises:
        CheckpointError: the file is damaged, or names code; the text says which.
    """
    try:
        names = _globals_of(path, legacy=legacy)
    except Exception as error:
        raise CheckpointError(f"{path}: {_DAMAGED} ({_brief(error)})") from error
    foreign = sorted(name for name in names if not _TENSORS.fullmatch(name) and not _stand_in(name))
    if foreign:
        raise CheckpointError(f"{path}: {_code_text(path, foreign)}")
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        stand_in for name in names if (stand_in := _stand_in(name))
    ]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        # They speak to those who wrote the file: old storages, another pickle protocol.
        warnings.simplefilter("ignore")
        try:
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=not legacy and _stored(path)
            )
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"{path}: {_odd_pickle_text(error)}") from error
        except Exception as error:
            raise CheckpointError(f"{path}: {_DAMAGED} ({_brief(error)})") from error


_DAMAGED = "the checkpoint is damaged; copy or download it again"


def _stand_in(name: str) -> type | None:
    """Make a class that the unpickler takes for the one called `name`, or return None."""
    for pattern, base in ((_IGNORED, _Nothing), (_MAPPINGS, _Mapping), (_LISTS, _List)):
        if pattern.fullmatch(name):
            module, _, attribute = name.rpartition(".")
            return type(attribute, (base,), {"__module__": module})
    return None


def _stored(path: Path) -> bool:
    """Return whether no entry is compressed, as torch.save writes them and mapping needs."""
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _globals_of(path: Path, *, legacy: bool) -> set[str]:
    """Return the full names of all classes and functions that a file asks for."""
    if not legacy:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            name = next(name for name in names if name.partition("/")[2] == "data.pkl")
            return set(_globals_in(io.BytesIO(archive.read(name))))
    # A map ends where the file does, whatever lengths a damaged file claims.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # One after another: magic number, protocol, system, the object, storage keys.
        return {name for _ in range(5) for name in _globals_in(cast("IO[bytes]", data))}


def _globals_in(data: IO[bytes]) -> Iterator[str]:
    """Yield what one pickle asks for by reading its opcodes; nothing is built."""
    memo: dict[int, str] = {}
    strings = ["", ""]
    memoised = 0
    text: str | None = None
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            yield _full_name(*str(argument).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL":
            yield _full_name(*strings[-2:])
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            slot = memoised if opcode.name == "MEMOIZE" else int(str(argument))
            memoised += 1
            if text is not None:
                memo[slot] = text
            continue
        found = memo.get(int(str(argument))) if opcode.name.endswith("GET") else argument
        text = found if isinstance(found, str) and opcode.name != "GLOBAL" else None
        if text is not None:
            strings.append(text)


def _full_name(module: str, name: str) -> str:
    return f"{_PYTHON_2.get(module, module)}.{name}"


def _code_text(path: Path, foreign: list[str]) -> str:
    more = f" and {len(foreign) - 6} more" if len(foreign) > 6 else ""
    return (
        f"needs Python code to be opened ({', '.join(foreign[:6])}{more}), which is never run here;"
        f' if you trust it, run where it was trained: m = torch.load("{path.name}",'
        ' weights_only=False); torch.save(m.state_dict(), "weights.pth")'
        '  # m["..."] in place of m if it is a dict'
    )


def _odd_pickle_text(error: Exception) -> str:
    if "operand" in str(error):
        return (
            "written with a pickle protocol other than torch.save's own; "
            "save it again without pickle_protocol="
        )
    return f"not made of tensors and plain containers only ({_brief(error)})"


def _brief(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    found = re.search(r"WeightsUnpickler error: (.+)", str(error))
    return (found.group(1) if found else lines[0])[:120]
