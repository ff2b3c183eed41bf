"""What the commands share: one-line errors, exit codes, and progress that knows its place."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from sr_deploy.errors import SrDeployError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

_REDRAW_SECONDS = 0.1
_WIPE = "\r\x1b[K"


def run(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the arguments and run a command; turn its errors into one line and an exit code.

    Exit codes: what the command returns; 1 for an error that it raises; 2 for wrong usage, which
    argparse sees to; 130 for Ctrl-C.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    try:
        return command(arguments)
    except KeyboardInterrupt:
        complain(parser.prog, "interrupted; nothing half-written was left behind")
        return 130
    except (SrDeployError, OSError, MemoryError) as error:
        if arguments.debug:
            traceback.print_exc()
        complain(parser.prog, describe(error))
        return 1


def describe(error: BaseException) -> str:
    """Return an error as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def complain(program: str, message: str) -> None:
    """Print an error or a warning to stderr, in the place of a progress line if there is one."""
    wiped = _WIPE if sys.stderr.isatty() else ""
    print(f"{wiped}{program}: {message}", file=sys.stderr)  # noqa: T201


def say(text: str = "") -> None:
    """Print a result to stdout, at once: what is long at work may be read through a pipe."""
    print(text, flush=True)  # noqa: T201


def say_json(value: dict[str, Any]) -> None:
    """Print a line of JSON to stdout at once, for the program that reads it."""
    print(json.dumps(value), flush=True)  # noqa: T201


class Progress:
    """One line on stderr that is redrawn in place; silent without a terminal.

    Use as a context manager; the line is wiped at the end, so only results stay.
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
        """Show what is being done now, where there is nothing to count."""
        self._draw(text)

    def step(self, text: str = "") -> None:
        """Count one piece of work as done."""
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
            sys.stderr.write(f"{_WIPE}{text[:100]}")
            sys.stderr.flush()


def clock(seconds: float) -> str:
    """Return a duration as people read it: 7 s, 3:05, 1:02:03."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
