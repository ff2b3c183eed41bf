from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import pytest

from sr_deploy.errors import InvalidInputError
from sr_deploy.video import mp4_template
from sr_deploy.video.color import HdrMetadata, MasteringDisplay
from sr_deploy.video.mp4_template import Mp4Template, scaled_matrix

POINT = (Fraction(1, 3), Fraction(1, 4))
WHOLE = MasteringDisplay(POINT, POINT, POINT, POINT, Fraction(1, 1000), Fraction(1000))


@pytest.mark.parametrize("codec", mp4_template.CODECS)
def test_ffmpeg_reads_the_codec(codec: str) -> None:
    with av.open(io.BytesIO(Mp4Template(codec).to_mp4())) as container:
        (stream,) = container.streams.video
        assert stream.codec_context.codec.canonical_name == codec


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"theora.*h264"):
        Mp4Template("theora").to_mp4()


def test_a_mastering_display_is_rounded_to_the_units_of_mp4() -> None:
    data = Mp4Template("hevc", hdr=HdrMetadata(WHOLE, (4000, 65535))).to_mp4()
    place = data.index(b"mdcv") + 4
    assert struct.unpack_from(">8H2I", data, place) == (*(16667, 12500) * 4, 10000000, 10)
    assert struct.unpack_from(">2H", data, data.index(b"clli") + 4) == (4000, 65535)


def test_an_incomplete_mastering_display_is_left_out() -> None:
    part = MasteringDisplay(None, None, None, None, Fraction(1, 1000), Fraction(1000))
    assert b"mdcv" not in Mp4Template("hevc", hdr=HdrMetadata(part, None)).to_mp4()


def test_only_the_shift_of_a_matrix_is_scaled() -> None:
    matrix = (0, 1, 2, 3, 4, 5, 10, -20, 1 << 30)
    assert scaled_matrix(matrix, Fraction(3, 2)) == (0, 1, 2, 3, 4, 5, 15, -30, 1 << 30)
