"""Tables of speed and quality records: alignment, columns, notes and warnings."""

from __future__ import annotations

import dataclasses

import pytest

from sr_bench import quality_tables, record_files, tables
from sr_bench.records import Method, Score
from sr_bench.tables import Table
from tests.sr_bench.examples import FULL, PRECISIONS, QUALITY, SPEED

TABLE = Table(("image", "a"), (("baby", "33.66"), ("x", "1")))


def _cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in markdown.splitlines()]


def test_text_is_aligned() -> None:
    assert TABLE.text() == "image      a\nbaby   33.66\nx          1"


def test_markdown_is_aligned_and_declares_the_alignment() -> None:
    assert TABLE.markdown().splitlines() == [
        "| image |     a |",
        "| ----- | ----: |",
        "| baby  | 33.66 |",
        "| x     |     1 |",
    ]


def test_columns_without_a_value_can_be_left_out() -> None:
    table = Table(("a", "b", "c"), (("1", "-", "2"), ("3", "-", "-")))
    assert table.without_empty("-") == Table(("a", "c"), (("1", "2"), ("3", "-")))


def test_documents_show_speedups_and_no_times() -> None:
    text = tables.speedups(SPEED.series[0]).markdown()
    header, _, *rows = _cells(text)
    assert header == ["speedup", "256x128", "64x32", "max difference"]
    assert rows[0] == ["PyTorch eager FP32", "1.00", "1.00", "0 levels"]
    assert rows[1] == ["sr-deploy OpenVINO BF16", "2.00*", "4.00", "2 levels"]
    assert " ms" not in text


def test_shares_of_the_ceiling_have_a_column_where_they_were_measured() -> None:
    (benchmark,) = FULL.series
    header, _, *rows = _cells(tables.speedups(benchmark).markdown())
    assert header[3] == "of ceiling"
    assert rows[-1][0] == "sr-deploy default (OpenVINO BF16)"
    assert rows[-1][3] == "28 %"


def test_overhead_is_the_call_over_the_network_alone() -> None:
    _, _, row = _cells(tables.overhead(FULL.series[0]).markdown())
    assert row[0] == "sr-deploy default (OpenVINO BF16), 64x32"
    assert row[1:3] == ["+11.1 %", "+8.9 to +13.3 %"]  # 1.0 ms over 0.9, and 2 % on either side
    assert row[3] == "engine 10.0 %, tiles 0.0 %"


def test_the_terminal_shows_times_by_size() -> None:
    lines = tables.speed_text(SPEED).splitlines()
    assert lines[0] == "tiny.pth (Compact x2), 2026-11-21"
    assert lines[2].startswith("256x128")
    assert lines[3].split()[:6] == ["median", "p90", "p99", "min", "frames/s", "MP/s"]
    assert lines[4].split()[3:5] == ["12.00", "18.00"]
    assert lines[5].split()[-4:] == ["2.00*", "1.96", "to", "3.00"]  # at least 2 % on either side
    assert max(map(len, lines)) <= 110


def test_the_terminal_shows_all_measured_values() -> None:
    text = tables.speed_text(FULL)
    name = "sr-deploy default (OpenVINO BF16)"
    rows = [line.removeprefix(name).split() for line in text.splitlines() if line.startswith(name)]
    times, costs, modes, stages = rows
    assert " ".join(times) == "1.00 1.07 1.10 0.90 1000.0 8.19 4.00 3.92 to 4.08"
    assert " ".join(costs) == "0.5 s 25 ms 100 MiB 0.03 J 28 % 48.0 dB 3 33.00 dB"
    assert " ".join(modes) == "0.90 ms +11.1 % 0.80 ms +25.0 %"
    assert " ".join(stages) == "engine 0.10, tiles 0.00, network 0.90"
    assert "PyTorch compiled FP32: no compiler" in text
    assert "GPU mem" not in text  # an empty column
    assert max(map(len, text.splitlines())) <= 110


def test_one_legend_explains_every_column() -> None:
    text = " ".join(tables.speed_text(record_files.merged([SPEED, FULL])).split())
    assert text.count(tables.LEGEND) == 1
    for column in ("MP/s", "speedup", "start", "ceiling", "PSNR", "max diff", "truth"):
        assert f"{column}: " in tables.LEGEND


def test_rounds_that_disagree_are_marked_and_a_warning() -> None:
    (benchmark,) = SPEED.series
    warning = tables.warning(benchmark)
    assert warning is not None
    assert "1 of 4" in warning
    assert "10 %" in warning
    assert _cells(tables.speedups(benchmark).markdown())[3][1:3] == ["2.00*", "4.00"]
    assert "WARNING" in tables.speed_text(SPEED)
    steady = dataclasses.replace(benchmark, bouts=benchmark.bouts[1:])
    assert tables.warning(steady) is None


def test_a_quick_run_is_labelled() -> None:
    (benchmark,) = SPEED.series
    options = dataclasses.replace(benchmark.options, quick=True)
    quick = dataclasses.replace(SPEED, series=(dataclasses.replace(benchmark, options=options),))
    assert tables.QUICK in tables.speed_text(quick)
    assert tables.QUICK not in tables.speed_text(SPEED)


def test_the_terminal_shows_all_methods() -> None:
    lines = quality_tables.quality_text(QUALITY).splitlines()
    assert lines[0].split() == ["image", "nearest", "bicubic", "tiny"]
    assert lines[1].split()[0] == "a"
    assert not any("RGB" in line for line in lines)  # this record has no such figures
    scored = {"a.png": Score(31.0, 0.91, 50.0, 29.0, 0.9, 80.0)}
    methods = (Method("tiny", scored, QUALITY.methods[2].contender),)
    text = quality_tables.quality_text(dataclasses.replace(QUALITY, methods=methods))
    figures = ["31.00", "0.9100", "50.00", "29.00", "0.9000", "80.00"]
    assert ["tiny", *figures] in [line.split() for line in text.splitlines()]


def test_several_precisions_are_a_table_of_the_loss_of_each() -> None:
    header, _, *rows = _cells(quality_tables.precision_table(PRECISIONS).markdown())
    assert header == ["", "PSNR / SSIM", "change", "vs FP32", "vs FP32 at export"]
    assert rows[0] == ["tiny FP32", "32.50 / 0.9300", "", "", ""]
    assert rows[1] == ["tiny INT8", "32.40 / 0.9300", "-0.10 dB", "51.2 dB", "48.0 dB"]


@pytest.mark.parametrize(
    ("largest", "psnr", "expected"), [(0, None, "equal"), (2, None, "-"), (2, 50.0, "50.0 dB")]
)
def test_an_output_without_psnr_is_equal_or_not_measured(
    largest: int, psnr: float | None, expected: str
) -> None:
    row = SPEED.series[0].bouts[0].rows[0]
    deviation = dataclasses.replace(row.fidelity, largest=largest, psnr=psnr)
    assert tables.psnr_text(deviation) == expected
