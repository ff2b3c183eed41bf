"""A crash of the exporter is an error like any other, and the next way is tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.errors import CheckpointError, ExportError
from sr_export import subprocess_export
from sr_export.options import Options

OPTIONS = Options(checkpoint="x.pth", name="x")

_CRASHING = """
import json, os, signal, sys
job = json.load(sys.stdin)
tried = job["skip"]
def tell(**event):
    print(json.dumps(event), flush=True)
tell(stage="reading")
while tried < {crashes}:
    tell(stage="exporting in way %d" % tried)
    os.kill(os.getpid(), signal.SIGSEGV)
tell(stage="exporting in way %d" % tried)
open(os.path.join(job["folder"], "manifest.json"), "w").close()
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A script that runs in the place of the worker."""
    script = tmp_path / "worker.py"
    popen = subprocess.Popen

    def replaced(command: list[str], **options: Any) -> object:
        return popen([sys.executable, str(script)], **options)

    monkeypatch.setattr(subprocess, "Popen", replaced)
    return script


def test_the_next_way_is_tried_after_a_crash(worker: Path, tmp_path: Path) -> None:
    worker.write_text(_CRASHING.format(crashes=2))
    stages: list[str] = []
    subprocess_export.export(OPTIONS, tmp_path / "x.srd", stages.append)
    assert [each for each in stages if each.startswith("exporting")] == [
        "exporting in way 0",
        "exporting in way 1",
        "exporting in way 2",
    ]
    assert (tmp_path / "x.srd" / "manifest.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSEGV")
def test_crashing_always_is_an_error(worker: Path, tmp_path: Path) -> None:
    worker.write_text(_CRASHING.format(crashes=99))
    with pytest.raises(ExportError, match=r"crashed \(SIGSEGV\) while exporting in way 3"):
        subprocess_export.export(OPTIONS, tmp_path / "x.srd", lambda _: None)
    assert not (tmp_path / "x.srd").exists()


def test_a_defect_names_its_last_line(worker: Path, tmp_path: Path) -> None:
    worker.write_text("raise ZeroDivisionError('oops')")
    with pytest.raises(ExportError, match="while starting: ZeroDivisionError: oops"):
        subprocess_export.export(OPTIONS, tmp_path / "x.srd", lambda _: None)


def test_errors_keep_their_class(worker: Path, tmp_path: Path) -> None:
    worker.write_text(
        "import json, sys\n"
        "print(json.dumps({'error': 'CheckpointError', 'text': 'no generator'}), flush=True)\n"
        "sys.exit(1)"
    )
    with pytest.raises(CheckpointError, match="no generator"):
        subprocess_export.export(OPTIONS, tmp_path / "x.srd", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["worker.py"]
