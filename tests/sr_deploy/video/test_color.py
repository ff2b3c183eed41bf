from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
from sr_deploy.errors import InvalidInputError  # noqa: E402
from sr_deploy.video.color import (  # noqa: E402
    BT709,
    BT2020,
    FULL,
    LIMITED,
    SMPTE170M,
    YCGCO,
    Color,
    Levels,
)
from sr_deploy.video.source import VideoSource  # noqa: E402
from tests.sr_deploy.video.clips import Clip, Tags  # noqa: E402


def test_red_in_bt709() -> None:
    """Its numbers in the standard: Y 63, Cb 102, Cr 240 in eight bits of limited range."""
    levels = Levels.of(8, LIMITED)
    found = np.linalg.inv(Color(BT709).yuv_to_rgb()) @ [1.0, 0.0, 0.0]
    offsets = np.array([levels.black, levels.neutral, levels.neutral])
    scaled = found * [levels.span, levels.chroma_span, levels.chroma_span] + offsets
    assert np.rint(scaled).tolist() == [63, 102, 240]


@pytest.mark.parametrize("matrix", [BT709, 4, 5, SMPTE170M, 7, YCGCO, BT2020, 10])
def test_gray_stays_gray_in_every_matrix(matrix: int) -> None:
    np.testing.assert_allclose(Color(matrix).yuv_to_rgb() @ [0.3, 0.0, 0.0], 0.3)


def test_a_nonlinear_matrix_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="14"):
        Color(14).yuv_to_rgb()


@pytest.mark.parametrize(
    ("pixel_format", "size", "matrix", "range_"),
    [
        ("yuv420p", (720, 576), SMPTE170M, LIMITED),
        ("yuv420p", (1280, 544), BT709, LIMITED),
        ("yuv420p", (960, 720), BT709, LIMITED),
        ("gray", (100, 100), SMPTE170M, FULL),
    ],
)
def test_missing_tags_get_the_defaults_of_players(
    pixel_format: str, size: tuple[int, int], matrix: int, range_: int
) -> None:
    assert Color().resolved(pixel_format, *size) == Color(matrix, range_)


def test_existing_tags_are_kept() -> None:
    said = Color(BT2020, FULL, 9, 16)
    assert said.resolved("yuv420p", 100, 100) == said
    assert said.resized("yuv420p", (100, 100), (4000, 2000)) == said


def test_a_missing_matrix_is_set_if_players_would_assume_another_for_the_new_size() -> None:
    assert Color().resized("yuv420p", (720, 480), (960, 540)) == Color()
    assert Color().resized("yuv420p", (720, 480), (1440, 960)) == Color(SMPTE170M)
    assert Color().resized("yuv420p", (1920, 1080), (640, 360)) == Color(BT709)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (Tags(), Color()),
        (Tags(1, 1, 1, 1), Color(1, 1, 1, 1)),
        (Tags(9, 1, 9, 18), Color(9, 1, 9, 18)),
        (Tags(6, 2, 6, 6), Color(6, 2, 6, 6)),
    ],
)
def test_tags_come_from_the_file(tmp_path: Path, tags: Tags, expected: Color) -> None:
    with VideoSource(Clip(count=2, tags=tags).write(tmp_path / "a.mp4")) as source:
        assert source.info.color == expected


def test_tags_are_set_on_an_encoder_unchanged() -> None:
    context: Any = av.CodecContext.create("libx264", "w")
    Color(9, 0, 2, 16).apply_to(context)
    found = context.colorspace, context.color_range, context.color_primaries, context.color_trc
    assert found == (9, 0, 2, 16)
