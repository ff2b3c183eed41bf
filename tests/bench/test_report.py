"""Documents hold the tables of the records, and nothing of them is written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_bench import records, report
from sr_bench.records import QualityRecord, SpeedRecord
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import sha256_of
from tests.bench.examples import PRECISIONS, QUALITY, SPEED
from tests.conftest import ROOT

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
    assert lines[0].split()[:4] == ["256x128", "median", "p90", "min"]
    assert lines[1].split()[3:5] == ["12.00", "ms"]
    assert lines[2].endswith("2.00  2.00 to 2.50     1 level")
    assert max(map(len, lines)) <= 100


def test_the_terminal_shows_all_methods() -> None:
    lines = report.text(QUALITY).splitlines()
    assert lines[0].split() == ["image", "nearest", "bicubic", "tiny"]
    assert lines[1].split()[0] == "a"


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
    name: str, kind: type, shipped_checkpoint: Path
) -> None:
    record = records.read(ROOT / report.RESULTS / f"{name}.json")
    assert isinstance(record, kind)
    assert record.subject.sha256 == sha256_of(shipped_checkpoint)


def test_committed_speed_was_measured_on_a_quiet_machine() -> None:
    record = records.read(ROOT / report.RESULTS / "speed.json")
    assert isinstance(record, SpeedRecord)
    assert record.steady()


def test_the_shipped_checkpoint_beats_bicubic_on_set5() -> None:
    record = records.read(ROOT / report.RESULTS / "quality.json")
    assert isinstance(record, QualityRecord)
    means = {each.name: each.mean().psnr for each in record.methods}
    bicubic, ours = means["bicubic"], means[record.subject.name]
    assert bicubic is not None
    assert ours is not None
    assert bicubic == pytest.approx(33.66, abs=0.05)  # the published figure
    assert ours - bicubic >= 1.5
