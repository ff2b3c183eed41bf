"""Documents hold the tables of the records, and nothing of them is written by hand."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

from sr_bench import records, report
from sr_bench.jobs import DEFAULT
from sr_bench.scores import Method, QualityRecord, Score
from sr_bench.timings import SpeedRecord
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import sha256_of
from tests.conftest import ROOT
from tests.sr_bench.examples import FULL, PRECISIONS, QUALITY, SPEED

EMPTY = "before\n\n<!-- table:{} -->\n<!-- /table -->\n\nafter\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two records and a document that asks for one of them."""
    results = tmp_path / report.RESULTS
    results.mkdir(parents=True)
    records.write(results / "quality.json", QUALITY)
    records.write(results / "speed.json", SPEED)
    (tmp_path / "README.md").write_text(EMPTY.format("quality"))
    return tmp_path


def test_a_table_is_filled_and_then_stays(checkout: Path) -> None:
    changed = report.outdated(checkout)
    report.update(changed)
    text = (checkout / "README.md").read_text()
    assert "| mean  | 31.00 / 0.9100 | 32.50 / 0.9300 |\n" in text
    assert text.startswith("before\n\n<!-- table:quality -->\n| image |")
    assert text.endswith("commit 0123456789.\n<!-- /table -->\n\nafter\n")
    assert report.outdated(checkout) == {}


def test_a_changed_record_or_table_is_noticed(checkout: Path) -> None:
    report.update(report.outdated(checkout))
    readme = checkout / "README.md"
    readme.write_text(readme.read_text().replace("32.50", "39.50"))
    assert list(report.outdated(checkout)) == [readme]


def test_documents_in_docs_are_filled(checkout: Path) -> None:
    (checkout / "docs").mkdir()
    (checkout / "docs/speed.md").write_text(EMPTY.format("speed"))
    changed = report.outdated(checkout)
    assert "2.00" in changed[checkout / "docs/speed.md"]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table:quality -->\n",
        "<!-- /table -->\n",
        "<!-- table:quality -->\n<!-- table:speed -->\n<!-- /table -->\n",
        "<!-- chart:speed:faster -->\n<!-- /table -->\n",
    ],
)
def test_a_marker_without_its_counterpart_is_an_error(text: str, checkout: Path) -> None:
    (checkout / "README.md").write_text(text)
    with pytest.raises(InvalidInputError, match=r"README\.md: a table marker has no counterpart"):
        report.outdated(checkout)


def test_a_record_that_is_not_there_is_named(checkout: Path) -> None:
    (checkout / "README.md").write_text(EMPTY.format("taste"))
    with pytest.raises(NotFoundError, match=r"taste\.json: no such record"):
        report.outdated(checkout)


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"has no README\.md"):
        report.outdated(tmp_path)


def test_a_chart_is_drawn_beside_the_documents(checkout: Path) -> None:
    (checkout / "docs").mkdir()
    block = "<!-- chart:speed:faster -->\n<!-- /chart -->\n"
    (checkout / "docs/speed.md").write_text(block)
    (checkout / "README.md").write_text(block)
    report.update(report.outdated(checkout))
    drawn = checkout / "docs/charts/speed-faster.svg"
    assert drawn.read_text().startswith("<svg ")
    assert "](charts/speed-faster.svg)\n<!-- /chart -->" in (checkout / "docs/speed.md").read_text()
    assert "](docs/charts/speed-faster.svg)\n" in (checkout / "README.md").read_text()
    assert report.outdated(checkout) == {}
    drawn.write_text(drawn.read_text().replace("tiny", "huge"))
    assert list(report.outdated(checkout)) == [drawn]


def test_a_table_may_be_of_another_kind(checkout: Path) -> None:
    records.write(checkout / report.RESULTS / "full.json", FULL)
    block = "<!-- table:full:overhead -->\n<!-- /table -->\n"
    (checkout / "README.md").write_text(block)
    report.update(report.outdated(checkout))
    lines = (checkout / "README.md").read_text().splitlines()
    (row,) = (line for line in lines if "by default" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "sr-deploy by default (OpenVINO BF16), 64x32"
    assert cells[1:3] == ["+11.1 %", "+8.9 to +13.3 %"]  # 1.0 ms over 0.9, and 2 % on either side
    assert cells[3] == "engine 10.0 %, tiles 0.0 %"
    (checkout / "README.md").write_text(block.replace("overhead", "beauty"))
    with pytest.raises(InvalidInputError, match="there is no table 'beauty'"):
        report.outdated(checkout)


def test_a_chart_that_there_is_not_is_told(checkout: Path) -> None:
    (checkout / "README.md").write_text("<!-- chart:speed:pie -->\n<!-- /chart -->\n")
    with pytest.raises(InvalidInputError, match="there is no chart 'pie'; choose one of faster"):
        report.outdated(checkout)


def test_documents_show_ratios_and_no_times() -> None:
    text = report.markdown(SPEED)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[:4]]
    assert rows[0] == ["", "256x128", "64x32", "differs by"]
    assert rows[2] == ["PyTorch eager FP32", "1.00", "1.00", "0 levels"]
    assert rows[3] == ["sr-deploy OpenVINO BF16", "2.00", "4.00", "2 levels"]
    assert " ms" not in text
    assert "Measured on A CPU, 2 cores (avx2, avx512_vnni); Python 3.11.7" in " ".join(text.split())


def test_the_terminal_shows_times_by_size() -> None:
    lines = report.text(SPEED).splitlines()
    assert lines[0] == "tiny.pth (Compact x2), 2026-11-21"
    assert lines[2].split()[:6] == ["256x128,", "ms", "median", "p90", "p99", "min"]
    assert lines[3].split()[3:5] == ["12.00", "18.00"]
    assert lines[4].endswith("2.00 (1.96-3.00)")  # no narrower than 2 % below
    assert max(map(len, lines)) <= 100


def test_the_terminal_shows_all_that_was_measured() -> None:
    text = report.text(FULL)
    name = "sr-deploy by default (OpenVINO BF16)"
    rows = [line.removeprefix(name).split() for line in text.splitlines() if name in line]
    times, costs, forms, stages = rows
    assert times == ["1.00", "1.07", "1.10", "0.90", "1000.0", "8.19", "4.00", "(3.92-4.08)"]
    assert costs == [
        "0.5",
        "s",
        "25",
        "ms",
        "100",
        "MiB",
        "0.03",
        "J",
        "28",
        "%",
        "48.0",
        "dB,",
        "3",
        "33.00",
    ]
    assert forms == ["0.90", "ms", "+11.1", "%", "0.80", "ms", "+25.0", "%"]
    assert stages == ["engine", "0.10,", "tiles", "0.00,", "network", "0.90"]
    assert "Not measured: PyTorch compiled FP32: no compiler" in text
    assert "GPU's" not in text  # a column in which nothing was measured
    assert max(map(len, text.splitlines())) <= 110


def test_several_series_are_told_apart() -> None:
    joined = records.merged([SPEED, FULL])
    text = report.markdown(joined)
    assert text.count("**tiny.pth (Compact x2)**, ") == 2
    assert "of its ceiling" in text
    assert "| sr-deploy by default (OpenVINO BF16) |" in text.replace("  ", " ")
    assert report.text(joined).count("Times faster than PyTorch eager FP32;") == 2


def test_what_several_series_have_in_common_is_said_once() -> None:
    (first,) = SPEED.series
    later = dataclasses.replace(first.setting, date="2031-05-06T07:08:09+00:00")
    options = dataclasses.replace(first.options, rounds=14)
    second = dataclasses.replace(first, setting=later, options=options)
    text = report.markdown(dataclasses.replace(SPEED, series=(first, second)))
    assert text.count("Measured on") == 1
    assert f", {first.options.rounds} rounds, {first.setting.date[:10]}, commit" in text
    assert ", 14 rounds, 2031-05-06, commit" in text


def test_the_terminal_shows_all_methods() -> None:
    lines = report.text(QUALITY).splitlines()
    assert lines[0].split() == ["image", "nearest", "bicubic", "tiny"]
    assert lines[1].split()[0] == "a"
    assert not any("RGB" in line for line in lines)  # which this record lacks
    scored = {"a.png": Score(31.0, 0.91, 50.0, 29.0, 0.9, 80.0)}
    methods = (Method("tiny", scored, QUALITY.methods[2].contender),)
    text = report.text(dataclasses.replace(QUALITY, methods=methods))
    assert "tiny   31.00  0.9100  50.00     29.00  0.9000  80.00" in text


def test_several_precisions_are_a_table_of_what_each_costs() -> None:
    lines = report.markdown(PRECISIONS).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == ["", "PSNR / SSIM", "change", "against FP32", "at export"]
    assert cells[2] == ["tiny FP32", "32.50 / 0.9300", "", "", ""]
    assert cells[3] == ["tiny INT8", "32.40 / 0.9300", "-0.10 dB", "51.2 dB", "48.0 dB"]
    assert "those of FP32, RGB, of the image where they differ most" in " ".join(lines)


@pytest.mark.parametrize("path", sorted((ROOT / report.RESULTS).glob("precisions-*.json")))
def test_committed_precisions_hold_their_promises(path: Path) -> None:
    """FP16 from 58 dB and INT8 from 45 dB against FP32; at most 0.1 dB lost on Set5."""
    record = records.read(path)
    assert isinstance(record, QualityRecord)
    exact, *others = record.networks()
    budgets = {"fp16": 58.0, "bf16": 45.0, "int8": 45.0}
    assert {each.name.split()[-1] for each in others} >= {"FP16", "INT8"}
    for each in others:
        assert each.contender is not None
        assert each.stated is not None
        assert each.stated >= budgets[each.contender.precision]
        before, after = exact.mean().psnr, each.mean().psnr
        assert before is not None
        assert after is not None
        assert before - after <= 0.1


def test_committed_tables_are_those_of_the_records() -> None:
    """`sr-bench report` mends it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- table:quality -->" in text
    assert "<!-- table:speed -->" in text
    assert report.outdated(ROOT) == {}


@pytest.mark.parametrize(("name", "kind"), [("quality", QualityRecord), ("speed", SpeedRecord)])
def test_committed_records_are_of_the_shipped_checkpoint(
    name: str, kind: type[QualityRecord] | type[SpeedRecord], shipped_checkpoint: Path
) -> None:
    record = records.read(ROOT / report.RESULTS / f"{name}.json")
    assert isinstance(record, kind)
    subjects = (
        [record.subject]
        if isinstance(record, QualityRecord)
        else [each.subject for each in record.series]
    )
    assert {each.sha256 for each in subjects} == {sha256_of(shipped_checkpoint)}


def test_committed_speed_was_measured_on_a_quiet_machine() -> None:
    record = records.read(ROOT / report.RESULTS / "speed.json")
    assert isinstance(record, SpeedRecord)
    assert record.steady()


def test_in_the_committed_record_the_default_is_as_fast_as_the_documents_say() -> None:
    """Every network and size: beside PyTorch as people run it, its strong FP32, its best form."""
    record = records.read(ROOT / report.RESULTS / "cpu.json")
    assert isinstance(record, SpeedRecord)
    asked = {"contiguous fp32": 4.0, "channels_last fp32": 3.5, "best": 1.8}
    for series, bout in record.bouts():
        rows = {f"{row.contender.backend} {row.precision}": row for row in bout.rows}
        default = next(row for row in bout.rows if row.contender == DEFAULT)
        torch = [row for row in bout.rows if row.contender.runtime == "torch"]
        assert len(torch) == 5
        rows["best"] = min(torch, key=lambda row: statistics.median(row.upscale.medians()))
        for name, times in asked.items():
            found = default.upscale.against(rows[name].upscale).median
            assert found >= times, f"{series.subject.name} {bout.size}: {found:.2f} over {name}"


def test_the_shipped_checkpoint_beats_bicubic_on_set5() -> None:
    record = records.read(ROOT / report.RESULTS / "quality.json")
    assert isinstance(record, QualityRecord)
    means = {each.name: each.mean().psnr for each in record.methods}
    bicubic, ours = means["bicubic"], means[record.subject.name]
    assert bicubic is not None
    assert ours is not None
    assert bicubic == pytest.approx(33.66, abs=0.05)  # the published figure
    assert ours - bicubic >= 1.5
