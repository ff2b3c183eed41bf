"""The command `sr-upscale`, with a network that doubles every pixel."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sr_deploy import images, machine
from sr_deploy.bundle import manifest
from sr_deploy.cli import upscale
from sr_deploy.errors import BackendError, OutOfMemoryError
from sr_deploy.images import Metadata, Picture
from tests.sr_deploy import manifests

if TYPE_CHECKING:
    from sr_deploy.images.picture import AnyPixels

pytestmark = pytest.mark.usefixtures("photos")


@dataclass
class Spec:
    """What an engine says of itself."""

    scale: int = 2
    backend: str = "fake"
    precision: str = "fp32"
    device: str = "CPU"
    # Beside what this process holds, which after many tests may be gigabytes.
    memory: int = field(default_factory=lambda: machine.resident_memory() + (1 << 30))


class FakeEngine:
    """Takes an Engine's arguments, and doubles every pixel."""

    options: dict[str, Any]
    seen: list[tuple[int, ...]]
    reserve: int
    spec: Spec

    def __init__(self, path: str, **options: Any) -> None:
        type(self).options = {"path": path, **options}
        type(self).seen = []
        self.spec = Spec()

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def upscale(self, image: AnyPixels, /, *, reserve: int) -> AnyPixels:
        type(self).reserve = reserve
        self.seen.append(image.shape)
        if image.shape[0] == 13:
            raise BackendError("thirteen rows\nare too many")
        if image.shape[0] == 17:
            raise OutOfMemoryError("seventeen do not fit")
        return image.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures of several kinds in photos/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(upscale, "Engine", FakeEngine)
    Path("net.srd").mkdir()
    Path("net.srd", manifest.NAME).write_text(manifests.make().to_json())
    folder = Path("photos")
    (folder / "sub").mkdir(parents=True)
    images.write(folder / "a.png", Picture(np.full((3, 4, 3), 7, np.uint8)))
    images.write(folder / "b.jpg", Picture(np.full((5, 6), 80, np.uint8)))
    images.write(folder / "sub" / "c.tif", Picture(np.full((2, 2, 4), 300, np.uint16)))
    return folder


def test_one_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale.main(["net.srd", "photos/a.png", "big.webp"]) == 0
    assert images.read("big.webp").pixels.shape == (6, 8, 3)
    captured = capsys.readouterr()
    assert captured.out.startswith("big.webp: 8x6 in ")
    assert captured.err == ""


def test_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale.main(["net.srd", "photos", "big"]) == 0
    found = {
        path.relative_to("big").as_posix(): images.read(path).pixels.shape
        for path in Path("big").rglob("*.*")
    }
    assert found == {"a.png": (6, 8, 3), "b.jpg": (10, 12), "sub/c.tif": (4, 4, 4)}
    deep = images.read("big/sub/c.tif").pixels
    assert deep.dtype == np.uint16
    assert (deep == 300).all()
    assert capsys.readouterr().out.startswith("3 images upscaled in ")


def test_several_images_in_another_format() -> None:
    paths = ["photos/a.png", "photos/b.jpg", "big/"]
    assert upscale.main(["net.srd", *paths, "--format", "tif"]) == 0
    assert sorted(path.name for path in Path("big").iterdir()) == ["a.tif", "b.tif"]


def test_metadata_goes_along() -> None:
    images.write(
        "m.png", Picture(np.zeros((2, 2), np.uint8), Metadata(b"profile", dpi=(72.0, 72.0)))
    )
    assert upscale.main(["net.srd", "m.png", "big.jpg"]) == 0
    assert images.read("big.jpg").metadata.icc_profile == b"profile"


def test_the_options_reach_the_engine() -> None:
    options = ["--backend", "openvino", "--precision", "int8", "--device", "GPU.1"]
    options += ["--threads", "3", "--lanes", "2", "--memory", "1GiB", "--tile", "128x256"]
    assert upscale.main(["net.srd", "photos/a.png", "big.png", *options]) == 0
    assert FakeEngine.options == {
        "path": "net.srd",
        "backend": "openvino",
        "precision": "int8",
        "device": "GPU.1",
        "threads": 3,
        "lanes": 2,
        "streaming": False,
        "memory": "1GiB",
        "tile": (128, 256),
    }


def test_several_images_share_the_memory() -> None:
    assert upscale.main(["net.srd", "photos/a.png", "big.png"]) == 0
    alone = FakeEngine.reserve
    assert upscale.main(["net.srd", "photos", "big", "--tile", "64"]) == 0
    assert FakeEngine.reserve > max(alone, 255 << 20)  # others may wait in a quarter
    assert FakeEngine.options["tile"] == (64, 64)


def test_a_damaged_file_is_reported_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/aa.png").write_bytes(b"no image")
    assert upscale.main(["net.srd", "photos", "big"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("sr-upscale: photos/aa.png: ")
    assert captured.err.count("\n") == 1
    assert captured.out.startswith("3 images upscaled in ")
    assert captured.out.endswith(", 1 failed\n")


def test_a_lone_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes(b"")
    assert upscale.main(["net.srd", "a.png", "big.png"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "sr-upscale: a.png: the file is empty\n"
    assert not Path("big.png").exists()


def test_an_error_of_the_engine_names_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    images.write("photos/aa.png", Picture(np.zeros((17, 2), np.uint8)))
    assert upscale.main(["net.srd", "photos", "big"]) == 1
    assert capsys.readouterr().err == "sr-upscale: photos/aa.png: seventeen do not fit\n"
    assert len(list(Path("big").rglob("*.*"))) == 3


def test_debug_shows_where_a_failure_was(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes(b"")
    assert upscale.main(["net.srd", "a.png", "big.png", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "sr-upscale: debug: a.png failed\nTraceback" in shown
    assert shown.endswith("sr-upscale: a.png: the file is empty\n")


def test_a_backend_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    images.write("a.png", Picture(np.zeros((13, 2), np.uint8)))
    assert upscale.main(["net.srd", "a.png", "big.png"]) == 1
    assert capsys.readouterr().err == "sr-upscale: thirteen rows are too many\n"


def test_nothing_is_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("big.png").write_text("mine")
    assert upscale.main(["net.srd", "photos/a.png", "big.png"]) == 1
    assert Path("big.png").read_text() == "mine"
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert upscale.main(["net.srd", "photos/a.png", "big.png", "--overwrite"]) == 0
    assert images.read("big.png").pixels.shape == (6, 8, 3)


def test_resume_does_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["net.srd", "photos", "big", "--resume"]
    assert upscale.main(arguments) == 0
    Path("big/b.jpg").unlink()
    before = Path("big/a.png").stat().st_mtime_ns
    capsys.readouterr()
    assert upscale.main(arguments) == 0
    assert FakeEngine.seen == [(5, 6)]
    assert Path("big/a.png").stat().st_mtime_ns == before
    assert capsys.readouterr().out.endswith(", 2 already complete\n")
    assert upscale.main(arguments) == 0  # nothing is left: no network is loaded
    assert capsys.readouterr().out == "0 images upscaled in 0 s, 3 already complete\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/aa.png").write_bytes(b"")
    assert upscale.main(["net.srd", "photos", "big", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line.pop("seconds") >= 0 for line in lines)
    assert lines == [
        {"input": "photos/a.png", "output": "big/a.png", "width": 8, "height": 6},
        {"input": "photos/aa.png", "error": "photos/aa.png: the file is empty"},
        {"input": "photos/b.jpg", "output": "big/b.jpg", "width": 12, "height": 10},
        {"input": "photos/sub/c.tif", "output": "big/sub/c.tif", "width": 4, "height": 4},
        {
            "done": 3,
            "failed": 1,
            "skipped": 0,
            "scale": 2,
            "backend": "fake",
            "precision": "fp32",
            "device": "CPU",
        },
    ]


def test_warnings_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale.main(["net.srd", "photos/sub/c.tif", "big.jpg"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": warning: big.jpg: ")[0] for line in lines] == ["sr-upscale"] * 2
    assert not logging.getLogger("sr_deploy").handlers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/none.png", "big.png"], "photos/none.png"),
        (["photos", "photos"], "photos/a.png: inputs"),
        (["clip.mp4", "big.png"], "clip.mp4"),
        (["clip.mp4", "a.png", "big"], "a.png is not"),
        (["photos", "big.png"], "big.png"),
        (
            ["photos", "big", "--quality", "0"],
            "--quality",
        ),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("clip.mp4").touch()
    assert upscale.main(["net.srd", *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("sr-upscale: ")
    assert captured.err.count("\n") == 1
    assert not Path("big").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["net.srd"],
        ["net.srd", "photos"],
        ["net.srd", "photos", "big", "--resume", "--overwrite"],
        ["net.srd", "photos", "big", "--tile", "small"],
        ["net.srd", "photos", "big", "--format", "gif"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        upscale.main(arguments)
    assert exit_.value.code == 2


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        upscale.main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for word in ("examples:", "exit codes:", "default: 95", "--resume", "free memory"):
        assert word in text
