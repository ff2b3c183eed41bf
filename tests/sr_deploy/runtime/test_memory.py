from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import machine
from sr_deploy.errors import InvalidInputError, OutOfMemoryError
from sr_deploy.runtime import memory
from sr_deploy.runtime.memory import Budget, Footprint
from tests.sr_deploy.manifests import MODEL

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("2gib", 2 << 30),
        ("1.5GB", 1_500_000_000),
        ("10 kB", 10_000),
        (" 3K ", 3072),
        ("1T", 1 << 40),
        ("4096", 4096),
        ("4096B", 4096),
        (4096, 4096),
    ],
)
def test_sizes_are_read_as_people_write_them(text: Any, size: int) -> None:
    assert memory.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "much", "2X", "-1G", "1,5G", "G", "2GG", "1e9", True, 1.5e300]
)
def test_what_is_no_size_is_refused_with_examples(text: Any) -> None:
    with pytest.raises(InvalidInputError, match="2GiB"):
        memory.parse(text)


@pytest.mark.parametrize("text", ["0", 0, "0.1"])
def test_a_size_of_nothing_is_refused(text: Any) -> None:
    with pytest.raises(InvalidInputError, match="at least 1 byte"):
        memory.parse(text)


@pytest.mark.parametrize("size", [1, 1023, 1024, 5 << 20, 3 << 30, 1 << 42])
def test_words_can_be_read_back(size: int) -> None:
    assert memory.parse(memory.words(size)) == pytest.approx(size, rel=0.05)


def test_what_this_process_holds_grows_with_what_it_takes() -> None:
    before = memory.resident()
    taken = np.ones(64 * MIB, np.uint8)
    # The allocator may give pages back meanwhile, hence a quarter of tolerance.
    assert memory.resident() - before > 0.75 * taken.nbytes


def test_where_the_system_does_not_say_a_process_is_taken_to_hold_something(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    assert memory.resident() == 256 * MIB
    (tmp_path / "statm").write_text("odd")
    assert memory.resident() == 256 * MIB


def test_by_default_a_quarter_of_what_is_free_may_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 800 * MIB)
    monkeypatch.setattr(memory, "resident", lambda: 100 * MIB)
    assert Budget.given(None) == Budget(300 * MIB, 100 * MIB)
    assert Budget.given("1G") == Budget(1024 * MIB, 100 * MIB)


def test_a_footprint_scales_what_the_exporter_computed() -> None:
    model = dataclasses.replace(MODEL, bytes_per_pixel=1000, parameters=10)
    found = Footprint.of(model, "rgb24", factor=1.5, fixed=100, copies=2)
    assert found == Footprint(180, 1500)


def test_packing_16_bits_counts_where_the_network_itself_is_small() -> None:
    model = dataclasses.replace(MODEL, bytes_per_pixel=10, scale=4)
    shallow, deep = (
        Footprint.of(model, frames, factor=1, fixed=0, copies=0) for frames in ("rgb24", "rgb48")
    )
    assert shallow.per_pixel == pytest.approx(3.6 * 4 * 3 * 16)
    assert deep.per_pixel > 2 * shallow.per_pixel


def test_the_halves_of_16_bits_come_on_top_where_the_network_itself_is_large() -> None:
    model = dataclasses.replace(MODEL, bytes_per_pixel=100_000)
    shallow, deep = (
        Footprint.of(model, frames, factor=1, fixed=0, copies=0) for frames in ("rgb24", "rgb48")
    )
    assert shallow.per_pixel == 100_000
    assert deep.per_pixel > shallow.per_pixel


def test_giving_back_takes_nothing_that_is_in_use() -> None:
    kept = [np.full(1000 + each, each % 256, np.uint8) for each in range(1000)]
    memory.give_back()
    assert all((each == number % 256).all() for number, each in enumerate(kept))


def test_what_a_budget_allows_also_fits_and_one_pixel_more_does_not() -> None:
    budget, footprint = Budget(100 * MIB, 40 * MIB), Footprint(10 * MIB, 500.0)
    pixels = budget.pixels(footprint, 20 * MIB, 15)
    assert pixels == 30 * MIB // 515
    budget.require(pixels, footprint, 20 * MIB, 15, "it")
    with pytest.raises(OutOfMemoryError):
        budget.require(pixels + 1, footprint, 20 * MIB, 15, "it")


def test_where_every_pixel_looks_at_every_other_memory_grows_with_the_square() -> None:
    model = dataclasses.replace(MODEL, bytes_per_pixel=1000, bytes_per_pair=0.5, parameters=0)
    footprint = Footprint.of(model, "rgb24", factor=2, fixed=0, copies=0)
    assert footprint.times(3) == Footprint(0, 3 * 2000, 3 * 1.0)
    budget = Budget(100 * MIB, 0)
    pixels = budget.pixels(footprint, 0, 0)
    assert pixels**2 + 2000 * pixels == pytest.approx(100 * MIB, rel=1e-3)  # whole pixels
    budget.require(pixels, footprint, 0, 0, "it")
    with pytest.raises(OutOfMemoryError):
        budget.require(pixels + 1, footprint, 0, 0, "it")
    assert budget.pixels(footprint, 101 * MIB, 0) <= 0


def test_a_frame_that_cannot_fit_says_what_it_would_need() -> None:
    with pytest.raises(
        OutOfMemoryError,
        match=r"a photo needs at least 150 MiB of memory, 100 MiB of it for the frame and its "
        r"result, but may take 90 MiB; allow more with --memory",
    ):
        Budget(90 * MIB, 40 * MIB).require(0, Footprint(10 * MIB, 1.0), 100 * MIB, 1, "a photo")
