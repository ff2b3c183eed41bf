"""Checkpoints that ask for all memory, or for work without end: small files, made in code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

BIG = 2**33


class Call:
    """An object that is unpickled by calling `name` of `module`."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.code = f"c{module}\n{name}\n".encode()
        self.arguments = arguments


def pickled(value: Any) -> bytes:
    """Pickle numbers, texts, containers and calls with the opcodes of protocol 2."""
    if isinstance(value, Call):
        return value.code + pickled(value.arguments) + b"R"
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(pickled, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(pickled(k) + pickled(v) for k, v in value.items()) + b"u"
    if isinstance(value, int) and not isinstance(value, bool):
        data = pickle.encode_long(value)
        return b"\x8a" + bytes([len(data)]) + data
    return pickle.dumps(value, 2)[2:-1].split(b"q\x00")[0]


class Raw:
    """Opcodes that leave one object on the stack."""

    def __init__(self, code: bytes) -> None:
        self.code = code


class Storage(Raw):
    """A stored array of floats, `elements` as it claims."""

    def __init__(self, elements: int, key: str = "0") -> None:
        kind = Raw(b"ctorch\nFloatStorage\n")
        super().__init__(pickled(("storage", kind, key, "cpu", elements)) + b"Q")


def tensor(elements: int, *shape: int, stride: tuple[int, ...] | None = None) -> Call:
    steps = stride if stride is not None else tuple(1 for _ in shape)
    return Call(
        *("torch._utils", "_rebuild_tensor_v2", Storage(elements), 0, shape, steps, False),
        Call("collections", "OrderedDict"),
    )


def archive(value: Any, records: dict[str, bytes] | None = None, compressed: bool = False) -> bytes:
    """Return a file of torch.save with a pickled value, and stored arrays by key."""
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + pickled(value) + b".")
        file.writestr("a/byteorder", "little")
        for key, data in (records or {"0": bytes(4)}).items():
            file.writestr(f"a/data/{key}", data)
        file.writestr("a/version", "3\n")
    return out.getvalue()


def legacy(value: Any, storages: list[tuple[str, int, bytes]]) -> bytes:
    """Return a file of PyTorch before 1.6; each storage claims a number of elements."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [0x1950A86A20F9469CFC6C, 1001, system]
    out = b"".join(pickle.dumps(each, 2) for each in parts)
    out += b"\x80\x02" + pickled(value) + b"." + pickle.dumps([key for key, *_ in storages], 2)
    return out + b"".join(struct.pack("<q", count) + data for _, count, data in storages)


def legacy_storage(elements: int) -> Raw:
    kind = Raw(b"ctorch\nFloatStorage\n")
    return Raw(pickled(("storage", kind, "0", "cpu", elements, None)) + b"Q")


def legacy_tensor(elements: int) -> Call:
    return Call(
        *("torch._utils", "_rebuild_tensor_v2", legacy_storage(elements), 0, (elements,), (1,)),
        *(False, Call("collections", "OrderedDict")),
    )


def doubling(kind: bytes, times: int) -> Raw:
    """Return a container that contains its inner one twice, many times: 2**times paths."""
    code = pickled([1])
    for number in range(times):
        put, get = (bytes([op]) + struct.pack("<I", number) for op in (0x72, 0x6A))
        if kind == b"tuple":
            code = code + put + get + b"\x86"
        elif kind == b"list":
            code = b"](" + code + put + get + b"e"
        else:
            code = b"}(" + pickled("a") + code + put + pickled("b") + get + b"u"
    return Raw(code)


def repeated(name: tuple[str, str], argument: Any, times: int) -> Raw:
    """Return a list of the results of one call, many times, with the same argument."""
    put, get = (bytes([op]) + struct.pack("<I", 7) for op in (0x72, 0x6A))
    call = Call(*name).code + get + b"R"
    return Raw(b"](" + pickled(argument) + put + call * times + b"e")


def weights(**shapes: tuple[int, ...]) -> bytes:
    """Return a checkpoint of zeros with these shapes; `_` stands for a dot."""
    found = {name.replace("_", "."): torch.zeros(shape) for name, shape in shapes.items()}
    out = io.BytesIO()
    torch.save(found, out)
    return out.getvalue()


def named(*names: str, shape: tuple[int, ...] = (3, 3, 3, 3)) -> bytes:
    out = io.BytesIO()
    torch.save({name: torch.zeros(shape) for name in names}, out)
    return out.getvalue()


def safetensors(header: object, data: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], start: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


_ENCODE = ("_codecs", "encode")
_ORDERED = ("collections", "OrderedDict")

# These fill the memory or take half a minute, after which the next needs a new process.
LONG = {
    "bytearray of 8 GiB",
    "bytearrays of a bytearray",
    "texts encoded often",
    "a set of a list",
    "dictionaries copied often",
    "a counter of a text",
    "many lists",
    "many names",
    "a block of a large number",
}
HOSTILE: dict[str, Callable[[], bytes]] = {
    "bytearray of 8 GiB": lambda: archive({"w": Call("builtins", "bytearray", BIG)}),
    "bytearrays of a bytearray": lambda: archive(
        [repeated(("builtins", "bytearray"), (1 << 28,), 40)]
    ),
    "a storage of 8 GiB": lambda: archive({"w": Call("torch.storage", "UntypedStorage", BIG)}),
    "a typed storage": lambda: archive({"w": Call("torch.storage", "TypedStorage", BIG)}),
    "a tensor by its class": lambda: archive({"w": Call("torch", "Tensor", 1 << 16, 1 << 15)}),
    "a float tensor": lambda: archive({"w": Call("torch", "FloatTensor", 1 << 16, 1 << 15)}),
    "texts encoded often": lambda: archive([repeated(_ENCODE, ("x" * 100_000, "latin-1"), 40_000)]),
    "a set of a list": lambda: archive([repeated(("builtins", "set"), ([*range(9999)],), 20_000)]),
    "a counter of a text": lambda: archive(
        [repeated(("collections", "Counter"), ("abc" * 99_999,), 999)]
    ),
    "dictionaries copied often": lambda: archive(
        [repeated(_ORDERED, ([(i, i) for i in range(5000)],), 5000)]
    ),
    "tuples that double": lambda: archive({"w": doubling(b"tuple", 60)}),
    "lists that double": lambda: archive({"w": doubling(b"list", 60)}),
    "dictionaries that double": lambda: archive({"w": doubling(b"dict", 60)}),
    "deep tuples": lambda: archive({"w": Raw(pickled(1) + b"\x85" * 200_000)}),
    "deep lists": lambda: archive({"w": Raw(b"](" * 100_000 + b"e" * 100_000)}),
    "a list that contains itself": lambda: archive({"w": Raw(b"]q\x01h\x01a")}),
    "a tensor beyond its storage": lambda: archive({"w": tensor(1, BIG)}),
    "a storage beyond its record": lambda: archive({"w": tensor(BIG, BIG)}),
    "a tensor of one repeated number": lambda: archive(
        {"w": tensor(1, 1 << 20, 1 << 12, stride=(0, 0))}
    ),
    "many views of one storage": lambda: archive(
        {f"w{i}": tensor(1 << 20, 1 << 20) for i in range(2000)}, {"0": bytes(4 << 20)}
    ),
    "a negative size": lambda: archive({"w": tensor(1, -5)}),
    "quantized": lambda: archive(
        {
            "w": Call(
                *("torch._utils", "_rebuild_qtensor", Storage(1), 0, (BIG,), (1,)),
                *((Raw(b"ctorch\nper_tensor_affine\n"), 1, 0), False),
                Call(*_ORDERED),
            )
        }
    ),
    "an empty tensor on no device": lambda: archive(
        {
            "w": Call(
                *("torch._utils", "_rebuild_meta_tensor_no_storage"),
                *(Raw(b"ctorch\nfloat32\n"), (BIG, BIG), (BIG, 1), False),
            )
        }
    ),
    "a compressed storage": lambda: archive(
        {"w": tensor(1 << 28, 1 << 28)}, {"0": bytes(1 << 30)}, compressed=True
    ),
    "many lists": lambda: archive({"w": Raw(b"](" + b"]" * (1 << 22) + b"e")}),
    "a compressed pickle": lambda: archive(
        {"w": Raw(b"](" + b"]" * (1 << 24) + b"e")}, compressed=True
    ),
    "a long text": lambda: archive({"x" * (1 << 24): tensor(1, 1)}),
    "many names": lambda: archive({f"w{i}.weight": tensor(1, 1) for i in range(50_000)}),
    "legacy: a storage of 32 GiB": lambda: legacy(
        {"w": legacy_tensor(BIG)}, [("0", BIG, bytes(64))]
    ),
    "legacy: two sizes": lambda: legacy({"w": legacy_tensor(4)}, [("0", BIG, bytes(16))]),
    "legacy: a negative size": lambda: legacy({"w": legacy_tensor(4)}, [("0", -BIG, bytes(16))]),
    "legacy: a tensor by its class": lambda: legacy(
        {"w": Call("torch", "FloatTensor", 1 << 16, 1 << 15)}, []
    ),
    "safetensors: a size beyond the file": lambda: safetensors({"w": entry([1 << 40])}),
    "safetensors: overflowing sizes": lambda: safetensors({"w": entry([1 << 62, 4])}),
    "safetensors: an offset beyond the file": lambda: safetensors({"w": entry([4], 0, 1 << 40)}),
    "safetensors: deep JSON": lambda: safetensors(b"[" * 1_000_000 + b"]" * 1_000_000),
    "safetensors: deep JSON in a dictionary": lambda: safetensors(b'{"a":' * 500_000),
    "safetensors: a negative size": lambda: safetensors({"w": entry([-4])}),
    "safetensors: a long number": lambda: safetensors(b'{"w":' + b"9" * 100_000 + b"}"),
    "safetensors: no header": lambda: struct.pack("<Q", 1 << 39) + b"{" + bytes(100),
    "a block of a large number": lambda: named(
        "conv_first.weight", "body.999999999.rdb1.conv1.weight", "conv_last.weight"
    ),
    "a layer of a large number": lambda: named(
        "body.0.weight", "body.1.weight", "body.99999999.weight"
    ),
    "a stage of a long number": lambda: named(f"layers.{'9' * 5000}.weight"),
    "a stage of a number of 900 digits": lambda: named(
        f"layers.{'9' * 900}.residual_group.blocks.0.norm1.weight", f"body.{'9' * 900}.weight"
    ),
    "a digit that is no number": lambda: named("body.²³.weight", "body.٣.weight"),
    "a wide layer": lambda: weights(
        **{"0_weight": (200_000, 3, 1, 1), "2_weight": (3, 200_000, 1, 1)}
    ),
    "a large kernel": lambda: weights(**{"0_weight": (3, 3, 1025, 1025)}),
    "sides of zero": lambda: weights(**{"0_weight": (0, 3, 3, 3), "1_weight": (3, 0, 3, 3)}),
}
