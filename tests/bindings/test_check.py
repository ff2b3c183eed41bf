from __future__ import annotations

import ast

from tests.bindings.check import mended

_STUBS = '''from __future__ import annotations
import typing
class Dims:
    def __len__(self) -> int:
        ...
class IHostMemory:
    def size(self) -> int:
        ...
class Builder:
    def build_serialized_network(self, network: int) -> IHostMemory:
        ...
    def broken(self, first: int = 1, second: int) -> int:
        """
        Words.
        """
    def keyword(self, in: list[int], out: bool) -> bool:
        ...
    def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> bool:
        ...
bool: int
'''


def test_mended_stubs_are_valid_python() -> None:
    found = mended(_STUBS)

    ast.parse(found)
    assert "def broken(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:" in found
    assert "def keyword(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:" in found
    assert "min: Dims | tuple[int, ...], opt: Dims | tuple[int, ...]" in found
    assert "def __iter__(self) -> typing.Iterator[int]: ..." in found
    assert "def __buffer__(self, flags: int, /) -> memoryview: ..." in found
    assert "def build_serialized_network(self, network: int) -> IHostMemory | None:" in found
    assert ") -> builtins.bool:" in found
    assert "\nbool: int\n" in found
