"""Kills and full disks during an export: the old bundle stays, a re-run gives the same networks."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands import command, contents, ended, fails_with_one_line, kill_at_random

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux has all of these faults"),
]
FAST = ("--precision", "fp32", "--overwrite", "--accept")


def test_kills_and_a_full_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1))
    network = nn.Sequential(*layers, nn.PixelShuffle(2))
    torch.save(network.state_dict(), tmp_path / "net.pth")
    target = tmp_path / "net.srd"
    arguments = (tmp_path / "net.pth", *FAST)

    begun = time.monotonic()
    done = ended("sr-export", *arguments, timeout=300)
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - begun
    before = contents(target)

    noise = random.Random(17)
    for _ in range(2):
        line = command("sr-export", *arguments)
        kill_at_random(
            lambda line=line: subprocess.Popen(  # type: ignore[misc]
                line, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ),
            seconds,
            noise,
        )
        after = contents(target)  # the old bundle, or the new one
        assert after.keys() == before.keys()
        assert _networks(after) == _networks(before)

    done = ended("sr-export", *arguments, timeout=300, preexec_fn=_small_files)
    fails_with_one_line(done, "sr-export")
    assert _networks(contents(target)) == _networks(before)

    done = ended("sr-export", *arguments, timeout=300)
    assert done.returncode == 0, done.stderr
    assert _networks(contents(target)) == _networks(before)
    assert {path.name for path in tmp_path.iterdir()} == {"net.pth", "net.srd"}


def _networks(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".onnx")}


def _small_files() -> None:
    """Let no file grow beyond 4 KiB: to a program this is a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 10, 4 << 10))
