from __future__ import annotations

import dataclasses

import pytest

from sr_deploy import machine
from sr_deploy.backends.base import Footprint
from sr_deploy.errors import OutOfMemoryError
from sr_deploy.runtime.memory import Budget
from tests.sr_deploy.manifests import MODEL

MIB = 1 << 20


def test_the_default_budget_adds_a_quarter_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 800 * MIB)
    monkeypatch.setattr(machine, "resident_memory", lambda: 100 * MIB)
    assert Budget.given(None) == Budget(300 * MIB, 100 * MIB)
    assert Budget.given("1G") == Budget(1024 * MIB, 100 * MIB)


def test_a_footprint_scales_the_exporters_estimate() -> None:
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


def test_a_budget_fits_the_allowed_pixels_and_not_one_more() -> None:
    budget, footprint = Budget(100 * MIB, 40 * MIB), Footprint(10 * MIB, 500.0)
    pixels = budget.pixels(footprint, 20 * MIB, 15)
    assert pixels == 30 * MIB // 515
    budget.require(pixels, footprint, 20 * MIB, 15, "it")
    with pytest.raises(OutOfMemoryError):
        budget.require(pixels + 1, footprint, 20 * MIB, 15, "it")


def test_with_global_attention_memory_grows_with_the_square() -> None:
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


def test_the_error_for_a_too_large_frame_has_the_memory_needed() -> None:
    with pytest.raises(
        OutOfMemoryError,
        match=r"a photo .*150 MiB.*100 MiB.*90 MiB.*--memory",
    ):
        Budget(90 * MIB, 40 * MIB).require(0, Footprint(10 * MIB, 1.0), 100 * MIB, 1, "a photo")
