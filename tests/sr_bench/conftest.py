"""A tiny network and its bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sr_export.cli import main as sr_export
from sr_export.models import registry  # noqa: F401  first, since it sees to spandrel's import

from spandrel.architectures.Compact import Compact  # isort: skip


@dataclass(frozen=True)
class Tiny:
    checkpoint: Path
    bundle: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A random Compact x2 and its bundle."""
    folder = tmp_path_factory.mktemp("tiny")
    found = Tiny(folder / "tiny.pth", folder / "tiny.srd")
    torch.manual_seed(0)
    network = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=1, upscale=2)
    torch.save({"params": network.state_dict()}, found.checkpoint)
    assert sr_export([str(found.checkpoint), "--precision", "bf16"]) == 0
    return found
