"""Upscaling of frames: conversion to the engine's input, and changes of size midway."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
from sr_deploy import Engine  # noqa: E402
from sr_deploy.runtime.yuv import YuvFrame  # noqa: E402
from sr_deploy.video.color import BT470BG, BT709, BT2020, FULL, LIMITED, Color  # noqa: E402
from sr_deploy.video.transcode import ColorSpec, StageMeter, upscaled  # noqa: E402
from tests.sr_deploy import networks  # noqa: E402
from tests.sr_deploy.runtime.test_yuv import repeating_net  # noqa: E402
from tests.sr_deploy.video import clips  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an identity, also for frames of 10 bits."""
    folder = tmp_path_factory.mktemp("bundles") / "ten.srd"
    return networks.bundle(folder, repeating_net, ("rgb24", "rgb48", "p010"), scale=1)


class Spy:
    """An engine that records the kinds of its inputs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.spec, self.takes = engine.spec, engine.takes
        self.kinds: list[str] = []

    def stream(self, frames: Any, **how: Any) -> Any:
        def noted() -> Iterator[Any]:
            for pixels, tag in frames:
                deep = isinstance(pixels, YuvFrame)
                self.kinds.append(pixels.pixel_format if deep else str(pixels.dtype))
                yield pixels, tag

        return self._engine.stream(noted(), **how)


def through(
    bundle: Path, frames: list[Any], color: Color, pixel_format: str
) -> tuple[list[Any], list[str]]:
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, Fraction(1, 25)
    with Engine(bundle) as engine:
        spy: Any = Spy(engine)
        look = ColorSpec(color, color, pixel_format)
        return list(upscaled(spy, frames, look, StageMeter())), spy.kinds


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "p010le"])
@pytest.mark.parametrize("matrix", [BT470BG, BT709, BT2020])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_10_bit_frames_are_not_converted_to_rgb(
    bundle: Path, pixel_format: str, matrix: int, color_range: int
) -> None:
    """An identity returns them exactly: nothing is rounded."""
    frames = [clips.picture(pixel_format, 34, 18, number) for number in range(3)]
    found, kinds = through(bundle, frames, Color(matrix, color_range), pixel_format)
    assert kinds == ["p010"] * 3
    for before, after in zip(frames, found, strict=True):
        assert after.format.name == pixel_format
        for one, other in zip(clips.planes(before), clips.planes(after), strict=True):
            assert (one == other).all()


@pytest.mark.parametrize(
    ("pixel_format", "size", "wanted", "kind"),
    [
        ("yuv420p10le", (34, 18), "yuv422p10le", "uint16"),
        ("yuv420p10le", (33, 18), "yuv420p10le", "uint16"),
        ("yuv444p10le", (34, 18), "yuv444p10le", "uint16"),
        ("yuv420p", (34, 18), "yuv420p", "uint8"),
    ],
)
def test_other_formats_become_rgb(
    bundle: Path, pixel_format: str, size: tuple[int, int], wanted: str, kind: str
) -> None:
    found, kinds = through(bundle, [clips.picture(pixel_format, *size)], Color(BT709), wanted)
    assert kinds == [kind]
    assert found[0].format.name == wanted


def test_a_change_of_size_midway_warns_once_and_all_results_have_one_size(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [clips.picture("yuv420p", 32, 16), clips.picture("yuv420p", 48, 16)]
    frames += [clips.picture("yuv444p", 32, 16), clips.picture("yuv420p", 32, 16)]
    with caplog.at_level(logging.WARNING):
        found, _ = through(bundle, frames, Color(BT709), "yuv420p")
    assert [(each.width, each.height, each.format.name) for each in found] == [
        (32, 16, "yuv420p")
    ] * 4
    assert [each.pts for each in found] == [0, 1, 2, 3]
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 1
    assert all(each in said[0] for each in ("0.040 s", "48x16", "32x16", "yuv420p"))


def test_the_bottleneck_is_found() -> None:
    meter = StageMeter()
    assert meter.slowest() == "network"
    meter.reading = 1e6
    assert meter.slowest() == "reading"
    meter.writing = 1e6
    assert meter.slowest() == "writing"


def test_times_come_back_with_their_frames(bundle: Path) -> None:
    frames = [clips.picture("yuv420p", 16, 16, number) for number in range(20)]
    found, _ = through(bundle, frames, Color(BT709), "yuv420p")
    assert [each.pts for each in found] == list(range(20))
    for before, after in zip(frames, found, strict=True):
        pairs = zip(clips.planes(before), clips.planes(after), strict=True)
        assert max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs) <= 1
