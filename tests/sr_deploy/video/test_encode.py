from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
from sr_deploy.errors import InvalidInputError  # noqa: E402
from sr_deploy.video.color import FULL, LIMITED, RGB, Color, HdrMetadata, MasteringDisplay  # noqa: E402  # noqa: E402
from sr_deploy.video.encode import Encoder, EncoderOptions, EncoderSettings, choose  # noqa: E402
from sr_deploy.video.segments import EncodedPacket  # noqa: E402
from sr_deploy.video.source import VideoInfo  # noqa: E402
from tests.sr_deploy.video import clips  # noqa: E402

SOFTWARE = ["libx264", "libx265", "libsvtav1", "prores_ks", "ffv1", "libvpx-vp9"]
PLACES = [Fraction(number, 50000) for number in (34000, 16000, 13250, 34500, 7500, 3000, 15635)]
SCREEN = MasteringDisplay(
    *((PLACES[0], PLACES[1]), (PLACES[2], PLACES[3]), (PLACES[4], PLACES[5])),
    (PLACES[6], Fraction(16450, 50000)),
    Fraction(5, 1000),
    Fraction(1000),
)
HDR = HdrMetadata(SCREEN, (1000, 400))


def info(**changes: Any) -> VideoInfo:
    base = VideoInfo(
        width=64,
        height=48,
        stream=0,
        codec="h264",
        container="matroska,webm",
        pixel_format="yuv420p",
        bits=8,
        time_base=Fraction(1, 90000),
        rate=Fraction(25),
        aspect=None,
        color=Color(),
        hdr=None,
        display_matrix=None,
        interlaced=False,
        frames=None,
        duration=None,
    )
    return replace(base, **changes)


def chosen(
    container: str = ".mkv", size: tuple[int, int] = (64, 48), **arguments: Any
) -> EncoderSettings:
    options = {key: arguments.pop(key) for key in list(arguments) if key in OPTIONS}
    return choose(info(**arguments), size, container, EncoderOptions(**options), threads=2)


OPTIONS = ("encoder", "quality", "preset", "options")


def pictures(settings: EncoderSettings, times: list[int]) -> list[Any]:
    frames = []
    for number, time in enumerate(times):
        frame = clips.picture(settings.pixel_format, settings.width, settings.height, number)
        frame.pts, frame.time_base, frame.duration = time, settings.time_base, 10 + number
        frames.append(frame)
    return frames


def encoded(settings: EncoderSettings, times: list[int]) -> tuple[bytes, list[EncodedPacket]]:
    encoder = Encoder(settings)
    packets = [packet for frame in pictures(settings, times) for packet in encoder.encode(frame)]
    return encoder.extradata, [*packets, *encoder.encode(None)]


def written(path: Path, settings: EncoderSettings, times: list[int]) -> list[Any]:
    """Write packets into a file whose stream is configured alike, and decode it."""
    extradata, packets = encoded(settings, times)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(settings.encoder, rate=settings.rate)
        settings.configure(stream.codec_context)
        stream.time_base = settings.time_base
        container.start_encoding()
        assert (stream.codec_context.extradata or b"") == extradata
        for number, packet in enumerate(packets):
            out = av.Packet(packet.data)
            out.stream, out.time_base, out.is_keyframe = stream, settings.time_base, packet.keyframe
            out.pts, out.duration = packet.pts, packet.duration
            out.dts = sorted(times)[number] - 90000  # early enough for any order
            container.mux(out)
    return clips.decoded(path)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "container", "expected"),
    [
        ("h264", "yuv420p", ".mp4", "libx264"),
        ("h264", "yuv420p10le", ".mkv", "libx265"),
        ("mpeg2video", "yuv420p", ".mkv", "libx264"),
        ("hevc", "yuv420p", ".mp4", "libx265"),
        ("av1", "yuv420p10le", ".mkv", "libsvtav1"),
        ("vp9", "yuv420p", ".webm", "libsvtav1"),
        ("prores", "yuv422p10le", ".mov", "prores_ks"),
        ("ffv1", "yuv444p", ".mkv", "ffv1"),
        ("ffv1", "yuv420p", ".mp4", "libx264"),
    ],
)
def test_default_encoders(codec: str, pixel_format: str, container: str, expected: str) -> None:
    bits = 10 if "10" in pixel_format else 8
    found = chosen(container, codec=codec, pixel_format=pixel_format, bits=bits)
    assert (found.encoder, found.pixel_format, found.notes) == (expected, pixel_format, ())


@pytest.mark.parametrize(
    ("encoder", "source", "expected", "told"),
    [
        ("libx264", "yuvj420p", "yuv420p", ""),
        ("libx264", "nv12", "yuv420p", ""),
        ("libx265", "p010le", "yuv420p10le", ""),
        ("libx264", "yuv420p12le", None, "yuv420p12le.*yuv420p10le"),
        ("libx265", "yuv420p9le", "yuv420p10le", "without loss"),
        ("libx265", "gray", "yuv420p", "without loss"),
        ("libx264", "gray", "gray", ""),
        ("libx264", "yuv440p", "yuv444p", "without loss"),
        ("libx264", "rgb24", "yuv444p", "RGB"),
        ("libx265", "gbrp10le", "gbrp10le", ""),
        ("libx264", "yuva420p", "yuv420p", "alpha"),
        ("ffv1", "yuva420p", "yuva420p", ""),
        ("prores_ks", "yuv420p", "yuv422p10le", "without loss"),
        ("prores_ks", "yuva444p10le", "yuva444p10le", ""),
        ("libsvtav1", "yuv420p", "yuv420p", ""),
        ("libsvtav1", "yuv422p", None, "yuv422p.*yuv420p"),
        ("ffv1", "yuv420p16le", "yuv420p16le", ""),
    ],
)
def test_pixel_formats_lose_nothing(
    encoder: str, source: str, expected: str | None, told: str
) -> None:
    if expected is None:
        with pytest.raises(InvalidInputError, match=told):
            chosen(encoder=encoder, pixel_format=source)
        return
    found = chosen(encoder=encoder, pixel_format=source)
    assert found.pixel_format == expected
    assert told in "; ".join(found.notes)
    assert bool(told) == bool(found.notes)


def test_odd_sizes() -> None:
    found = chosen(size=(33, 21))
    assert (found.pixel_format, found.encoder) == ("yuv444p", "libx264")
    assert "33x21" in found.notes[0]
    assert chosen(size=(33, 21), encoder="ffv1").pixel_format == "yuv420p"
    assert chosen(size=(33, 21), encoder="av1").pixel_format == "yuv420p"
    with pytest.raises(InvalidInputError, match=r"yuv420p.*33x21"):
        choose(info(), (33, 21), ".mkv", EncoderOptions(pixel_format="yuv420p"))


def test_the_user_chooses_the_pixel_format() -> None:
    deep = info(bits=10, pixel_format="yuv420p10le")
    found = choose(deep, (64, 48), ".mkv", EncoderOptions("h264", pixel_format="yuv420p"))
    assert found.pixel_format == "yuv420p"
    with pytest.raises(InvalidInputError, match=r"yuv444p.*libsvtav1.*yuv420p10le"):
        choose(info(), (64, 48), ".mkv", EncoderOptions("av1", pixel_format="yuv444p"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "libnothing"}, "libnothing.*h264, hevc.*libx264"),
        ({"encoder": "aac"}, "aac"),
        ({"quality": 99}, r"99.*libx264.* 0 .* 51 .*18"),
        ({"preset": "swift"}, "swift.*ultrafast, superfast"),
        ({"encoder": "ffv1", "quality": 3}, "quality 3.*ffv1"),
        ({"encoder": "ffv1", "preset": "fast"}, "fast.*ffv1"),
        ({"encoder": "h264_nvenc", "preset": "fast"}, "fast.*p1, p2"),
        ({"options": {"profile": "nonsense"}}, "libx264.*64x48 yuv420p.*profile=nonsense"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        chosen(**options)


def test_quality_preset_and_options() -> None:
    found = chosen(encoder="hevc", quality=23.5, preset="slow", options={"x265-params": "psy-rd=1"})
    assert found.options["crf"] == "23.5"
    assert found.options["preset"] == "slow"
    own = found.options["x265-params"]
    assert own == "log-level=error:pools=2:frame-threads=2:psy-rd=1"
    assert chosen(options={"crf": "30"}).options["crf"] == "30"


def test_hevc_in_mp4_has_the_tag_that_apple_needs() -> None:
    assert chosen(".mp4", encoder="hevc").tag == "hvc1"
    assert chosen(".mkv", encoder="hevc").tag is None
    assert chosen(".mp4").tag is None


def test_color_tags_of_the_result() -> None:
    pq = Color(9, LIMITED, 9, 16)
    assert chosen(color=pq).color == pq
    assert chosen().color == Color()
    assert chosen(size=(1280, 960), color=Color()).color == Color(6)
    # ProRes has no tag for full range; RGB has no YUV matrix.
    assert chosen(encoder="prores", color=Color(1, FULL)).color == Color(1, LIMITED)
    rgb = chosen(encoder="libx265", pixel_format="gbrp", color=Color(0, FULL, 1, 13))
    assert rgb.color == Color(RGB, FULL, 1, 13)
    assert chosen(pixel_format="rgb24", color=Color(0, FULL)).color == Color()
    assert chosen(encoder="libx265", pixel_format="gray").color == Color(range=FULL)


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_packets_have_all_times_and_equal_settings_give_equal_bytes(encoder: str) -> None:
    settings = chosen(encoder=encoder, size=(160, 120))  # x264 had trouble with this width
    times = [90000 * 3600 + time for time in (0, 3600, 8100, 9000, 18000, 18900, 27000, 27001)]
    extradata, packets = encoded(settings, times)
    assert sorted((packet.pts, packet.duration) for packet in packets) == [
        (time, 10 + number) for number, time in enumerate(times)
    ]
    assert packets[0].keyframe
    assert packets[0].pts == times[0]
    assert encoded(settings, times) == (extradata, packets)


@pytest.mark.parametrize(
    ("encoder", "suffix"),
    [*zip(SOFTWARE, [".mp4", ".mp4", ".mp4", ".mov", ".mkv", ".webm"], strict=True)],
)
def test_packets_make_a_file(tmp_path: Path, encoder: str, suffix: str) -> None:
    settings = chosen(suffix, encoder=encoder, aspect=Fraction(4, 3), color=Color(1, 1, 1, 1))
    times = [3600 * number for number in range(12)]
    path = tmp_path / f"a{suffix}"
    frames = written(path, settings, times)
    assert [frame.pts * frame.time_base for frame in frames] == [
        number * Fraction(3600, 90000) for number in range(12)
    ]
    for frame, picture in zip(frames, pictures(settings, times), strict=True):
        unit = 1 << (settings.pixel_format.endswith("10le") * 2)
        off = np.abs(clips.planes(frame)[0].astype(int) - clips.planes(picture)[0]).mean()
        assert off < (6 * unit if encoder != "ffv1" else 1e-9)  # noise that lossy codecs drop
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if suffix in (".mp4", ".mov"):  # in others, only the container has it
            assert stream.sample_aspect_ratio == Fraction(4, 3)
        context = stream.codec_context
        found = context.colorspace, context.color_primaries, context.color_trc
        assert found == (1, 1, 1)


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1"])
def test_hdr10_metadata_is_in_the_stream(tmp_path: Path, encoder: str) -> None:
    settings = chosen(
        encoder=encoder,
        pixel_format="yuv420p10le",
        bits=10,
        hdr=HDR,
        color=Color(9, 1, 9, 16),
        options={"preset": "10"} if encoder == "libsvtav1" else {"preset": "ultrafast"},
    )
    frame = written(tmp_path / "a.mkv", settings, [0, 3600, 7200])[0]
    found = HdrMetadata.from_frame(frame)
    assert found is not None
    assert found.content_light == (1000, 400)
    assert found.mastering is not None
    for name, value in vars(SCREEN).items():
        # AV1 writes places in 16 bits after the point, and black in 14.
        np.testing.assert_allclose(
            np.array(getattr(found.mastering, name), float), np.array(value, float), atol=1e-4
        )


def test_x264_does_not_slice_frames() -> None:
    """Threads that share each frame cost quality; PyAV would ask for them."""
    context: Any = av.CodecContext.create("libx264", "w")
    chosen().configure(context)
    context.open()
    packets = context.encode(pictures(chosen(), [0])[0]) + context.encode(None)
    assert b"sliced_threads=0" in bytes(packets[0])


def test_a_frame_type_of_the_source_is_not_forced() -> None:
    settings = chosen()
    frames = pictures(settings, [3600 * number for number in range(6)])
    for frame in frames:
        frame.pict_type = 1  # a keyframe, as a decoder would say
    encoder = Encoder(settings)
    packets = [packet for frame in frames for packet in encoder.encode(frame)]
    assert [packet.keyframe for packet in [*packets, *encoder.encode(None)]] == [True] + [False] * 5
