"""Commands end with one line and the right exit code."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sr_deploy
from sr_deploy.cli import console
from sr_deploy.errors import BackendMissingError, BundleError


def _run(error: BaseException | None, argv: list[str]) -> int:
    def command(arguments: argparse.Namespace) -> int:
        if error is not None:
            raise error
        return 7

    return console.run(argparse.ArgumentParser("sr-test"), command, argv)


def test_the_commands_own_exit_code_is_kept() -> None:
    assert _run(None, []) == 7


@pytest.mark.parametrize("error", [BundleError("a\n  b"), OSError("a b"), MemoryError("a b")])
def test_an_error_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(error, []) == 1
    assert capsys.readouterr().err == "sr-test: a b\n"  # the program, and no line break


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(BundleError("a b"), ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(KeyboardInterrupt(), []) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither signal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_clean_up_as_ctrl_c_does(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    code = (
        "import argparse, os, pathlib, signal, sys, time\n"
        "from sr_deploy.cli import console\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # ignored if the tests run by nohup
        "def command(arguments):\n"
        "    try:\n"
        "        print('started', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        pathlib.Path(sys.argv[1]).touch()\n"
        "sys.exit(console.run(argparse.ArgumentParser('sr-test'), command, []))\n"
    )
    cleaned = tmp_path / "cleaned"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(cleaned)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert len(errors.splitlines()) == 1
    assert cleaned.exists()


def test_every_command_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        _run(None, ["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"sr-test {sr_deploy.__version__}\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("carriage\rreturn", "carriage\\rreturn"),
        ("\x9b31m", "\\x9b31m"),
        ("gnp\u202e.exe", "gnp\\u202e.exe"),
        ("half\udcff", "half\\udcff"),
        ("grün 猫.png", "grün 猫.png"),
    ],
)
def test_control_characters_do_not_reach_the_terminal(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console.say(text)
    console.complain("sr-test", text)
    told = capsys.readouterr()
    assert told.out == f"{shown}\n"
    assert told.err == f"sr-test: {shown}\n"


def test_a_long_name_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    console.complain("sr-test", f"cannot read {'n' * 4000}.png today")
    told = capsys.readouterr().err
    assert len(told) < 400
    assert told.endswith("nnn.png today\n")


def test_json_is_never_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    console.say_json({"name": "n" * 4000 + "\x1b"})
    told = capsys.readouterr().out
    assert json.loads(told)["name"] == "n" * 4000 + "\x1b"
    assert "\x1b" not in told


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else whole(name)
    )
    with pytest.raises(BackendMissingError, match=r"sr-test.*onnx.*sr-deploy\[export\]"):
        console.require("export", "sr-test")


@pytest.mark.parametrize(
    ("module", "program", "extra"),
    [("sr_export.cli", "sr-export", "export"), ("sr_bench.cli", "sr-bench", "bench")],
)
def test_a_command_without_its_extra_ends_with_one_line(
    module: str, program: str, extra: str
) -> None:
    # Only the packages of the [cpu] extra are found, by this finder in place of Python's own.
    code = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        f"hidden = {set(console._EXPORT_PACKAGES) - {'onnxruntime'}}\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in hidden:\n"
        "            return PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Finder\n"
        f"from {module} import main\n"
        "sys.exit(main(['network']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    for fact in (program, "onnx", f'"sr-deploy[{extra}]"'):
        assert fact in ended.stderr


def test_wrong_usage_is_2() -> None:
    with pytest.raises(SystemExit) as stop:
        _run(None, ["--no-such-option"])
    assert stop.value.code == 2


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        _run(ZeroDivisionError(), [])


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Progress(3, "images") as progress:
        progress.stage("reading")
        progress.step()
    assert capsys.readouterr().err == ""


def test_progress_counts_and_leaves_a_clean_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with console.Progress(2, "images") as progress:
        progress.step("a.png")
        progress.step("b.png")
    text = terminal.getvalue()
    assert "2/2 images" in text
    assert "b.png" in text
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_results_replace_the_progress_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", screen)
    with console.Progress(2, "images") as progress:
        for name in ("a.png", "b.png"):
            progress.step(name)
            console.say_json({"input": name})
    lines = screen.getvalue().split("\n")[:-1]  # the rest is the erased progress line
    seen = [line.rpartition("\x1b[K")[2] for line in lines]
    assert [json.loads(line) for line in seen] == [{"input": "a.png"}, {"input": "b.png"}]


def test_json_into_a_pipe_leaves_the_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pipe = _Terminal(), io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", pipe)
    console.say_json({})
    assert pipe.getvalue() == "{}\n"
    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3:05"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert console.clock(seconds) == text
