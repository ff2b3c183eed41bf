"""The commands and programs of docs/training.md run from top to bottom, with fewer steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sr_deploy import images
from sr_deploy.bundle.bundle import Bundle
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "training.md"
SHORTER = {
    "--steps 2000 --adversarial-steps 1000": "--steps 6 --adversarial-steps 2 --features 8"
    " --blocks 1 --patch 12 --batch 2 --threads 1",
    # Other tests check INT8; a bundle with two precisions is enough here.
    "--calibration photos/edges": "--calibration photos/edges --precision fp16",
    "--arch-file mine.py:Mine": "--arch-file mine.py:Mine --precision fp16",
}
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str]]:
    text = PAGE.read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    return BLOCK.findall(text)


@pytest.mark.slow
def test_all_commands_and_programs_run(tmp_path: Path) -> None:
    if not (Path(sys.executable).parent / "sr-export").exists():
        pytest.skip("the commands are not installed beside this Python")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for kind, text in steps():
        if kind == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            ["sh", "-ec", text],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    for name in ("big.png", "large.png"):
        header = images.inspect(tmp_path / name)
        assert (header.width, header.height) == (4 * 225, 4 * 150)
    trained, own = (Bundle.open(tmp_path / name).manifest for name in ("srgan.srd", "mine.srd"))
    assert (trained.model.architecture, trained.model.scale) == ("SRResNet", 4)
    assert "generator_ema" in trained.source.taken
    assert own.model.scale == 2
