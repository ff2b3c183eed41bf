from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from sr_deploy.video.display import matrix_of, scaled
from tests.sr_deploy.video import clips
from tests.sr_deploy.video.films import Film


def test_an_upright_picture_has_no_matrix(tmp_path: Path) -> None:
    path = Film(clip=clips.Clip(count=2)).write(tmp_path / "a.mp4")
    assert matrix_of(path, 0) is None


def test_a_video_without_a_picture_has_no_matrix(tmp_path: Path) -> None:
    path = Film(clip=clips.Clip(count=2)).write(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    place = data.index(b"mdat") + 4
    data[place : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - place)
    path.write_bytes(data)
    assert matrix_of(path, 0) is None


def test_only_the_shift_is_scaled() -> None:
    matrix = (0, 1, 2, 3, 4, 5, 10, -20, 1 << 30)
    assert scaled(matrix, Fraction(3, 2)) == (0, 1, 2, 3, 4, 5, 15, -30, 1 << 30)
