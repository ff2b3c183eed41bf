"""A whole video goes through, frame by frame or overlapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_bench import forms, video

pytest.importorskip("av")


class Doubling:
    """Repeats pixels; remembers how often it was asked in which way."""

    def __init__(self, *, overlaps: bool) -> None:
        self.overlaps = overlaps
        self.calls = self.streams = 0

    def upscale(self, frames: NDArray[Any]) -> NDArray[Any]:
        self.calls += 1
        return frames.repeat(2, 1).repeat(2, 2)

    def through(self, frames: Iterator[Any]) -> Iterator[Any] | None:
        return self._stream(frames) if self.overlaps else None

    def _stream(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            self.streams += 1
            yield frame.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("overlaps", [True, False])
def test_frames_are_decoded_upscaled_and_encoded(overlaps: bool) -> None:
    opened = Doubling(overlaps=overlaps)
    whole = video.prepared(opened, forms.inputs(64, 48, 3, 1))
    assert whole is not None
    samples = whole.turn(0.0)
    assert len(samples) == 2  # three frames, from one's end to the next one's
    assert min(samples) > 0
    assert (opened.calls, opened.streams) == ((0, 3) if overlaps else (3, 0))


def test_a_clip_is_gone_through_again_and_again() -> None:
    opened = Doubling(overlaps=False)
    whole = video.prepared(opened, forms.inputs(32, 32, 3, 1)[:2])
    assert whole is not None
    assert len(whole.turn(0.0)) == 2  # of a clip of two frames, the first came twice


def test_stages_are_those_of_a_video() -> None:
    opened = Doubling(overlaps=True)
    whole = video.prepared(opened, forms.inputs(64, 48, 3, 1))
    assert whole is not None
    stages = whole.stages()
    assert list(stages) == ["decode", "upscale", "encode"]
    assert all(each > 0 for each in stages.values())
    assert (opened.calls, opened.streams) == (24, 0)  # one after the other, all of the clip


@pytest.mark.parametrize(("width", "height", "channels"), [(63, 48, 3), (64, 47, 3), (64, 48, 1)])
def test_frames_that_are_no_videos_are_left_out(width: int, height: int, channels: int) -> None:
    batches = np.zeros((4, 1, height, width, channels), np.uint8)
    assert video.prepared(Doubling(overlaps=False), batches) is None
