"""YUV frames are upscaled with correct colors, without RGB in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sr_deploy import Engine
from sr_deploy.backends.host import HostLane
from sr_deploy.backends.onnxruntime.backend import DeviceInputs, OrtDevice
from sr_deploy.bundle.manifest import Model, PixelFormat, YuvFormat
from sr_deploy.errors import BundleError, InvalidInputError, OutOfMemoryError, TilingNeededError
from sr_deploy.runtime.yuv import YuvFrame, color_coefficients
from sr_export.graph import pixels
from tests.sr_deploy import networks, yuv_oracle
from tests.sr_deploy.yuv_oracle import FORMATS, KINDS, MATRICES, Kind
from tests.sr_export.quantize.nets import Net

BACKENDS = ("openvino", "onnxruntime")
NV12 = Kind("nv12")


def repeating_net(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write nearest upsampling after an identity convolution."""
    middle = np.zeros((3, 3, 3, 3), np.float32)
    middle[range(3), range(3), 1, 1] = 1
    sizes = np.array([1, 1, model.scale, model.scale], np.float32)
    net = Net().add("Conv", middle, pads=[1] * 4)
    net.add("Resize", None, sizes, mode="nearest", coordinate_transformation_mode="asymmetric")
    onnx.save(pixels.wrap(net.model(), pixel_format), path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yuv") / "repeating.srd"
    return networks.bundle(folder, repeating_net, ("rgb24", *FORMATS))


def _repeated(frame: YuvFrame, scale: int = 2) -> np.ndarray:
    """Return the sample values after nearest upsampling."""
    planes = [np.kron(each, np.ones((scale, scale))) for each in yuv_oracle.split(frame)]
    return yuv_oracle.joined((planes[0], planes[1], planes[2]), frame.pixel_format)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_colours_stay_as_they_are(backend: str, pixel_format: YuvFormat, bundle: Path) -> None:
    """Sizes, matrices and ranges change between frames."""
    kinds = [each for each in KINDS if each.pixel_format == pixel_format]
    with Engine(bundle, backend=backend, precision="fp32") as engine:
        for number, kind in enumerate(kinds):
            height, width = 10 + 4 * (number // 2), 12
            assert engine.takes(pixel_format, height, width)
            frame = kind.noise(height, width, seed=number)
            result = engine.upscale(frame)
            np.testing.assert_array_equal(yuv_oracle.codes(result), _repeated(frame))
            assert (result.matrix, result.full_range) == (kind.matrix, kind.full_range)
            assert (result.height, result.width) == (2 * height, 2 * width)


def test_colours_go_to_a_device_as_the_pixels_do(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtDevice, "inputs", lambda _: DeviceInputs("cpu", 0))
    test_colours_stay_as_they_are("onnxruntime", "nv12", bundle)


def test_a_shape_that_keeps_coming_is_compiled_for(bundle: Path) -> None:
    frame = NV12.noise(64, 64)
    with Engine(bundle, backend="openvino", precision="fp32") as engine:
        engine.upscale(frame)
        pool = engine._session.pool("nv12")
        with pool.lane() as lane:
            assert isinstance(lane, HostLane)
            requests: Any = lane._inference
            requests._price = 0.0
        result = engine.upscale(frame)
        assert requests._special is not None
        np.testing.assert_array_equal(yuv_oracle.codes(result), _repeated(frame))


def test_results_go_where_they_should(bundle: Path) -> None:
    frame = NV12.noise(8, 8)
    frame.samples.flags.writeable = False  # decoders may return read-only arrays
    with Engine(bundle, precision="fp32") as engine:
        out = frame.enlarged(2)
        assert engine.upscale(frame, out) is out
        np.testing.assert_array_equal(yuv_oracle.codes(out), _repeated(frame))


def test_a_result_may_overlap_its_frame(bundle: Path) -> None:
    out = NV12.noise(16, 16)
    frame = replace(out, samples=out.samples.ravel()[:96].reshape(12, 8))
    expected = _repeated(frame)
    with Engine(bundle, precision="fp32") as engine:
        engine.upscale(frame, out)
    np.testing.assert_array_equal(yuv_oracle.codes(out), expected)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((24, 16), np.uint8),
        Kind("nv12").noise(16, 18),
        Kind("yuv420p").noise(16, 16),
        Kind("nv12", "bt601").noise(16, 16),
    ],
    ids=["array", "size", "layout", "matrix"],
)
def test_another_kind_of_result_is_refused(out: Any, bundle: Path) -> None:
    said = pytest.raises(InvalidInputError, match=r"\(24, 16\)")
    with Engine(bundle, precision="fp32") as engine, said:
        engine.upscale(NV12.noise(8, 8), out)


def test_a_stream_upscales_yuv_frames(bundle: Path) -> None:
    frames = [NV12.noise(8, 8, seed) for seed in range(5)]
    with Engine(bundle, precision="fp32") as engine:
        for frame, result in zip(frames, engine.stream(frames), strict=True):
            np.testing.assert_array_equal(yuv_oracle.codes(result), _repeated(frame))


def test_odd_frames_go_as_rgb(bundle: Path) -> None:
    with Engine(bundle, precision="fp32") as engine:
        assert not engine.takes("nv12", 9, 8)
        assert not engine.takes("nv12", 8, 9)


def test_a_bundle_without_yuv_networks_says_how_to_export_them(tmp_path: Path) -> None:
    plain = networks.bundle(tmp_path / "plain.srd", repeating_net, ("rgb24",))
    with Engine(plain, precision="fp32") as engine:
        assert not engine.takes("nv12", 8, 8)
        with pytest.raises(BundleError, match=r"nv12.*rgb24.*--yuv"):
            engine.upscale(NV12.noise(8, 8))


def test_yuv_frames_that_need_tiles_are_rejected(bundle: Path) -> None:
    with Engine(bundle, precision="fp32", tile=32) as engine:
        assert engine.takes("nv12", 32, 32)
        assert not engine.takes("nv12", 64, 64)
        with pytest.raises(TilingNeededError, match=r"nv12.*64x66"):
            engine.upscale(NV12.noise(66, 64))


def test_frames_below_the_networks_smallest_are_refused(tmp_path: Path) -> None:
    picky = networks.bundle(tmp_path / "picky.srd", repeating_net, ("rgb24", "nv12"), minimum=16)
    with Engine(picky, precision="fp32") as engine:
        assert not engine.takes("nv12", 8, 16)
        assert engine.takes("nv12", 16, 16)


def test_memory_decides(bundle: Path) -> None:
    with Engine(bundle, precision="fp32") as engine:
        held = engine._session.held
    budget = held + (256 << 20)
    with Engine(bundle, precision="fp32", memory=budget) as engine:
        assert engine.takes("nv12", 64, 64)
        assert not engine.takes("nv12", 4320, 7680)
        with pytest.raises(TilingNeededError):
            engine.upscale(YuvFrame.empty("nv12", 4320, 7680))


def test_after_a_lack_of_memory_such_frames_are_not_taken(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise OutOfMemoryError("no")

    with Engine(bundle, precision="fp32") as engine:
        assert engine.takes("nv12", 512, 512)
        monkeypatch.setattr(HostLane, "run", run)
        with pytest.raises(TilingNeededError):
            engine.upscale(YuvFrame.empty("nv12", 512, 512))
        assert not engine.takes("nv12", 512, 512)


def test_a_closed_engine_rejects_frames(bundle: Path) -> None:
    engine = Engine(bundle, precision="fp32")
    engine.close()
    with pytest.raises(InvalidInputError, match="closed"):
        engine.upscale(NV12.noise(8, 8))
    with pytest.raises(InvalidInputError, match="closed"):
        engine.takes("nv12", 8, 8)


@pytest.mark.parametrize(
    ("samples", "pixel_format", "message"),
    [
        (np.zeros((4, 4), np.uint8), "nv12", r"\(4, 4\)"),
        (np.zeros((6, 3), np.uint8), "yuv420p", r"\(6, 3\)"),
        (np.zeros((0, 4), np.uint8), "nv12", r"\(0, 4\)"),
        (
            np.zeros((6, 4, 1), np.uint8),
            "nv12",
            r"uint8.*\(6, 4, 1\)",
        ),
        (np.zeros((6, 4), np.uint16), "nv12", "uint8.*uint16"),
        (np.zeros((6, 4), np.uint8), "p010", "uint16.*uint8"),
        (np.zeros((6, 4), ">u2"), "p010", ">u2"),
        ([[0]], "nv12", "list"),
        (np.zeros((12, 4), np.uint8)[::2], "nv12", "contiguous"),
        (np.zeros((6, 4), np.uint8), "yuv444p", "'yuv444p'.*yuv420p, nv12, p010"),
    ],
)
def test_invalid_samples_are_rejected(samples: Any, pixel_format: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        YuvFrame(samples, pixel_format)


def test_an_unknown_matrix_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"'fcc'.*bt601, bt709, bt2020"):
        YuvFrame(np.zeros((6, 4), np.uint8), "nv12", "fcc")


def test_pixels_are_a_view_of_the_samples() -> None:
    frame = Kind("p010").noise(4, 6)
    assert (frame.height, frame.width, frame.nbytes) == (4, 6, 72)
    assert frame.pixels.shape == (6, 6, 2)
    assert np.shares_memory(frame.pixels, frame.samples)
    low, high = frame.pixels[..., 0].astype(int), frame.pixels[..., 1].astype(int)
    np.testing.assert_array_equal(low + 256 * high, frame.samples)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("bits", "full_range", "black", "white"),
    [(8, False, 16, 235), (8, True, 0, 255), (10, False, 64, 940), (10, True, 0, 1023)],
)
def test_coefficients_convert_black_white_and_gray(
    matrix: Any, bits: int, full_range: bool, black: int, white: int
) -> None:
    found = color_coefficients(matrix, bits, full_range=full_range)
    assert found.shape == (7, 3)
    middle = 2 ** (bits - 1)
    np.testing.assert_array_equal(found[6], [black, middle, middle])
    np.testing.assert_allclose(found[:3] @ np.array([white - black, 0, 0]), 1, atol=1e-6)
    np.testing.assert_allclose(found[3:6] @ np.ones(3), [white - black, 0, 0], atol=1e-4)
    np.testing.assert_allclose(found[:3] @ found[3:6], np.eye(3), atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 0


@pytest.mark.parametrize("kind", [each for each in KINDS if each.bits == 8], ids=str)
def test_ffmpeg_sees_the_same_colours(kind: Kind) -> None:
    """The oracle interprets layouts and matrices like FFmpeg."""
    av = pytest.importorskip("av")
    colours = np.random.default_rng(0).uniform(0.2, 0.8, (4, 6, 3))
    rgb = colours.repeat(8, axis=0).repeat(8, axis=1)
    frame = kind.frame(np.rint(yuv_oracle.from_rgb(rgb, kind)).astype(int))
    found = (
        av.VideoFrame.from_ndarray(frame.samples, kind.pixel_format)
        .reformat(
            format="rgb24",
            src_colorspace={"bt601": 5, "bt709": 1, "bt2020": 9}[kind.matrix],
            src_color_range=2 if kind.full_range else 1,
            dst_color_range=2,
        )
        .to_ndarray()
    )
    # FFmpeg's fast conversion is up to 3.2 levels too dark; a wrong matrix or range is off by 6.8.
    assert np.abs(found[4::8, 4::8] - 255 * yuv_oracle.to_rgb(frame)[4::8, 4::8]).max() <= 4
