"""Commands and programs of the documentation: all are parsed, those of the main pages are run."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import sr_deploy
from docs import site_hooks
from sr_deploy import images
from tests.conftest import ROOT
from tests.sr_deploy import networks

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"))
)
PACKAGES = ("sr_deploy", "export/sr_export", "benchmarks/sr_bench")
RUN_PAGES = ("docs/images.md", "docs/video.md")
"""Pages whose commands all run on the files of `workplace`."""
PYTHON_PAGES = ("README.md", "docs/embedding.md")
OTHER_PROGRAMS = {
    "git",
    "cd",
    "pip",
    "mkdir",
    "cp",
    "ffmpeg",
    "make",
    ".",
    ".venv/bin/pre-commit",
    ".venv/bin/pytest",
}
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ASSIGNMENT = re.compile(r'^(\w+)="?([^"]*)"?$')


class Block(NamedTuple):
    kind: str
    text: str
    reason: str | None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(m["kind"], m["text"], m["reason"]) for m in BLOCK.finditer(text)]


def commands(block: Block) -> list[list[str]]:
    """Return the words of each command of a shell block, with its variables filled in."""
    text = block.text.replace("\\\n", " ")
    if block.kind == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found: list[list[str]] = []
    variables: dict[str, str] = {}
    for line in text.splitlines():
        if assigned := ASSIGNMENT.match(line):
            variables[assigned[1]] = assigned[2]
            continue
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                found += [command] if command else []
                command = []
            else:
                command.append(word)
    return found


def problem(words: list[str]) -> str | None:
    """Return why a command line is wrong."""
    program, *arguments = words
    if program in site_hooks.scripts():
        return parsed(lambda: site_hooks.parse(program, arguments))
    if program in ("python", "python3", "sh"):
        if arguments[0] == "dev.py":
            spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
            assert spec is not None
            assert spec.loader is not None
            dev = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(dev)
            return None if arguments[1] in dev.TASKS else f"dev.py has no task {arguments[1]}"
        if arguments[:2] == ["-m", "examples.training"]:
            from examples.training import cli

            return parsed(lambda: cli._parser().parse_args(arguments[2:]))
        if arguments[0] == "-m":
            known = importlib.util.find_spec(arguments[1]) is not None
        else:
            known = (ROOT / arguments[0]).exists() or arguments[0] in ("mine.py", "enlarge.py")
        return None if known else f"no such program: {' '.join(words)}"
    return None if program in OTHER_PROGRAMS else f"unknown program {program}"


def parsed(parse: object) -> str | None:
    assert callable(parse)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            parse()
    except SystemExit as end:
        return None if end.code == 0 else stderr.getvalue().strip().splitlines()[-1]
    return None


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_these_options(page: str) -> None:
    problems = [
        f"{shlex.join(words)}: {wrong}"
        for block in blocks(page)
        if block.kind in ("sh", "bash", "console")
        for words in commands(block)
        if (wrong := problem(words)) is not None
    ]
    assert problems == []


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page: str) -> None:
    assert [block.text for block in blocks(page) if not block.kind] == []


@pytest.mark.parametrize("page", PAGES)
def test_programs_compile(page: str) -> None:
    for block in blocks(page):
        if block.kind == "python":
            compile(block.text, page, "exec")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages use: a bundle, photos and a video."""
    networks.bundle(tmp_path / "x2.srd", networks.nearest)
    for name in ("cat.png", "compact_x2.pth", "original/cat.png"):
        target = tmp_path / "examples" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "examples" / name, target)
    photo = Image.open(ROOT / "examples" / "cat.png")
    photo.save(tmp_path / "photo.png")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    photo.save(tmp_path / "photos" / "a.jpg")
    photo.save(tmp_path / "photos" / "more" / "b.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def film(path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(12):
            pixels = np.full((48, 64, 3), 20 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def run(text: str) -> None:
    if shutil.which("sh") is None:
        pytest.skip("the pages have commands of a POSIX shell")
    done = subprocess.run(
        ["sh", "-ec", text], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_commands_of_the_main_guides_run(page: str, workplace: Path) -> None:
    if page == "docs/video.md":
        film(workplace / "film.mp4")
    for block in blocks(page):
        if block.kind != "sh" or block.reason:
            continue
        if "ffmpeg" in block.text and shutil.which("ffmpeg") is None:
            continue
        run(block.text)


@pytest.mark.slow
def test_the_export_of_generators_and_translators_runs(workplace: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    layers: list[object] = []
    for inputs, outputs, stride in ((16, 16, 1), (16, 16, 2)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, stride - 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    layers += [nn.ConvTranspose2d(16, 3, 4, 2, 1, bias=False), nn.Tanh()]
    torch.save(nn.Sequential(*layers).state_dict(), workplace / "netG_epoch_24.pth")
    (workplace / "mine.py").write_text(
        "from torch import nn\n"
        "def Translator(features):\n"
        "    first = nn.Conv2d(3, features, 3, padding=1)\n"
        "    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(features, 3, 3, padding=1))\n"
    )
    first, last = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 3, 3, padding=1)
    torch.save(nn.Sequential(first, nn.ReLU(), last).state_dict(), workplace / "net.pth")
    for block in blocks("docs/generators.md"):
        if block.kind == "sh":
            # INT8, which takes most of the time, is exported in the test below. The translator is
            # not trained.
            options = r"\1 --precision fp16 --accept "
            run(re.sub(r"(?m)^(sr-export [^#\n]+)", options, block.text))
    assert len(list((workplace / "faces").iterdir())) == 1000


@pytest.mark.slow
def test_the_first_export_runs(workplace: Path) -> None:
    shutil.rmtree(workplace / "x2.srd")
    for block in blocks("docs/start.md"):
        if block.kind == "sh" and not block.reason:
            run(block.text)
    header = images.inspect(workplace / "big.png")
    assert (header.width, header.height) == (450, 300)
    assert (workplace / "x2.srd" / "report.html").is_file()


@pytest.mark.parametrize("page", PYTHON_PAGES)
@pytest.mark.usefixtures("workplace")
def test_programs_run(page: str) -> None:
    programs = [block for block in blocks(page) if block.kind == "python" and not block.reason]
    assert programs
    for program in programs:
        exec(compile(program.text, page, "exec"), {"__name__": "__main__"})


def test_the_command_reference_names_every_command_and_option() -> None:
    text = site_hooks.command_reference()
    for heading in ("## sr-export", "## sr-upscale", "### sr-bench quality", "## sr-doctor"):
        assert f"{heading}\n" in text
    assert "--min-psnr" in text
    assert "==SUPPRESS==" not in text


def test_the_api_reference_names_every_public_name() -> None:
    text = site_hooks.api_reference()
    for name in sr_deploy.__all__:
        assert name.startswith("__") or f"::: sr_deploy.{name}\n" in text


NAMED = re.compile(
    r"`((?:sr_deploy|export|benchmarks|native)/[\w/.]*)`"
    r"(?::\s+`(\w+)`(?:\s+and\s+`(\w+)`)?)?"
)


def test_the_architecture_page_names_existing_modules_and_definitions() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = NAMED.findall(text)
    assert len(found) > 50
    problems = []
    for path, *names in found:
        if not (ROOT / path).exists():
            problems.append(path)
            continue
        for name in filter(None, names):
            code = (ROOT / path).read_text(encoding="utf-8")
            if not re.search(rf"(?:def|class) {name}\b", code):
                problems.append(f"{path}: {name}")
    assert problems == []


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_checkout_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    folders = "benchmarks|docs|examples|export|native|sr_deploy|tests"
    found = re.findall(rf"`((?:{folders})/[\w./*-]*)`", text)
    assert [path for path in found if not any(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`(sr_deploy\.\w[\w.]*)", text):
        if name != "sr_deploy.plan_builders":  # an entry point
            pkgutil.resolve_name(name)


def test_the_troubleshooting_page_quotes_messages_of_the_code() -> None:
    """Each part of a quoted message between its "..." is part of a text in the code."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts = "\n".join(
        node.value
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    rows = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    messages = [row.split(" | ")[0] for row in rows if row.startswith("| `")]
    assert len(messages) > 30
    parts = [
        part.strip()
        for message in messages
        for quoted in re.findall(r"`([^`]+)`", message)
        for part in quoted.split("...")
    ]
    assert [part for part in parts if part not in texts] == []
