"""The INT8 record of a checkpoint is used unchanged, or refused with the facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint import int8_record, load
from sr_export.checkpoint.int8_record import Trained

TENSORS = {"conv.weight": torch.rand(8, 3, 3, 3), "conv.bias": torch.rand(8)}
GOOD = {"threshold": 1.0, "axis": 0, "scales": torch.full((8,), 2.0**-6)}


def test_a_checkpoint_without_a_record_has_none(tmp_path: Path) -> None:
    for content in ({"params": TENSORS}, [TENSORS]):
        torch.save(content, tmp_path / "x.pth")
        found = load.read(tmp_path / "x.pth")
        assert isinstance(found, load.Weights)
        assert found.trained == {}
        assert torch.equal(found.tensors["conv.weight"], TENSORS["conv.weight"])


def test_a_record_round_trips() -> None:
    record = int8_record.record({"conv.weight": Trained(1.5, 1, torch.full((3,), 2.0**-7), True)})
    found = int8_record.read(record, TENSORS)["conv.weight"]
    assert (found.threshold, found.axis, found.scales.tolist()) == (1.5, 1, 3 * [2.0**-7])
    assert found.centred
    assert found.broadcast(4).shape == (1, 3, 1, 1)


def test_centred_defaults_to_false() -> None:
    assert not int8_record.read({"conv.weight": GOOD}, TENSORS)["conv.weight"].centred


def test_scales_are_rounded_to_half_precision() -> None:
    record = {"conv.weight": GOOD | {"scales": torch.full((8,), 0.01)}}
    found = int8_record.read(record, TENSORS)["conv.weight"].scales
    assert torch.equal(found, found.half().float())
    assert (found - 0.01).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ([], "a list"),
        ({}, "a dict"),
        (True, "True"),
        ({"other.weight": GOOD}, "'other.weight'.* 2 "),
        ({7: GOOD}, " 7[ ,]"),
        ({"conv.bias": GOOD}, "'conv.bias'"),
        ({"conv.weight": 1.0}, "1.0 .*'conv.weight'"),
        ({"conv.weight": {"threshold": 1.0, "axis": 0}}, "a dict .*'conv.weight'"),
        ({"conv.weight": GOOD | {"more": 1}}, "a dict .*'conv.weight'"),
        ({"conv.weight": GOOD | {"threshold": float("nan")}}, "threshold nan"),
        ({"conv.weight": GOOD | {"threshold": float("inf")}}, "threshold inf"),
        ({"conv.weight": GOOD | {"threshold": 0}}, "threshold 0 "),
        ({"conv.weight": GOOD | {"threshold": -1.0}}, "threshold -1.0"),
        ({"conv.weight": GOOD | {"threshold": 1e9}}, "65504"),
        ({"conv.weight": GOOD | {"threshold": torch.ones(1)}}, "threshold a tensor of"),
        ({"conv.weight": GOOD | {"axis": 2}}, "axis 2 "),
        ({"conv.weight": GOOD | {"axis": True}}, "axis True"),
        ({"conv.weight": GOOD | {"axis": "0" * 999}}, "axis '0000"),
        ({"conv.weight": GOOD | {"axis": 1}}, r"\(8,\) .*\b3 "),
        ({"conv.weight": GOOD | {"centred": 1}}, "centred.*1"),
        ({"conv.weight": GOOD | {"centred": True, "threshold": 0.4}}, "at 0.4 "),
        ({"conv.weight": GOOD | {"scales": 1.0}}, "1.0 .*'conv.weight'"),
        ({"conv.weight": GOOD | {"scales": torch.zeros(8)}}, "scales .*conv.weight"),
        ({"conv.weight": GOOD | {"scales": torch.full((8,), 1e6)}}, "scales .*conv.weight"),
        ({"conv.weight": GOOD | {"scales": torch.full((8,), torch.nan)}}, "scales .*conv.weight"),
    ],
)
def test_a_malformed_record_is_refused(record: Any, text: str) -> None:
    with pytest.raises(CheckpointError, match=text) as caught:
        int8_record.read(record, TENSORS)
    assert len(str(caught.value)) < 300


def test_weights_are_read_on_their_int8_levels(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"params": TENSORS, int8_record.KEY: {"conv.weight": GOOD}}, path)
    content = load.read(path)
    assert isinstance(content, load.Weights)
    assert content.trained.keys() == {"conv.weight"}
    assert content.taken == "params (of params, int8)"  # the scales are not a network
    assert torch.equal(content.tensors["conv.bias"], TENSORS["conv.bias"])
    levels = content.tensors["conv.weight"] * 2**6
    assert torch.equal(levels, levels.round())
    assert 0 < (content.tensors["conv.weight"] - TENSORS["conv.weight"]).abs().max() <= 2**-7
