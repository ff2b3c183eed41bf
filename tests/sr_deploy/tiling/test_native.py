from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy.backends.cuda import driver
from sr_deploy.bundle.manifest import Model
from sr_deploy.tiling import native, planner
from sr_deploy.tiling.blender import Blender, NativeBlender, open_blender, piece, reflected
from sr_deploy.tiling.planner import TilePlan, TilePlanner
from tests.conftest import ROOT
from tests.sr_deploy.oracles import Convolutions, Frame, Pooling, frame

CONVOLUTIONS = Convolutions(depth=2).model
POOLING = Pooling.model


class Processor:
    """Runs the steps with the CPU library."""

    def __init__(self) -> None:
        found = native.library()
        if found is None:
            pytest.skip("no C++ compiler was there when this was installed")
        self._library = found

    def placed(self, array: Frame) -> Frame:
        return array

    def take(self, step: native.Gather | native.Scatter | native.Mix) -> None:
        getattr(self._library, f"sr_{type(step).__name__.lower()}")(ctypes.byref(step))


class Gpu:
    """Runs the steps with the GPU kernels, on page-locked host memory."""

    def __init__(self) -> None:
        image = native.kernels()
        assert image is not None, "there is a GPU, but the kernels were not built"
        driver.use(0)
        self._kernels, self._stream = driver.Kernels(image), driver.CudaStream()

    def placed(self, array: Frame) -> Frame:
        found = driver.page_locked(array.shape)
        found[...] = array
        return found

    def take(self, step: Any) -> None:
        name = f"sr_{type(step).__name__.lower()}"
        width = step.samples if isinstance(step, native.Mix) else 8 * step.width
        self._kernels.launch(name, step, (step.height, width), self._stream)
        self._stream.synchronize()


@pytest.fixture(
    scope="module",
    params=[Processor, pytest.param(Gpu, marks=pytest.mark.gpu)],
    ids=["processor", "gpu"],
)
def on(request: pytest.FixtureRequest) -> Processor | Gpu:
    made: Processor | Gpu = request.param()
    return made


def gathered(on: Processor | Gpu, image: Frame, plan: TilePlan, row: int, column: int) -> Frame:
    height, width = plan.tile
    image = on.placed(image)
    tile = on.placed(frame(height, width, image.shape[2], seed=7))
    on.take(
        native.Gather(
            frame=image.ctypes.data,
            tile=tile.ctypes.data,
            pitch=image.strides[0],
            frame_height=image.shape[0],
            frame_width=image.shape[1],
            top=plan.rows.starts[row],
            left=plan.columns.starts[column],
            height=height,
            width=width,
            depth=image.shape[2],
        )
    )
    return tile


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (5, 200), (70, 90), (128, 33)])
def test_native_tiles_equal_numpys(on: Processor | Gpu, size: tuple[int, int], depth: int) -> None:
    """Tiles that exceed the frame are reflected, even several times."""
    image = frame(*size, depth)
    plan = TilePlanner(CONVOLUTIONS).plan(*size, None, (40, 60))
    fixed = planner.TilePlan(
        planner.TileAxis(size[0], 150, (0,), (0, size[0]), 0),
        planner.TileAxis(size[1], 210, (0,), (0, size[1]), 0),
    )
    for each in (plan, fixed):
        height, width = each.tile
        whole = reflected(image, each.rows.padded, each.columns.padded)
        for row, column in each:
            top, left = each.rows.starts[row], each.columns.starts[column]
            expected = whole[top : top + height, left : left + width]
            assert np.array_equal(gathered(on, image, each, row, column), expected)


def stitched(
    on: Processor | Gpu, results: list[Frame], plan: TilePlan, out: Frame, sample: int
) -> None:
    """Run the steps of `Blender` with compiled code."""
    depth, pitch = out.shape[2], out.strides[0]
    above = on.placed(out[:1])
    for (row, column), result in zip(plan, results, strict=True):
        this = piece(plan, 2, row, column)
        zone = out[this.top : this.top + this.zone]
        if this.first and this.zone:
            above = on.placed(zone.copy())
        placed = on.placed(result)
        on.take(
            native.Scatter(
                part=placed[this.y :, this.x :].ctypes.data,
                out=out[this.top :, this.left :].ctypes.data,
                part_pitch=result.strides[0],
                out_pitch=pitch,
                height=this.height,
                width=this.width,
                ramp=this.ramp,
                channels=depth // sample,
                sample=sample,
            )
        )
        if this.last and this.zone:
            on.take(
                native.Mix(
                    above=above.ctypes.data,
                    out=zone.ctypes.data,
                    out_pitch=pitch,
                    height=this.zone,
                    samples=pitch // sample,
                    sample=sample,
                )
            )


@pytest.mark.parametrize("model", [CONVOLUTIONS, POOLING])
@pytest.mark.parametrize(("depth", "sample"), [(1, 1), (3, 1), (2, 2), (6, 2)])
@pytest.mark.parametrize("size", [(130, 150), (64, 301), (300, 40)])
def test_results_are_put_together_as_numpy_does_bit_for_bit(
    on: Processor | Gpu, size: tuple[int, int], depth: int, sample: int, model: Model
) -> None:
    """Exact tiles and blended ones, with all intermediate rounding."""
    plan = TilePlanner(model).plan(*size, None, (64, 70))
    height, width = plan.tile
    results = [frame(2 * height, 2 * width, depth, seed=i) for i in range(len(plan))]
    expected, found = (frame(2 * size[0], 2 * size[1], depth, seed=99) for _ in range(2))
    oracle = Blender(expected, plan, 2, np.dtype(f"<u{sample}"))
    for (row, column), result in zip(plan, results, strict=True):
        oracle.put(row, column, result)
    found = on.placed(found)
    stitched(on, results, plan, found, sample)
    assert np.array_equal(found, expected)
    assert plan.blended is (model is POOLING)


def test_a_library_of_another_version_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "old.cpp"
    source.write_text('extern "C" int sr_layout() { return 1; }')
    path = tmp_path / "old.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(path)], check=True)
    monkeypatch.setattr(native, "LIBRARY", path)
    assert native.library.__wrapped__() is None
    assert "old.so" in caplog.text
    caplog.clear()
    monkeypatch.setattr(native, "LIBRARY", source)
    assert native.library.__wrapped__() is None
    assert "old.cpp" in caplog.text
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    assert native.library.__wrapped__() is None


@pytest.mark.slow
def test_the_kernels_compile_with_nvcc(tmp_path: Path) -> None:
    nvcc, cmake = shutil.which("nvcc"), shutil.which("cmake")
    if nvcc is None or cmake is None:
        pytest.skip("needs nvcc and cmake")
    out = tmp_path / "made" / "kernels.fatbin"
    script = ROOT / "native" / "kernels.cmake"
    done = subprocess.run(
        [cmake, "-D", f"NVCC={nvcc}", "-D", f"OUT={out}", "-P", str(script)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    image = out.read_bytes()
    for name in (b"sr_gather", b"sr_scatter", b"sr_mix"):
        assert name in image
    assert b".target sm_75" in image or b"compute_75" in image


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs cmake")
    broken = tmp_path / "nvcc"
    broken.write_text('#!/bin/sh\n[ "$1" = --list-gpu-code ] && echo sm_90 && exit\nexit 1\n')
    broken.chmod(0o755)
    out = tmp_path / "made" / "kernels.fatbin"
    script = ROOT / "native" / "kernels.cmake"
    done = subprocess.run(
        [cmake, "-D", f"NVCC={broken}", "-D", f"OUT={out}", "-P", str(script)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "no kernels" in done.stderr
    assert not out.exists()


def test_16_bit_frames_are_blended_by_the_library_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if native.library() is None:
        pytest.skip("no C++ compiler was there when this was installed")
    plan = TilePlanner(POOLING).plan(150, 130, None, (64, 70))
    height, width = plan.tile
    outs = [frame(300, 260, 6, seed=99) for _ in range(2)]
    deep = np.dtype("<u2")
    both = open_blender(outs[0], plan, 2, deep), Blender(outs[1], plan, 2, deep)
    assert isinstance(both[0], NativeBlender)
    for number, (row, column) in enumerate(plan):
        for each in both:
            each.put(row, column, frame(2 * height, 2 * width, 6, seed=number))
    assert np.array_equal(*outs)
    cropped = TilePlanner(CONVOLUTIONS).plan(150, 130, None, (64, 70))
    assert type(open_blender(outs[0], cropped, 2, deep)) is Blender
    assert type(open_blender(outs[0], plan, 2, np.dtype("u1"))) is Blender
    monkeypatch.setattr(native, "library", lambda: None)
    assert type(open_blender(outs[0], plan, 2, deep)) is Blender
