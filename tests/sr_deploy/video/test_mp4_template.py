from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import pytest

from sr_deploy.errors import InvalidInputError
from sr_deploy.video import mp4_template
from sr_deploy.video.hdr import Hdr, Mastering
from sr_deploy.video.mp4_template import Description

POINT = (Fraction(1, 3), Fraction(1, 4))
WHOLE = Mastering(POINT, POINT, POINT, POINT, Fraction(1, 1000), Fraction(1000))


@pytest.mark.parametrize("codec", mp4_template.CODECS)
def test_ffmpeg_reads_the_codec(codec: str) -> None:
    with av.open(io.BytesIO(Description(codec).to_mp4())) as container:
        (stream,) = container.streams.video
        assert stream.codec_context.codec.canonical_name == codec


def test_a_codec_that_is_unknown() -> None:
    with pytest.raises(InvalidInputError, match=r"theora; choose an encoder of h264"):
        Description("theora").to_mp4()


def test_a_mastering_display_is_rounded_to_what_mp4_can_say() -> None:
    data = Description("hevc", hdr=Hdr(WHOLE, (4000, 65535))).to_mp4()
    place = data.index(b"mdcv") + 4
    assert struct.unpack_from(">8H2I", data, place) == (*(16667, 12500) * 4, 10000000, 10)
    assert struct.unpack_from(">2H", data, data.index(b"clli") + 4) == (4000, 65535)


def test_a_part_of_a_mastering_display_is_not_made_up() -> None:
    part = Mastering(None, None, None, None, Fraction(1, 1000), Fraction(1000))
    assert b"mdcv" not in Description("hevc", hdr=Hdr(part, None)).to_mp4()
