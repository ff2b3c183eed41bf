"""Whatever a command is given, it ends with one line and no traceback."""

from __future__ import annotations

import importlib
import io
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sr_deploy import images
from sr_deploy.cli import generate, upscale
from sr_deploy.errors import BundleError
from sr_deploy.files import inside
from sr_deploy.images import Picture
from tests.commands import MODULES, ended, fails_with_one_line
from tests.sr_deploy import networks

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors as shells do")
DIGITS = "9" * 5000
"""More than Python converts to an integer."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "nearest.srd", networks.nearest)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    images.write(path, Picture(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)))
    return path


NUMBERS = [
    *(("--lanes", value) for value in (DIGITS, "10000", "1e400", "-1", "nan")),
    *(("--threads", value) for value in (DIGITS, "100000", "0")),
    *(("--tile", value) for value in (DIGITS, f"8x{DIGITS}", "0", "-1")),
    *(("--memory", value) for value in ("2", "1e400", "0", f"{DIGITS}XB", "nan")),
    *(("--quality", value) for value in (DIGITS, "1e400", "nan", "-inf")),
    *(("--start", value) for value in (f"{DIGITS}:1", "-1", "1e400")),
    *(("--crop", value) for value in (f"{DIGITS}x1+1+1", "1x1")),
    ("--every", DIGITS),
]


@pytest.mark.parametrize(("option", "value"), NUMBERS, ids=[f"{a} {b[:9]}" for a, b in NUMBERS])
def test_absurd_numbers(
    bundle: Path, photo: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(bundle), str(photo), str(photo.with_name("b.png"))]
    try:
        code = upscale.main([*paths, f"{option}={value}"])
    except SystemExit as usage:  # argparse found it, and printed the usage, too
        code = int(str(usage.code))
    assert code in (1, 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("sr-upscale: ")
    assert not photo.with_name("b.png").exists()


@pytest.mark.parametrize("option", ["--count", "--seed", "--threads"])
def test_absurd_numbers_for_a_generator(bundle: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(SystemExit) as usage:
        generate.main([str(bundle), str(tmp_path / "b.png"), f"{option}={DIGITS}"])
    assert usage.value.code == 2


FAILING = {
    "sr-upscale": ["missing.srd", "a.png", "b.png"],
    "sr-generate": ["missing.srd", "b.png"],
    "sr-doctor": ["--json"],
    "sr-export": ["missing.pth"],
    "sr-bench": ["missing.srd"],
}
CLOSED = {"stdin": [0], "stdout": [1], "stderr": [2], "all": [0, 1, 2]}


def _close(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


@POSIX
@pytest.mark.parametrize("program", MODULES)
@pytest.mark.parametrize("closed", CLOSED)
def test_closed_standard_streams(program: str, closed: str, tmp_path: Path) -> None:
    fails = program != "sr-doctor" or 1 in CLOSED[closed]  # it has nothing to print to
    process = ended(
        program,
        *FAILING[program],
        preexec_fn=lambda: _close(*CLOSED[closed]),
        cwd=tmp_path,
    )
    if 2 in CLOSED[closed]:
        assert process.returncode == fails
        assert process.stderr == b""
    elif fails:
        fails_with_one_line(process, program)
    else:
        assert process.returncode == 0


@POSIX
def test_libraries_that_print_do_not_write_into_files(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    noisy = (
        "import os\n"
        "from sr_deploy import Engine\n"
        "plain = Engine.upscale\n"
        "def noisy(*a, **k):\n"
        "    for number in (1, 2):\n"
        "        try: os.write(number, b'noise')\n"
        "        except OSError: pass\n"
        "    return plain(*a, **k)\n"
        "Engine.upscale = noisy"
    )
    target = tmp_path / "b.png"
    ended(*("sr-upscale", bundle, photo, target), before=noisy, preexec_fn=lambda: _close(0, 1, 2))
    whole = images.read(photo).pixels.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(images.read(target).pixels, whole)
    assert b"noise" not in target.read_bytes()


@POSIX
@pytest.mark.parametrize("closed", [0, 1])
def test_frames_need_both_streams(bundle: Path, closed: int) -> None:
    process = ended("sr-upscale", bundle, "-", "-", preexec_fn=lambda: os.close(closed))
    fails_with_one_line(process, "sr-upscale")


@pytest.mark.parametrize("program", [name for name in MODULES if name != "sr-doctor"])
def test_any_name_on_an_ascii_terminal(program: str, tmp_path: Path) -> None:
    name = "grün 猫 esc\x1b[31m two\nlines half\udcff"
    arguments = [each.replace("missing", name) for each in FAILING[program]]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    line = fails_with_one_line(
        ended(program, *map(os.fsencode, arguments), env=environment, cwd=tmp_path), program
    )
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize(
    "name", ["a\0b", "\0", "half\ud800", "a" * 300, "/".join(["a" * 200] * 30)]
)
def test_impossible_names_in_bundles(bundle: Path, name: str) -> None:
    with pytest.raises((BundleError, OSError)):
        inside(bundle, name)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
@pytest.mark.parametrize(
    "arguments",
    [
        ["{bundle}", "loop.png", "b.png"],
        ["loop.srd", "a.png", "b.png"],
        ["{bundle}", "a.png", "loop.srd/b.png"],
        ["{bundle}", "loop.mkv", "b.mkv"],
        ["{bundle}", "loops", "out"],
        ["{bundle}", "a.png", "loop.png"],
    ],
)
def test_links_in_a_loop(
    bundle: Path,
    photo: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photo.parent)
    Path("loops").mkdir()
    for each in ("loop.png", "loop.srd", "loop.mkv", "loops/x.png"):
        Path(each).symlink_to(Path(each).name)
    code = upscale.main([each.format(bundle=bundle) for each in arguments])
    assert code == (arguments[-1] != "loop.png")  # a link is replaced by the output
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
@pytest.mark.parametrize("limit", [230, 340, 370])
def test_little_memory(bundle: Path, photo: Path, limit: int) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))

    stream = b"YUV4MPEG2 W8 H8 F25:1 Cmono\n" + (b"FRAME\n" + bytes(64)) * 8
    runs = [
        ended("sr-upscale", bundle, photo, photo.with_name("b.png"), preexec_fn=limited),
        ended("sr-upscale", bundle, "-", "-", input=stream, stdin=None, preexec_fn=limited),
    ]
    for process in runs:
        said = process.stderr.decode()
        assert process.returncode in (0, 1), said
        assert "Traceback" not in said
        assert bool(said) == process.returncode


@pytest.mark.slow
def test_random_display_matrices(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    clips = importlib.import_module("tests.sr_deploy.video.clips")
    source = clips.Clip(2, size=(32, 16), options=clips.LOSSLESS).write(tmp_path / "a.mp4")
    content = source.read_bytes()
    # The matrix follows version, times, number, duration, layer and volume of the track's header.
    at = content.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">9i", content, at) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    noise = random.Random(0)
    edges = (0, 1, -1, 1 << 16, (1 << 31) - 1, -1 << 31)
    for number in range(6):
        if number % 2:
            matrix = [noise.choice(edges) for _ in range(9)]
        else:
            matrix = [noise.randrange(-1 << 31, 1 << 31) for _ in range(9)]
        source.write_bytes(content[:at] + struct.pack(">9i", *matrix) + content[at + 36 :])
        target = tmp_path / f"b.{'mkv' if number % 3 else 'mp4'}"
        options = ["--overwrite", "--preset", "ultrafast"]
        assert upscale.main([str(bundle), str(source), str(target), *options]) == 0
        assert len(clips.decoded(target)) == 2


@pytest.mark.parametrize(
    "header",
    [
        f"W{DIGITS} H8",
        f"W8 H8 F{DIGITS}:1",
        "W8 H8 F99999999999999999999:1",
        "W8 H8 F1e999999999",
        "W8 H8 F1:0",
        "W8 H8 Cgrün",
        "W\u00b2 H8",
        "W8 H8 \u00e9\u00ff=\u00fc C\u00e9",
    ],
    ids=lambda header: header[:12],
)
def test_absurd_headers_of_pipes(
    bundle: Path,
    header: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("av")
    stream = f"YUV4MPEG2 {header}\nFRAME\n".encode("latin-1")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stream)))
    assert upscale.main([str(bundle), "-", "-"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("raw", ["8x8:gray@1/0", "8x8:pal8", f"{DIGITS}x8:gray", "8x8:grün", "x"])
def test_absurd_raw_formats(
    bundle: Path,
    raw: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("av")
    with open(os.devnull) as empty:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", empty)
        assert upscale.main([str(bundle), "-", "-", "--raw", raw]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@POSIX
def test_results_that_cannot_be_printed(bundle: Path, photo: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = ended(
            *("sr-upscale", bundle, photo, photo.with_name("b.png")),
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert "stdout" in fails_with_one_line(process, "sr-upscale")
    assert photo.with_name("b.png").exists()
