"""Unpickle files of torch.save without running anything that they name.

torch's restricted unpickler builds tensors and plain containers. Checkpoints also contain a few
harmless objects beside the weights (NumPy scalars, paths, option objects). Inert placeholder
classes replace these and discard their arguments, so that none of their own code runs either.

`torch.serialization.get_unsafe_globals_in_checkpoint` does not replace `_inspect`: it refuses
files from before PyTorch 1.6, and it knows only the opcodes of torch.save's own pickle protocol,
so that errors about other files could not name the code.
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

# Known to the restricted unpickler itself: tensors and the functions that rebuild them.
_TENSORS = re.compile(
    r"torch\.(\w*Storage|Tensor|Size|device|b?float\w*|u?int\d+|bool|complex\d+|half|double|long)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+|torch\.storage\.\w+Storage"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(bytearray|set|complex)"
)

# Found beside weights, useless to an exporter: replaced by an empty object.
_IGNORED = re.compile(
    r"numpy\..+|argparse\.Namespace|types\.SimpleNamespace|pathlib\..+|datetime\..+|uuid\.UUID"
    r"|typing\.\w+|omegaconf\..+|torch\.optim\..+"
    r"|builtins\.(int|float|bool|str|list|dict|tuple|frozenset|slice|range|object)"
    r"|(pytorch_lightning|lightning)\..*callbacks\..+"
)
# Other mapping and list types: read as plain ones, since weights may be inside.
_MAPPINGS = re.compile(
    r"collections\.defaultdict|easydict\.EasyDict|addict\.addict\.Dict|yacs\.config\.CfgNode"
    r"|(pytorch_lightning|lightning)\..*\.AttributeDict|(mmcv|mmengine)\..*\.ConfigDict"
)
_LISTS = re.compile(r"collections\.deque")

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Placeholder:
    """Accepts any arguments and any state, and keeps none."""

    def __new__(cls, *_: object) -> _Placeholder:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _PlainMapping:
    def __new__(cls, *_: object) -> Any:
        return collections.OrderedDict()


class _PlainList:
    def __new__(cls, *_: object) -> Any:
        return []


def load(path: Path, *, legacy: bool) -> object:
    """Return the tensors and plain containers in a file of torch.save.

    Tensors may be mapped from the file: clone those that you keep.

    Args:
        path: the file.
        legacy: whether it has the format of PyTorch before 1.6, which is not a zip archive.

    Raises:
        CheckpointError: the file is damaged, or names code; the message lists the names.
    """
    try:
        names, mappable = _inspect(path, legacy=legacy)
    except Exception as error:
        raise CheckpointError(f"{path}: {_DAMAGED} ({_brief(error)})") from error
    placeholders = {name: _placeholder(name) for name in names}
    unsafe = sorted(
        name for name, each in placeholders.items() if not each and not _TENSORS.fullmatch(name)
    )
    if unsafe:
        raise CheckpointError(f"{path}: {_code_text(path, unsafe)}")
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        each for each in placeholders.values() if each
    ]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        # Old storages, another pickle protocol: they concern the author of the file.
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"{path}: {_odd_pickle_text(error)}") from error
        except Exception as error:
            raise CheckpointError(f"{path}: {_DAMAGED} ({_brief(error)})") from error


_DAMAGED = "the checkpoint is damaged; copy or download it again"


def _placeholder(name: str) -> type | None:
    """Return an inert class that the unpickler accepts as the one called `name`, or None."""
    for pattern, base in (
        (_IGNORED, _Placeholder),
        (_MAPPINGS, _PlainMapping),
        (_LISTS, _PlainList),
    ):
        if pattern.fullmatch(name):
            module, _, attribute = name.rpartition(".")
            return type(attribute, (base,), {"__module__": module})
    return None


def _inspect(path: Path, *, legacy: bool) -> tuple[set[str], bool]:
    """Return the classes and functions that a file imports, and whether it can be memory-mapped."""
    if not legacy:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            entry = next(each for each in entries if each.filename.partition("/")[2] == "data.pkl")
            if not entry.CRC:  # saved without checksums, see `file_kind`
                entry.CRC = None  # type: ignore[assignment]  # zipfile then compares none
            uncompressed = all(each.compress_type == zipfile.ZIP_STORED for each in entries)
            return set(_globals_in(io.BytesIO(archive.read(entry)))), uncompressed
    # A memory map ends with the file, whatever lengths a damaged file claims.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # Five pickles in a row: magic number, protocol, system, the object, storage keys.
        names = {name for _ in range(5) for name in _globals_in(cast("IO[bytes]", data))}
    return names, False


def _globals_in(data: IO[bytes]) -> Iterator[str]:
    """Yield the imports of one pickle by reading its opcodes; no object is built."""
    memo: dict[int, str] = {}
    strings = ["", ""]
    memoized = 0
    text: str | None = None
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            yield _full_name(*str(argument).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL":
            yield _full_name(*strings[-2:])
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            slot = memoized if opcode.name == "MEMOIZE" else int(str(argument))
            memoized += 1
            if text is not None:
                memo[slot] = text
            continue
        found = memo.get(int(str(argument))) if opcode.name.endswith("GET") else argument
        text = found if isinstance(found, str) and opcode.name != "GLOBAL" else None
        if text is not None:
            strings.append(text)


def _full_name(module: str, name: str) -> str:
    return f"{_PYTHON_2.get(module, module)}.{name}"


def _code_text(path: Path, unsafe: list[str]) -> str:
    more = f" and {len(unsafe) - 6} more" if len(unsafe) > 6 else ""
    old = any(name.startswith("torch.nn.backends.") for name in unsafe)
    return (
        f"opening it runs Python code ({', '.join(unsafe[:6])}{more}), which sr-export never does;"
        " if you trust it, save its weights alone: run this in Python, in the folder of the "
        f"program that it was trained with: {_recipe(path.name, old=old)}"
    )


def _recipe(name: str, *, old: bool) -> str:
    """Return Python code that saves the weights of a pickled module, or of those in a dict.

    Args:
        name: The file.
        old: Whether it needs `torch.nn.backends`, which PyTorch 1.3 removed.
    """
    backends = (
        'import sys; from unittest.mock import MagicMock as M; sys.modules["torch.nn.backends"] = '
        'M(); sys.modules["torch.nn.backends.thnn"] = M(); '
    )
    return (
        f"{backends if old else ''}import torch; m = torch.load({name!r}, map_location='cpu', "
        "weights_only=False); w = lambda v: v.state_dict() if hasattr(v, 'state_dict') else v; "
        "torch.save(w(m) if hasattr(m, 'state_dict') else {k: w(v) for k, v in m.items() if "
        "hasattr(v, 'state_dict') or isinstance(v, (dict, torch.Tensor))}, 'weights.pth')"
    )


def _odd_pickle_text(error: Exception) -> str:
    if "operand" in str(error):
        return (
            "written with a pickle protocol that torch.save does not use; "
            "save it again without pickle_protocol="
        )
    return f"contains more than tensors and plain containers ({_brief(error)})"


def _brief(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    found = re.search(r"WeightsUnpickler error: (.+)", str(error))
    return (found.group(1) if found else lines[0])[:120]
