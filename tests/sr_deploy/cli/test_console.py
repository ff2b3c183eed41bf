"""Commands end with one line and the right exit code."""

from __future__ import annotations

import argparse
import io

import pytest

from sr_deploy.cli import console
from sr_deploy.errors import BundleError


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
    assert capsys.readouterr().err == "sr-test: a b\n"


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(BundleError("a b"), ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(KeyboardInterrupt(), []) == 130
    assert capsys.readouterr().err.count("\n") == 1


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


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3:05"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert console.clock(seconds) == text
