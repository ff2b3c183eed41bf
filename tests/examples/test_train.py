"""The example networks are known by their weights, and training gives them real ones."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sr_export.checkpoint import Weights, read
from sr_export.network import recognise
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
NAMES = {"Compact": "Compact", "SrResNet": "SRResNet", "RrdbNet": "ESRGAN"}


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kind", NAMES)
def test_the_exporter_rebuilds_the_very_same_network(kind: str, scale: int) -> None:
    torch.manual_seed(0)
    network = runpy.run_path(str(EXAMPLES / "networks.py"))[kind](scale)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as training leaves them: not 0 and 1
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    found = recognise([network.state_dict()])
    image = torch.rand(1, 3, 12, 17)
    with torch.inference_mode():
        wanted, got = network.eval()(image), found.module(image)
    assert (found.architecture, found.scale) == (NAMES[kind], scale)
    # The same operations in float32; only their order within a sum may differ.
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_training_leaves_real_statistics_in_both_copies(tmp_path: Path) -> None:
    output = tmp_path / "srresnet.pth"
    options = ["--network", "srresnet", "--scale", "2", "--steps", "2", "--threads", "1"]
    subprocess.run(
        [sys.executable, EXAMPLES / "train.py", *options, "--output", output],
        check=True,
        capture_output=True,
        timeout=300,
    )
    averaged, last = read(output), read(output, ema=False)
    assert isinstance(averaged, Weights)
    assert isinstance(last, Weights)
    assert averaged.taken.startswith("params_ema")
    for weights in (averaged.tensors, last.tensors):
        assert int(weights["conv2.1.num_batches_tracked"]) == 2
        assert float(weights["conv2.1.running_mean"].abs().max()) > 0.0
    # The average still remembers the weights that training began with.
    assert not torch.equal(averaged.tensors["conv3.weight"], last.tensors["conv3.weight"])


def test_a_missing_folder_is_told_before_the_training(tmp_path: Path) -> None:
    output = tmp_path / "nowhere" / "x.pth"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "train.py", "--output", output],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "no folder" in done.stderr
