"""Other runtimes are asked, and what they compute worse is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import backends
from sr_deploy.bundle.manifest import Quality, Variant
from sr_deploy.errors import BackendError
from sr_export import photos
from sr_export.quantize import backend_check
from sr_export.quantize.backend_check import check_backends
from sr_export.report import Scene

LOW = photos.batch(1, 24, 32, 3)[0]
SCENES = [Scene("a", LOW, {"fp32": LOW}, None)]
QUALITY = Quality(46.0, 0.99, 5, None, 1)
VARIANTS = (
    Variant("fp32.onnx", "0", "fp32", "rgb24"),
    Variant("int8.onnx", "1", "int8", "rgb24", QUALITY),
)
BUDGETS = {"int8": 45.0}


class _Engine:
    """Gives back what it gets, off by some levels; or does not open."""

    opened: list[tuple[str, str]]
    levels: int | None

    def __init__(self, folder: Path, *, backend: str, precision: str, build: str) -> None:
        assert build == "never", "to look at a bundle builds nothing"
        self.opened.append((backend, precision))
        if self.levels is None:
            raise BackendError("no")

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def upscale(self, image: np.ndarray) -> np.ndarray:
        assert self.levels is not None
        return np.where(image < 128, image + self.levels, image - self.levels).astype(np.uint8)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[_Engine]:
    class Fresh(_Engine):
        opened = []  # noqa: RUF012  one list for each test
        levels = 0

    monkeypatch.setattr(backend_check, "Engine", Fresh)
    monkeypatch.setattr(backends, "available", lambda: ("openvino", "onnxruntime"))
    return Fresh


def _confirmed() -> dict[str, dict[str, str]]:
    found = check_backends(Path("x.srd"), VARIANTS, SCENES, BUDGETS)
    return {each.precision: each.unfit for each in found}


def test_what_is_as_measured_is_left_alone(engine: Any) -> None:
    assert _confirmed() == {"fp32": {}, "int8": {}}
    # Neither FP32, the measure, nor the runtime that measured.
    assert engine.opened == [("openvino", "int8")]


def test_what_is_worse_is_noted(engine: Any) -> None:
    engine.levels = 8  # 30.1 dB
    text = "30.1 dB against FP32, below the budget of 45 dB"
    assert _confirmed() == {"fp32": {}, "int8": {"openvino": text}}


def test_other_roundings_are_let_pass(engine: Any) -> None:
    """One level everywhere is 48.1 dB; two are 42.1, below 45 and a decibel of leeway."""
    engine.levels = 1
    assert _confirmed()["int8"] == {}
    engine.levels = 2
    assert "openvino" in _confirmed()["int8"]


def test_what_does_not_run_here_says_nothing(engine: Any) -> None:
    engine.levels = None
    assert _confirmed() == {"fp32": {}, "int8": {}}
