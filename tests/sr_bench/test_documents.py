"""Documents contain the tables and charts of the records."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from sr_bench import documents, quality_tables, record_files
from sr_bench.configurations import DEFAULT
from sr_bench.records import QualityRecord, SpeedRecord
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import sha256_of
from tests.conftest import ROOT
from tests.sr_bench.examples import FULL, PRECISIONS, QUALITY, SPEED

EMPTY = "before\n\n<!-- table:{} -->\n<!-- /table -->\n\nafter\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two records and a document that requests one of them."""
    results = tmp_path / documents.RESULTS
    results.mkdir(parents=True)
    record_files.write(results / "quality.json", QUALITY)
    record_files.write(results / "speed.json", SPEED)
    (tmp_path / "README.md").write_text(EMPTY.format("quality"))
    return tmp_path


def test_a_table_is_filled_once(checkout: Path) -> None:
    changed = documents.outdated(checkout)
    documents.update(changed)
    text = (checkout / "README.md").read_text()
    assert "| mean  | 31.00 / 0.9100 | 32.50 / 0.9300 |\n" in text
    assert text.startswith("before\n\n<!-- table:quality -->\n| image |")
    assert text.endswith("torch 2.13.0.\n<!-- /table -->\n\nafter\n")
    assert documents.outdated(checkout) == {}


def test_a_changed_table_is_outdated(checkout: Path) -> None:
    documents.update(documents.outdated(checkout))
    readme = checkout / "README.md"
    readme.write_text(readme.read_text().replace("32.50", "39.50"))
    assert list(documents.outdated(checkout)) == [readme]


def test_documents_in_docs_are_filled(checkout: Path) -> None:
    (checkout / "docs").mkdir()
    (checkout / "docs/speed.md").write_text(EMPTY.format("speed"))
    changed = documents.outdated(checkout)
    assert "2.00" in changed[checkout / "docs/speed.md"]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table:quality -->\n",
        "<!-- /table -->\n",
        "<!-- table:quality -->\n<!-- table:speed -->\n<!-- /table -->\n",
        "<!-- chart:speed:faster -->\n<!-- /table -->\n",
        "<!-- environment -->\n",
    ],
)
def test_a_marker_without_its_counterpart_is_an_error(text: str, checkout: Path) -> None:
    (checkout / "README.md").write_text(text)
    with pytest.raises(InvalidInputError, match=r"README\.md"):
        documents.outdated(checkout)


def test_a_missing_record_is_named(checkout: Path) -> None:
    (checkout / "README.md").write_text(EMPTY.format("taste"))
    with pytest.raises(NotFoundError, match=r"taste\.json"):
        documents.outdated(checkout)


def test_a_folder_that_is_not_a_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"README\.md"):
        documents.outdated(tmp_path)


def test_a_chart_is_drawn_beside_the_documents(checkout: Path) -> None:
    (checkout / "docs").mkdir()
    block = "<!-- chart:speed:faster -->\n<!-- /chart -->\n"
    (checkout / "docs/speed.md").write_text(block)
    (checkout / "README.md").write_text(block)
    documents.update(documents.outdated(checkout))
    drawn = checkout / "docs/charts/speed-faster.svg"
    assert drawn.read_text().startswith("<svg ")
    assert "](charts/speed-faster.svg)\n<!-- /chart -->" in (checkout / "docs/speed.md").read_text()
    assert "](docs/charts/speed-faster.svg)\n" in (checkout / "README.md").read_text()
    assert documents.outdated(checkout) == {}
    drawn.write_text(drawn.read_text().replace("tiny", "huge"))
    assert list(documents.outdated(checkout)) == [drawn]


def test_a_table_may_be_of_another_kind(checkout: Path) -> None:
    record_files.write(checkout / documents.RESULTS / "full.json", FULL)
    block = "<!-- table:full:overhead -->\n<!-- /table -->\n"
    (checkout / "README.md").write_text(block)
    documents.update(documents.outdated(checkout))
    assert "| +8.9 to +13.3 % |" in (checkout / "README.md").read_text()
    (checkout / "README.md").write_text(block.replace("overhead", "beauty"))
    with pytest.raises(InvalidInputError, match=r"'beauty'.*speedups, overhead"):
        documents.outdated(checkout)


def test_an_environment_block_gets_the_shared_notes_once(checkout: Path) -> None:
    text = EMPTY.format("quality") + EMPTY.format("speed")
    machine = "Measured on A CPU, 2 cores (avx2, avx512_vnni); Python 3.11.7"
    readme = checkout / "README.md"
    readme.write_text(text)
    documents.update(documents.outdated(checkout))
    assert " ".join(readme.read_text().split()).count(machine) == 2
    readme.write_text(text + "<!-- environment -->\n<!-- /environment -->\n")
    documents.update(documents.outdated(checkout))
    filled = " ".join(readme.read_text().split())
    assert filled.count(machine) == 1
    assert machine in filled.partition("<!-- environment -->")[2]
    assert documents.outdated(checkout) == {}


def test_a_warning_is_below_the_table(checkout: Path) -> None:
    (checkout / "README.md").write_text(EMPTY.format("speed"))
    documents.update(documents.outdated(checkout))
    assert "**Warning:**" in (checkout / "README.md").read_text()


def test_an_unknown_chart_is_an_error(checkout: Path) -> None:
    (checkout / "README.md").write_text("<!-- chart:speed:pie -->\n<!-- /chart -->\n")
    with pytest.raises(InvalidInputError, match=r"'pie'.*faster"):
        documents.outdated(checkout)


def test_shared_notes_of_several_benchmarks_are_given_once() -> None:
    (first,) = SPEED.series
    later = dataclasses.replace(first.setting, date="2031-05-06T07:08:09+00:00")
    options = dataclasses.replace(first.options, rounds=14)
    second = dataclasses.replace(first, setting=later, options=options)
    body, notes = documents.markdown(dataclasses.replace(SPEED, series=(first, second)))
    assert len([each for each in notes if "A CPU" in each]) == 1
    assert f", {first.options.rounds} rounds, {first.setting.date[:10]}, commit" in body
    assert ", 14 rounds, 2031-05-06, commit" in body
    assert body.count("**tiny.pth (Compact x2)**, ") == 2


def test_a_table_of_precisions_has_its_legend() -> None:
    body, notes = documents.markdown(PRECISIONS)
    assert "| vs FP32 at export |" in body
    assert quality_tables.PRECISIONS_LEGEND in notes


@pytest.mark.parametrize("path", sorted((ROOT / documents.RESULTS).glob("precisions-*.json")))
def test_committed_precisions_meet_their_budgets(path: Path) -> None:
    """FP16 from 58 dB and INT8 from 45 dB against FP32; at most 0.1 dB lost on Set5."""
    record = record_files.read(path)
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


def test_committed_tables_match_the_records() -> None:
    """`sr-bench report` updates them."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any("<!-- table:cpu -->" in page.read_text(encoding="utf-8") for page in pages)
    assert documents.outdated(ROOT) == {}


def test_the_committed_quality_table_has_the_figures_of_the_record() -> None:
    """Read from the JSON file, without the code that makes tables."""
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")]
    text = next(page for page in pages if "<!-- table:quality -->" in page)
    block = text.partition("<!-- table:quality -->")[2].partition("<!-- /table -->")[0]
    rows = [line.split("|")[1:-1] for line in block.splitlines() if line.startswith("|")]
    shown = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    methods = {each["name"]: each["scores"] for each in _record("quality")["methods"]}
    columns = [methods[name] for name in shown["image"]]
    for image in columns[0]:
        scores = [each[image] for each in columns]
        assert shown[image.rpartition(".")[0]] == [
            f"{each['psnr']:.2f} / {each['ssim']:.4f}" for each in scores
        ]
    assert shown["mean"] == [
        f"{statistics.fmean(each['psnr'] for each in column.values()):.2f} / "
        f"{statistics.fmean(each['ssim'] for each in column.values()):.4f}"
        for column in columns
    ]


def test_the_readme_has_the_figures_of_the_records() -> None:
    """Speedups and loss of the shipped network, and the range of the other networks."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = re.search(
        r"runs ([\d.]+) times .*? and ([\d.]+) times .*? ([\d.]+) dB .*? ([\d.]+) to ([\d.]+) ",
        text.partition("**Measured**")[2],
    )
    assert found is not None
    eager, best, loss, lowest, highest = map(float, found.groups())
    shipped = _speedups("compact_x2")[480, 270]
    assert (eager, best) == (round(shipped[0], 1), round(shipped[1], 1))
    others = [
        each[0]
        for name in ("realesr-animevideov3", "srresnet_x4", "rrdb6_x4", "rrdb_x4")
        for each in _speedups(name).values()
    ]
    assert (lowest, highest) == (round(min(others), 1), round(max(others)))
    means = {
        each["name"]: statistics.fmean(score["psnr"] for score in each["scores"].values())
        for each in _record("precisions-compact_x2")["methods"]
    }
    assert loss == round(means["compact_x2 FP32"] - means["compact_x2 INT8"], 2)


def _record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / documents.RESULTS / f"{name}.json").read_text())
    return found


def _speedups(name: str) -> dict[tuple[int, ...], tuple[float, float]]:
    """Return the speedups of the default over eager PyTorch and its best form, by size."""

    def medians(row: dict[str, Any]) -> list[float]:
        return [statistics.median(each) for each in row["timings"][0]["rounds"]]

    found = {}
    (series,) = (each for each in _record("cpu")["series"] if each["subject"]["name"] == name)
    for bout in series["bouts"]:
        torch = [row for row in bout["rows"] if row["contender"]["runtime"] == "torch"]
        best = min(torch, key=lambda row: statistics.median(medians(row)))
        (default,) = (row for row in bout["rows"] if row["contender"]["backend"] == "auto")
        eager, strong = (
            statistics.median(a / b for a, b in zip(medians(row), medians(default), strict=True))
            for row in (bout["rows"][0], best)
        )
        found[tuple(bout["size"])] = (eager, strong)
    return found


@pytest.mark.parametrize(("name", "kind"), [("quality", QualityRecord), ("speed", SpeedRecord)])
def test_committed_records_are_of_the_shipped_checkpoint(
    name: str, kind: type[QualityRecord] | type[SpeedRecord], shipped_checkpoint: Path
) -> None:
    record = record_files.read(ROOT / documents.RESULTS / f"{name}.json")
    assert isinstance(record, kind)
    subjects = (
        [record.subject]
        if isinstance(record, QualityRecord)
        else [each.subject for each in record.series]
    )
    assert {each.sha256 for each in subjects} == {sha256_of(shipped_checkpoint)}


def test_the_committed_speed_record_is_steady() -> None:
    record = record_files.read(ROOT / documents.RESULTS / "speed.json")
    assert isinstance(record, SpeedRecord)
    assert record.steady()


def test_the_committed_record_shows_the_speedups_that_the_documents_state() -> None:
    """Every network and size, against eager PyTorch, its channels_last FP32 and its best form."""
    record = record_files.read(ROOT / documents.RESULTS / "cpu.json")
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
    record = record_files.read(ROOT / documents.RESULTS / "quality.json")
    assert isinstance(record, QualityRecord)
    means = {each.name: each.mean().psnr for each in record.methods}
    bicubic, ours = means["bicubic"], means[record.subject.name]
    assert bicubic is not None
    assert ours is not None
    assert bicubic == pytest.approx(33.66, abs=0.05)  # the published figure
    assert ours - bicubic >= 1.5
