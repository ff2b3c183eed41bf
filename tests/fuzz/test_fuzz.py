"""The fuzzer in its short form: every recipe, and some damaged files of each kind.

`python -m tests.fuzz --minutes 60` is the long form. Files that it found are recipes in
`hostile_checkpoints` and `hostile_onnx`, or cases with a number below.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.fuzz import cases, hostile_checkpoints
from tests.fuzz.fuzzer import Fuzzer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of memory read /proc"),
]

COUNTS = {"checkpoint": 20, "onnx": 40, "image": 40, "video": 8, "bundle": 40}
# OpenVINO quoted a name that was not UTF-8 in its error; an integer was too large for a float.
FOUND = [("bundle", 127), ("bundle", 1036)]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    pytest.importorskip("av")
    with Fuzzer(tmp_path_factory.mktemp("fuzz")) as fuzzer:
        yield fuzzer


@pytest.mark.parametrize("kind", cases.KINDS)
def test_damaged_files_are_refused_with_one_line(fuzzer: Fuzzer, kind: str) -> None:
    found = [fuzzer.run(kind, number) for number in range(COUNTS[kind])]
    assert [each for each in found if each] == []


def test_what_was_found_stays_mended(fuzzer: Fuzzer) -> None:
    found = [fuzzer.run(kind, number) for kind, number in FOUND]
    assert [each for each in found if each] == []


def test_hostile_checkpoints_are_refused(fuzzer: Fuzzer) -> None:
    """The last one fills the memory, and is stopped by the limit of reading."""
    names = [each for each in hostile_checkpoints.HOSTILE if each not in hostile_checkpoints.LONG]
    found = [fuzzer.recipe(each) for each in (*names, "bytearray of 8 GiB")]
    assert [each for each in found if each] == []
