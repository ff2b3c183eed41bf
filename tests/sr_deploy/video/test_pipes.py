from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_deploy.errors import InvalidInputError, VideoError

av = pytest.importorskip("av")
from sr_deploy.video.color import FULL, Color  # noqa: E402
from sr_deploy.video.pipes import (  # noqa: E402
    PipeFormat,
    PipeReader,
    PipeWriter,
)


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def passed_through(stream: bytes, shape: PipeFormat | None = None) -> tuple[bytes, PipeReader]:
    """Return what a writer makes of what a reader reads."""
    reader = PipeReader(io.BytesIO(stream), shape)
    out = io.BytesIO()
    writer = PipeWriter(out, reader.format)
    for frame in reader.frames():
        writer.write(frame)
    return out.getvalue(), reader


@pytest.mark.parametrize(
    ("token", "pixel_format", "size"),
    [
        ("420jpeg", "yuv420p", 7 * 5 + 2 * 4 * 3),
        ("420p10", "yuv420p10le", 2 * (7 * 5 + 2 * 4 * 3)),
        ("422", "yuv422p", 7 * 5 + 2 * 4 * 5),
        ("444", "yuv444p", 3 * 7 * 5),
        ("444p12", "yuv444p12le", 6 * 7 * 5),
        ("mono", "gray", 7 * 5),
        ("444alpha", "yuva444p", 4 * 7 * 5),
    ],
)
def test_y4m_comes_out_as_it_went_in(token: str, pixel_format: str, size: int) -> None:
    """Of odd sizes, too, where FFmpeg pads its rows."""
    head = f"YUV4MPEG2 W7 H5 F30000:1001 Ip A1:1 C{token} XCOLORRANGE=FULL\n".encode()
    stream = head + b"".join(b"FRAME\n" + noise(size, seed) for seed in range(3))
    out, reader = passed_through(stream)
    assert out == stream
    assert reader.format.pixel_format == pixel_format
    assert reader.format.rate == Fraction(30000, 1001)
    assert reader.format.color.range == FULL
    assert reader.damage == ()


@pytest.mark.parametrize(
    "name", ["rgb24", "bgra", "rgb0", "yuyv422", "rgb48le", "nv12", "p010le", "yuv420p", "gray"]
)
def test_raw_frames_come_out_as_they_went_in(name: str) -> None:
    shape = PipeFormat.parse_raw(f"8x6:{name}@24000/1001")
    bits = av.VideoFormat(name, 8, 6).padded_bits_per_pixel
    stream = noise(8 * 6 * bits // 8 * 3)
    out, reader = passed_through(stream, shape)
    assert out == stream
    assert shape.rate == Fraction(24000, 1001)
    assert reader.damage == ()


def test_frames_are_timed_by_their_number() -> None:
    reader = PipeReader(io.BytesIO(noise(3 * 12)), PipeFormat.parse_raw("4x3:gray@50"))
    times = [(frame.pts, frame.time, frame.duration) for frame in reader.frames()]
    assert times == [(0, 0.0, 1), (1, 0.02, 1), (2, 0.04, 1)]


def test_planes_are_where_they_belong() -> None:
    stream = b"YUV4MPEG2 W4 H2 C444\nFRAME\n" + bytes(range(24))
    (frame,) = PipeReader(io.BytesIO(stream)).frames()
    planes: NDArray[Any] = frame.to_ndarray()
    assert planes.tolist() == np.arange(24).reshape(3, 2, 4).tolist()


def test_parameters_of_a_frame_are_skipped() -> None:
    stream = b"YUV4MPEG2 W2 H1 Cmono\nFRAME Ip XABC=1\nab"
    assert [bytes(f.planes[0])[:2] for f in PipeReader(io.BytesIO(stream)).frames()] == [b"ab"]


def test_the_header_of_upscaled_frames_has_their_size() -> None:
    reader = PipeReader(io.BytesIO(b"YUV4MPEG2 W4 H2 F25:1 Ip A1:1 C420jpeg\n"))
    out = io.BytesIO()
    PipeWriter(out, reader.format.upscaled(2))
    assert out.getvalue() == b"YUV4MPEG2 W8 H4 F25:1 Ip A1:1 C420jpeg\n"


def test_frames_of_a_file_get_a_header() -> None:
    shape = PipeFormat(4, 2, "yuv420p10le", Fraction(24), Color(range=1))
    assert shape.as_y4m(Fraction(8, 9)).header == (
        "F24:1",
        "Ip",
        "C420p10",
        "A8:9",
        "XCOLORRANGE=LIMITED",
    )
    with pytest.raises(InvalidInputError, match=r"rgb24.*yuv420p.*--pixel-format"):
        PipeFormat(4, 2, "rgb24").as_y4m(None)


@pytest.mark.parametrize("lost", [1, 7, 11])
def test_a_truncated_last_frame_is_dropped_and_reported(lost: int) -> None:
    whole = b"YUV4MPEG2 W4 H3 Cmono\nFRAME\n" + noise(12) + b"FRAME\n" + noise(12)
    for stream, shape in [(whole, None), (noise(24), PipeFormat.parse_raw("4x3:gray"))]:
        reader = PipeReader(io.BytesIO(stream[:-lost]), shape)
        assert len(list(reader.frames())) == 1
        (said,) = reader.damage
        assert f"{12 - lost} of 12 bytes" in said


def test_noise_between_frames_ends_the_stream_and_is_reported() -> None:
    stream = b"YUV4MPEG2 W2 H1 Cmono\nFRAME\nab" + b"noise\n" * 3
    reader = PipeReader(io.BytesIO(stream))
    assert len(list(reader.frames())) == 1
    (said,) = reader.damage
    assert "noise" in said


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"", "empty"),
        (b"\x00\x01\x02" * 5000, "--raw WIDTHxHEIGHT:FORMAT"),
        (b"YUV4MPEG2 H2 C444\n", "H2"),
        (b"YUV4MPEG2 Wx H2 C444\n", "Wx"),
        (b"YUV4MPEG2 W2 H2 F1:0\n", "F1:0"),
        (b"YUV4MPEG2 W2 H2 F1e999999999\n", "F1e9"),
        (b"YUV4MPEG2 W2 H2 F99999999999999999999:1\n", "F9999"),
        (b"YUV4MPEG2 W0 H2 C444\n", "0x2"),
        (b"YUV4MPEG2 W65536 H65536 C444\n", str(3 << 32)),
        (b"YUV4MPEG2 W2 H2 C999\n", "'999'.*420"),
        (b"YUV4MPEG2 W2 H2 It C444\n", "bwdif"),
    ],
)
def test_bad_headers_are_refused(stream: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        PipeReader(io.BytesIO(stream))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("480x270", "480x270:yuv420p"),
        ("480x270:nosuch", "nosuch"),
        ("0x270:gray", "0x270"),
        ("99999x270:gray", "99999x270"),
    ],
)
def test_wrong_raw_formats_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        PipeFormat.parse_raw(text)


@pytest.mark.parametrize(
    "header",
    [
        b"W4 H2 F99999999999999999999:1 Cmono",
        b"W4 H2 F1:99999999999999999999 Cmono",
        b"W99999999999999999999 H2 Cmono",
        b"W4 H2 F-25:1 Cmono",
        b"W4 H-2 Cmono",
        b"W" + b"9" * 4000,
    ],
)
def test_hostile_numbers_in_a_header_are_one_line(header: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        PipeReader(io.BytesIO(b"YUV4MPEG2 " + header + b"\nFRAME\n" + bytes(8)))
    assert "\n" not in str(caught.value)


def test_any_bytes_of_a_header_go_through() -> None:
    stream = b"YUV4MPEG2 W2 H1 Cmono XA=\xe9\xff\nFRAME\nab"
    assert passed_through(stream)[0] == stream


@pytest.mark.parametrize(
    "text", ["8x6:gray@1/0", "8x6:gray@0", "8x6:pal8", "8x6:cuda", f"8x6:gray@{10**20}", "9" * 5000]
)
def test_raw_formats_without_plain_samples_or_a_rate_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        PipeFormat.parse_raw(text)


def test_a_closed_output_pipe_is_reported() -> None:
    class Gone(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    (frame,) = PipeReader(io.BytesIO(b"ab"), PipeFormat.parse_raw("2x1:gray")).frames()
    with pytest.raises(VideoError, match="program"):
        PipeWriter(Gone(), PipeFormat.parse_raw("2x1:gray")).write(frame)


def test_a_pipe_may_bring_frames_in_pieces() -> None:
    whole = b"YUV4MPEG2 W4 H3 Cmono\n" + (b"FRAME\n" + noise(12)) * 2

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 5))

    make: Callable[[bytes], io.BytesIO] = Slow
    assert len(list(PipeReader(make(whole)).frames())) == 2
