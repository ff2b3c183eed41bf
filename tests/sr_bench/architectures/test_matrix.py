"""The tables of the small networks."""

from __future__ import annotations

from typing import Any

from architectures.cells import Cell
from architectures.exporting import ExportResult
from architectures.matrix import Architecture, run_result


def row(**other: Any) -> ExportResult:
    whole: ExportResult = {
        "worst_error": 2e-7,
        "tiles": "equal",
        "share": 1.0,
        "precisions": {"fp16": 62.4, "int8": 50.6},
        "runs": {"openvino": "yes", "onnxruntime": "yes"},
    }
    return whole | other  # type: ignore[return-value]


def tried(**rows: ExportResult) -> Architecture:
    """Results by network, such as x2 or x2_gray."""
    cells = {}
    for label, each in rows.items():
        scale, _, gray = label.removeprefix("x").partition("_")
        cells[Cell("Net", 1 if gray else 3, int(scale))] = each
    return Architecture("Net", cells)


def columns(architecture: Architecture) -> list[str]:
    return [each.strip() for each in architecture.line().strip("|").split("|")]


def test_the_line_of_equal_results() -> None:
    found = tried(x2=row(), x4=row(), x2_gray=row(precisions={"fp16": None, "int8": 48.2}))
    assert columns(found) == [
        *("Net", "3, 1", "2, 4", "all", "2e-07", "62 dB", "48 dB (100%)", "equal", "yes", "yes")
    ]
    assert list(found.failures()) == []


def test_different_results_are_named() -> None:
    bad = row(runs={"openvino": "cannot read it: no such operator", "onnxruntime": "yes"})
    blended = row(tiles="blended", precisions={"fp16": 62.0, "int8": "30.1 dB, too few"})
    found = tried(x2=row(), x4=bad, x2_gray=blended, x4_gray=blended)
    assert columns(found)[5:] == [
        *("62 dB", "51 dB (100%); gray: no", "equal; gray: blended"),
        *("yes; x4 RGB: no: cannot read it", "yes"),
    ]
    assert list(found.failures()) == [
        "| Net x4 RGB | openvino | cannot read it: no such operator |",
        "| Net gray | INT8 | 30.1 dB, too few |",
    ]


def test_reasons_that_differ_only_in_figures_are_one_failure() -> None:
    first, second = (row(precisions={"fp16": 60.0, "int8": f"only {n}%"}) for n in (43, 41))
    found = tried(x1=first, x2=second, x1_gray=row(), x2_gray=second)
    assert list(found.failures()) == ["| Net x1 RGB, x2 | INT8 | only 43% |"]
    assert columns(found)[6] == "51 dB (100%); x1 RGB, x2: no"


def test_networks_that_do_not_export() -> None:
    found = tried(x2={"error": "it crashes"}, x4={"error": "it crashes"})
    assert columns(found)[3:] == ["0 of 2", *"-" * 6]
    assert list(found.failures()) == ["| Net | export | it crashes |"]
    some = tried(x2=row(worst_error=0.0), x4={"error": "it crashes"})
    assert columns(some)[3:5] == ["1 of 2", "all black"]
    assert list(some.failures()) == ["| Net x4 | export | it crashes |"]


def test_the_result_of_a_run_is_short() -> None:
    assert run_result("yes") == "yes"
    assert run_result("differs by 3 levels") == "differs by 3 levels"
    assert (
        run_result("OpenVINO cannot read it: a long story: here") == "no: OpenVINO cannot read it"
    )
