"""Conversions against the standards' own formulas, in float64; they share no code."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av")
from sr_deploy.errors import InvalidInputError  # noqa: E402
from sr_deploy.video import color as color_  # noqa: E402
from sr_deploy.video.color import BT709, BT2020, FULL, LIMITED, SMPTE170M, Color  # noqa: E402
from sr_deploy.video.convert import ArrayToFrame, FrameToArray  # noqa: E402
from sr_deploy.video.sample_layout import layout  # noqa: E402
from sr_deploy.video.source import VideoSource  # noqa: E402
from tests.sr_deploy.video import clips  # noqa: E402

WEIGHTS = {BT709: (0.2126, 0.0722), SMPTE170M: (0.299, 0.114), BT2020: (0.2627, 0.0593)}
MATRICES = pytest.mark.parametrize("matrix", WEIGHTS)
RANGES = pytest.mark.parametrize("range_", [LIMITED, FULL])
Array = NDArray[Any]


def scale(bits: int, range_: int) -> tuple[float, float, float, float]:
    """Return black, the span of luma, the middle and the span of chroma (BT.709 and BT.2100)."""
    unit = 2.0 ** (bits - 8)
    if range_ == LIMITED:
        return 16 * unit, 219 * unit, 128 * unit, 224 * unit
    return 0, 256 * unit - 1, 128 * unit, 256 * unit - 1


def rgb(y: Array, u: Array, v: Array, matrix: int, range_: int, bits: int) -> Array:
    """Return R, G and B (0 to 1) by the definition of luma and color differences."""
    red, blue = WEIGHTS[matrix]
    black, span, middle, reach = scale(bits, range_)
    luma = (y - black) / span
    r = luma + 2 * (1 - red) * (v - middle) / reach
    b = luma + 2 * (1 - blue) * (u - middle) / reach
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], axis=-1)


def in_gamut(
    shape: tuple[int, int], across: int, down: int, matrix: int, range_: int, bits: int
) -> list[Array]:
    """Return planes of random colors of all of RGB's gamut, each block of one chroma."""
    random = np.random.default_rng([*shape, across, down, matrix, range_, bits])
    red, blue = WEIGHTS[matrix]
    black, span, middle, reach = scale(bits, range_)
    small = -(-shape[0] // down), -(-shape[1] // across)
    color = random.random((*small, 3))
    luma = color @ [red, 1 - red - blue, blue]
    u = np.rint((color[..., 2] - luma) / (2 * (1 - blue)) * reach + middle)
    v = np.rint((color[..., 0] - luma) / (2 * (1 - red)) * reach + middle)
    beside = rgb(np.full(small, black), u, v, matrix, range_, bits)
    least, most = -beside.min(axis=-1), 1 - beside.max(axis=-1)
    least, most, u, v = (np.where(least > most, other, part) for part, other in (
        (least, 0.5), (most, 0.5), (u, middle), (v, middle)))  # fmt: skip
    wide = [
        part.repeat(down, axis=0).repeat(across, axis=1)[: shape[0], : shape[1]]
        for part in (np.ceil(least * span + black), np.floor(most * span + black))
    ]
    y = np.floor(wide[0] + random.random(shape) * np.maximum(wide[1] - wide[0], 0))
    return [y, u, v]


def framed(planes: list[Array], pixel_format: str) -> Any:
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pixel_format)
    return clips.put(frame, planes)


def difference(one: Any, other: Any) -> int:
    pairs = zip(clips.planes(one), clips.planes(other), strict=True)
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs)


@MATRICES
@RANGES
@pytest.mark.parametrize(("bits", "step"), [(8, 5), (10, 29)])
def test_values_are_those_of_the_standard(matrix: int, range_: int, bits: int, step: int) -> None:
    """Every luma with every `step`th chroma, where RGB has such a color."""
    top = 2**bits
    y, u, v = np.meshgrid(np.arange(top), *2 * [np.arange(step // 2, top, step)], indexing="ij")
    exact = rgb(y.astype(float), u, v, matrix, range_, bits)
    inside = ((exact >= 0) & (exact <= 1)).all(axis=-1)
    planes = [part[inside][np.newaxis] for part in (y, u, v)]
    kind = "yuv444p" if bits == 8 else "yuv444p10le"
    pixels = FrameToArray(Color(matrix, range_))(framed(planes, kind))
    full = 255 if bits == 8 else 65535
    # Half a level, and what single precision adds (65535 * 2**-23 and its sums).
    assert np.abs(pixels[0] - exact[inside] * full).max() < 0.5 + full * 2e-7
    back = ArrayToFrame(kind, Color(matrix, range_))(pixels)
    assert difference(back, framed(planes, kind)) <= 1


@MATRICES
@RANGES
@pytest.mark.parametrize(
    ("sampling", "depth"),
    [*itertools.product(["420", "422", "444", "440"], ["", "10le"]), ("411", "")],
)
def test_all_of_gamut_comes_back_to_one_level(
    sampling: str, depth: str, range_: int, matrix: int
) -> None:
    name = f"yuv{sampling}p{depth}"
    kind = layout(name)
    planes = in_gamut((64, 96), kind.across, kind.down, matrix, range_, kind.bits)
    frame, color = framed(planes, name), Color(matrix, range_)
    pixels = FrameToArray(color)(frame)
    assert pixels.dtype == (np.uint16 if depth else np.uint8)
    assert pixels.shape == (64, 96, 3)
    assert difference(ArrayToFrame(name, color)(pixels), frame) <= 1


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv422p10le", "p010le", "yuva420p"])
@pytest.mark.parametrize("size", [(33, 21), (1, 1), (2, 3), (66, 40)])
def test_any_size_comes_back(name: str, size: tuple[int, int]) -> None:
    frame, color = clips.picture(name, *size), Color(BT709, LIMITED)
    steps = 64 if name == "p010le" else 1  # its ten bits are the upper ones of sixteen
    assert difference(ArrayToFrame(name, color)(FrameToArray(color)(frame)), frame) <= steps


@pytest.mark.parametrize("name", ["rgb24", "bgr0", "bgra", "gbrp", "gbrp10le", "gbrp16le"])
@pytest.mark.parametrize("gray", ["gray", "gray10le", "gray16le"])
def test_rgb_and_gray_come_back_exactly(name: str, gray: str) -> None:
    for pixel_format in (name, gray):
        frame = clips.picture(pixel_format, 31, 17)
        back = ArrayToFrame(pixel_format, Color())(FrameToArray(Color())(frame))
        if pixel_format != "bgr0":  # whose fourth bytes mean nothing
            assert difference(back, frame) == 0
        assert np.array_equal(FrameToArray(Color())(back), FrameToArray(Color())(frame))


def test_white_is_white_in_every_depth() -> None:
    for bits, name in ((8, "yuv420p"), (10, "yuv420p10le"), (12, "yuv420p12le")):
        unit = 1 << (bits - 8)
        planes = [np.full((4, 4), 235 * unit), *2 * [np.full((2, 2), 128 * unit)]]
        pixels = FrameToArray(Color(BT709, LIMITED))(framed(planes, name))
        assert (pixels == np.iinfo(pixels.dtype).max).all()


@pytest.mark.parametrize(("packed", "planar"), [("nv12", "yuv420p"), ("p010le", "yuv420p10le")])
def test_half_planar_frames_are_the_same(packed: str, planar: str) -> None:
    frame = clips.picture(planar, 65, 33)
    pixels = FrameToArray(Color())(frame)
    again = FrameToArray(Color())(ArrayToFrame(packed, Color())(pixels))
    expected = FrameToArray(Color())(ArrayToFrame(planar, Color())(pixels))
    np.testing.assert_array_equal(again, expected)


def test_color_bars_keep_their_edges() -> None:
    """At full saturation, upsampled chroma would leave RGB's gamut and be clipped."""
    bars = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(bars.repeat(6, axis=0), (20, 48, 3)))
    color = Color(BT709, LIMITED)
    frame = ArrayToFrame("yuv420p", color)(pixels)
    assert difference(ArrayToFrame("yuv420p", color)(FrameToArray(color)(frame)), frame) <= 1


def test_a_ramp_of_chroma_has_no_stairs() -> None:
    samples = np.arange(10, dtype=np.float32) * np.ones((6, 1), np.float32)
    spread = color_.upsample_chroma(samples, across=2, down=2)
    np.testing.assert_array_equal(np.diff(spread[:, 2:-2], axis=1), 0.5)


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1)])
def test_downsampling_undoes_upsampling(across: int, down: int) -> None:
    samples = np.random.default_rng(0).integers(-512, 512, (8, 9)).astype(np.float32)
    inner = samples[1:-1] if down == 2 else samples
    found = color_.downsample_chroma(color_.upsample_chroma(samples, across, down), across, down)
    np.testing.assert_array_equal(found, inner)  # exact: the ramps are eighths of integers


def test_alpha_and_its_absence() -> None:
    frame = clips.picture("yuva444p", 16, 8)
    pixels = FrameToArray(Color())(frame)
    assert np.array_equal(pixels[..., 3], clips.planes(frame)[3])
    opaque = ArrayToFrame("yuva444p", Color())(np.ascontiguousarray(pixels[..., :3]))
    assert (clips.planes(opaque)[3] == 255).all()
    without = ArrayToFrame("yuv444p", Color())(pixels)
    assert difference(without, framed(clips.planes(frame)[:3], "yuv444p")) <= 1


def test_gray_pixels_in_color_formats_and_back() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = ArrayToFrame("yuv420p", Color(BT709, FULL))(gray)
    y, u, v = clips.planes(frame)
    assert np.array_equal(y, gray)
    assert {*u.ravel(), *v.ravel()} == {128}
    colors = np.repeat(gray[..., np.newaxis], 3, axis=2)
    assert np.array_equal(clips.planes(ArrayToFrame("gray", Color())(colors))[0], gray)


def test_out_is_filled() -> None:
    frame = clips.picture("yuv420p", 16, 8)
    out = np.empty((8, 16, 3), np.uint8)
    assert FrameToArray(Color())(frame, out) is out
    np.testing.assert_array_equal(out, FrameToArray(Color())(frame))
    with pytest.raises(InvalidInputError, match=r"out is uint16 .*uint8 \(8, 16, 3\)"):
        FrameToArray(Color())(frame, out.astype(np.uint16))


@pytest.mark.parametrize("name", ["gbrpf32le", "bayer_rggb8", "yuv410p", "cuda", "xyz12le"])
def test_unsupported_formats_are_named(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        ArrayToFrame(name, Color())


def test_the_first_frame_decides_on_missing_tags() -> None:
    """A frame of another size midway must not change colors."""
    convert = FrameToArray(Color())
    large, small = (clips.picture("yuv444p", *size) for size in ((1280, 8), (64, 8)))
    convert(large)
    np.testing.assert_array_equal(convert(small), FrameToArray(Color(BT709, LIMITED))(small))


@pytest.mark.parametrize(
    ("pixel_format", "tags"),
    [("yuv420p", clips.Tags(1, 1)), ("yuv444p", clips.Tags(1, 2)), ("yuv420p10le", clips.PQ)],
)
def test_through_a_lossless_codec(tmp_path: Path, pixel_format: str, tags: clips.Tags) -> None:
    clip = clips.Clip(count=3, codec="ffv1", pixel_format=pixel_format, tags=tags)
    with VideoSource(clip.write(tmp_path / "in.mkv")) as source:
        frames = list(source.frames())
        read, write = FrameToArray(source.info.color), ArrayToFrame(pixel_format, source.info.color)
    out = []
    for frame in frames:
        out.append(write(read(frame)))
        out[-1].pts, out[-1].time_base = frame.pts, frame.time_base
    result = clips.decoded(clip.write(tmp_path / "out.mkv", out))
    assert [difference(*pair) <= 1 for pair in zip(frames, result, strict=True)] == [True] * 3


@RANGES
@pytest.mark.parametrize(("pixel_format", "bits"), [("yuv420p", 8), ("yuv420p10le", 10)])
def test_colors_of_420_come_back_where_rgb_can_express_them(
    pixel_format: str, bits: int, range_: int
) -> None:
    """Colors outside RGB are clipped; the module's docstring has the share in real footage."""
    frame = av.VideoFrame(64, 48, pixel_format)
    planes = []
    for number, plane in enumerate(clips.empty_planes(frame)):
        y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
        wave = np.sin(x / 9 + number) + np.cos(y / 7)
        strength = 0.22 if number == 0 else 0.12
        planes.append(((0.5 + strength * wave) * ((1 << bits) - 1)).astype(plane.dtype))
    clips.put(frame, planes)
    color = Color(BT709, range_)
    result = clips.planes(ArrayToFrame(pixel_format, color)(FrameToArray(color)(frame)))
    u, v = (plane.repeat(2, axis=0).repeat(2, axis=1) for plane in planes[1:])
    exact = rgb(planes[0].astype(float), u, v, BT709, range_, bits)
    inside = ((exact >= 0) & (exact <= 1)).all(axis=-1)
    assert 0.5 < inside.mean() < 0.99
    blocks = inside.reshape(24, 2, -1, 2).all(axis=(1, 3))
    for old, new, where in zip(planes, result, (inside, blocks, blocks), strict=True):
        assert np.abs(old[where].astype(int) - new[where]).max() <= 1
