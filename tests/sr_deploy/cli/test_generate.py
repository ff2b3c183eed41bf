"""The command `sr-generate`, with a small generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sr_deploy import Engine, images
from sr_deploy.bundle.manifest import Latent
from sr_deploy.cli import generate, upscale
from tests.sr_deploy import networks


@pytest.fixture(autouse=True)
def _bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    latent = Latent(size=5, height=4, width=6)
    networks.bundle(Path("g.srd"), networks.generator, ("rgb24",), scale=1, latent=latent)


def _made(count: int, seed: int) -> np.ndarray:
    with Engine("g.srd") as engine:
        return engine.generate(count=count, seed=seed)


def test_a_picture_and_the_seed_to_make_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["g.srd", "a.png"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a.png: 1 image of 6x4, seed ")
    seed = said.split()[-1]
    assert generate.main(["g.srd", "b.png", "--seed", seed]) == 0
    first, second = (images.read(name).pixels for name in ("a.png", "b.png"))
    assert np.array_equal(first, second)
    assert np.array_equal(first, _made(1, int(seed))[0])


def test_a_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["g.srd", "sheet.png", "--count", "5", "--seed", "1"]) == 0
    assert capsys.readouterr().out == "sheet.png: 5 images of 6x4, seed 1\n"
    sheet, made = images.read("sheet.png").pixels, _made(5, 1)
    assert sheet.shape == (8, 18, 3)
    assert np.array_equal(sheet[:4, 6:12], made[1])
    assert np.array_equal(sheet[4:, 6:12], made[4])
    assert not sheet[4:, 12:].any()


@pytest.mark.parametrize("folder", ["faces/", "faces"])
def test_a_folder(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not folder.endswith("/"):
        Path(folder).mkdir()
    assert generate.main(["g.srd", folder, "--count", "3", "--seed", "1"]) == 0
    assert "3 images" in capsys.readouterr().out
    names = sorted(path.name for path in Path(folder).iterdir())
    assert names == ["0001.png", "0002.png", "0003.png"]
    assert np.array_equal(images.read("faces/0003.png").pixels, _made(3, 1)[2])


def test_gray_pictures_are_gray() -> None:
    latent = Latent(size=5, height=4, width=6)
    networks.bundle(Path("gray.srd"), networks.generator, ("gray8",), scale=1, latent=latent)
    assert generate.main(["gray.srd", "a.png", "--count", "2"]) == 0
    assert images.read("a.png").pixels.shape == (4, 12)


def test_nothing_is_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_text("mine")
    assert generate.main(["g.srd", "a.png"]) == 1
    assert "a.png: already exists (1 of 1 files); --overwrite" in capsys.readouterr().err
    assert Path("a.png").read_text() == "mine"
    assert generate.main(["g.srd", "a.png", "--overwrite"]) == 0
    assert images.read("a.png").pixels.shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.srd", "a.png"], "none.srd"),
        (["g.srd", "a.txt"], "a.txt"),
        (["g.srd", "none/a.png"], "none"),
        (["g.srd", "a.png", "--count", "0"], "count must be at least 1, found 0"),
        (["g.srd", "a.png", "--seed", "-2"], "seed must be at least 0, found -2"),
        (["net.srd", "a.png"], "sr-upscale"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    networks.bundle(Path("net.srd"))
    assert generate.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("a.png").exists()


def test_sr_upscale_names_this_command(capsys: pytest.CaptureFixture[str]) -> None:
    images.write("photo.png", images.Picture(np.zeros((3, 4, 3), np.uint8)))
    assert upscale.main(["g.srd", "photo.png", "big.png"]) == 1
    assert "sr-generate" in capsys.readouterr().err
