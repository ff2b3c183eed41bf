"""A crash of the exporter is an ordinary error, and the next strategy is tried."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sr_deploy.errors import CheckpointError, ExportError
from sr_export import subprocess_export
from sr_export.options import Options
from tests.sr_deploy.test_worker import STUB

OPTIONS = Options(checkpoint="x.pth", name="x")


def crashing(times: int) -> Options:
    """Return options with which the stub's first strategies crash."""
    return replace(OPTIONS, name=str(times))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_the_next_strategy_is_tried_after_a_crash(tmp_path: Path) -> None:
    stages: list[str] = []
    subprocess_export.export(crashing(2), tmp_path / "x.srd", stages.append, module=STUB)
    assert [each for each in stages if each.startswith("exporting")] == [
        "exporting in way 0",
        "exporting in way 1",
        "exporting in way 2",
    ]
    assert (tmp_path / "x.srd" / "manifest.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_crashing_always_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"SIGABRT.*exporting in way 3"):
        subprocess_export.export(crashing(99), tmp_path / "x.srd", lambda _: None, module=STUB)
    assert not (tmp_path / "x.srd").exists()


def test_a_defect_names_its_exception(tmp_path: Path) -> None:
    options = replace(OPTIONS, name="not a number")
    with pytest.raises(ExportError, match=r"ValueError: .*not a number"):
        subprocess_export.export(options, tmp_path / "x.srd", lambda _: None, module=STUB)
    assert not list(tmp_path.iterdir())


def test_errors_keep_their_class(tmp_path: Path) -> None:
    missing = replace(OPTIONS, checkpoint=str(tmp_path / "x.txt"))
    (tmp_path / "x.txt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"x\.txt"):
        subprocess_export.export(missing, tmp_path / "x.srd", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("stage", "kind"),
    [("reading the checkpoint", CheckpointError), ("exporting the network", ExportError)],
)
def test_too_much_memory_names_the_file_and_the_limit(
    tmp_path: Path, stage: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = replace(subprocess_export._EXPORTING, memory=256 << 20)
    monkeypatch.setattr(subprocess_export, "_EXPORTING", narrow)
    path = tmp_path / "net.pth"
    path.write_bytes(b"x" * 1000)
    options = replace(OPTIONS, checkpoint=str(path), name=f"greedy {stage}")
    with pytest.raises(kind, match=r"net\.pth.*MiB of memory.*1000 B") as caught:
        subprocess_export.export(options, tmp_path / "x.srd", lambda _: None, module=STUB)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.srd").exists()
