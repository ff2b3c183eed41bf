"""What every command shares: options, exit codes, one-line errors, and a progress line."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import json
import os
import re
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import sr_deploy
from sr_deploy.errors import BackendMissingError, SrDeployError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

_REDRAW_SECONDS = 0.1
_WIPE = "\r\x1b[K"
# The packages of the [export] extra of pyproject.toml, which [bench] includes.
_EXPORT_PACKAGES = (
    *("torch", "onnx", "ml_dtypes", "onnxscript", "onnxruntime", "spandrel", "safetensors"),
    *("einops", "jinja2", "filelock"),
)
# Control characters, and the marks that reorder text: a file name could otherwise move the cursor,
# change the window title, or show itself under another name. Newlines and tabs are the commands'.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_WORD = 300
# Raised where memory or the number of processes is limited.
_NO_THREAD = re.compile("can't (start|allocate).* (thread|lock)")


def run(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the arguments and run a command.

    Returns:
        The exit code: the command's; 1 after an error, which is printed as one line; 130 after
        Ctrl-C; 128 and the signal's number after SIGTERM or SIGHUP. Wrong usage exits with 2.
    """
    _open_standard_streams()
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    version = f"%(prog)s {sr_deploy.__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    arguments = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # not a terminal, a file or a pipe
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with on_signals(("SIGTERM", "SIGHUP"), _interrupt):
            return command(arguments)
    except KeyboardInterrupt as interrupt:
        complain(parser.prog, "interrupted; no incomplete file was left behind")
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except (SrDeployError, OSError, MemoryError, ImportError, RuntimeError) as error:
        if type(error) is RuntimeError and not _NO_THREAD.match(str(error)):
            raise
        if arguments.debug:
            traceback.print_exc()
        complain(parser.prog, describe(error))
        return 1


def _open_standard_streams() -> None:
    """Replace standard streams that are closed, except stderr, by streams that fail.

    Otherwise the next files that are opened get their numbers, and whatever libraries print to
    stdout and stderr ends up in these files.
    """
    streams = (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_RDWR))
    for number, (name, flags) in enumerate(streams):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, flags)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            # Without a buffer: nothing is left to fail again at exit.
            raw = open(number, "wb" if number else "rb", 0, closefd=False)  # noqa: SIM115
            setattr(sys, name, io.TextIOWrapper(raw, write_through=True))


def _interrupt(number: int) -> None:
    """Clean up as after Ctrl-C."""
    raise KeyboardInterrupt(number)


@contextlib.contextmanager
def on_signals(names: Sequence[str], handle: Callable[[int], None]) -> Iterator[None]:
    """Call a function on signals, except those that are ignored: that is how nohup works.

    Children that libraries fork are ended by them as usual.
    """
    command = os.getpid()

    def handler(number: int, _: FrameType | None) -> None:
        if os.getpid() != command:
            os._exit(128 + number)
        handle(number)

    before = {}
    for name in names:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not the main thread
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def require(extra: str, program: str) -> None:
    """Check that the packages of [export] or of an extra that includes it are installed.

    Raises:
        BackendMissingError: One is not; the text names the command that installs it.
    """
    missing = [name for name in _EXPORT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendMissingError(
            f"{program} needs {', '.join(missing)}, which the [{extra}] extra installs: "
            f'pip install "sr-deploy[{extra}]"'
        )


def describe(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.errno == errno.EBADF and error.filename is None:
        return "stdin or stdout is closed"
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Return text that is safe on a terminal: control characters escaped, long words shortened."""
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda found: _shortened(found[0]), text)


def _shortened(word: str) -> str:
    half = _LONGEST_WORD // 2
    return f"{word[:half]}...{word[-half:]}"


def complain(program: str, message: str) -> None:
    """Print an error or a warning to stderr; it replaces the progress line, if there is one."""
    wiped = _WIPE if sys.stderr.isatty() else ""
    print(f"{wiped}{program}: {printable(message)}", file=sys.stderr)  # noqa: T201


def say(text: str = "") -> None:
    """Print a result to stdout and flush: a reader of the pipe sees it at once."""
    _print(printable(text))


def say_json(value: dict[str, Any], *, indent: int | None = None) -> None:
    """Print JSON, which escapes control characters by itself, to stdout and flush."""
    _print(json.dumps(value, indent=indent))


def _print(text: str) -> None:
    if sys.stdout.isatty() and sys.stderr.isatty():  # one screen: replace the progress line
        sys.stderr.write(_WIPE)
        sys.stderr.flush()
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        raise OSError(error.errno, f"stdout: {error.strerror}") from error


class Progress:
    """One line on stderr that is redrawn in place; silent without a terminal.

    A context manager, which erases the line at its end.
    """

    def __init__(self, total: int = 0, unit: str = "") -> None:
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = time.monotonic()
        self._drawn = 0.0
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._visible:
            sys.stderr.write(_WIPE)
            sys.stderr.flush()

    def stage(self, text: str) -> None:
        """Show the current stage, where there is nothing to count."""
        self._draw(text)

    def step(self, text: str = "") -> None:
        """Count one item as done."""
        self._done += 1
        now = time.monotonic()
        if now - self._drawn < _REDRAW_SECONDS and self._done < self._total:
            return
        self._drawn = now
        seconds = max(now - self._start, 1e-9)
        rate = self._done / seconds
        left = (self._total - self._done) / rate
        self._draw(
            f"{self._done}/{self._total} {self._unit}  {rate:.2f}/s  {clock(left)} left  {text}"
        )

    def _draw(self, text: str) -> None:
        if self._visible:
            sys.stderr.write(f"{_WIPE}{printable(text)[:100]}")
            sys.stderr.flush()


def clock(seconds: float) -> str:
    """Format a duration: 7 s, 3:05, 1:02:03."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
