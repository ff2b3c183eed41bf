"""The process that TensorRT runs in, from outside: it can be interrupted, and it may crash."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from sr_deploy import errors
from sr_deploy.cli import console
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[[str], None]

_REDRAW_SECONDS = 0.2
_SPINNER = "|/-\\"


class Worker:
    """TensorRT in a process of its own, started with the first call. A context manager.

    Args:
        report: Called several times a second with what is being done, and for how long.
        module: What runs in the process.
    """

    def __init__(self, report: Report, module: str = "sr_export.trt.worker") -> None:
        self._report = report
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - see __exit__

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()

    def call(self, name: str, stage: str, **arguments: object) -> dict[str, Any]:
        """Have something done, and return the result.

        Args:
            name: Of a function of `worker`.
            stage: What is being done, in words.
            arguments: Of the call.

        Raises:
            SrDeployError: what the function raises.
            BackendError: TensorRT crashed.
        """
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"call": name} | arguments) + "\n")
            process.stdin.flush()
            return self._answer(stage)
        except BrokenPipeError:
            raise self._crashed(stage) from None
        except KeyboardInterrupt:
            self._stop()
            raise

    def _started(self) -> subprocess.Popen[str]:
        """Return the process; a new one if there is none, or if it crashed."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._events = queue.SimpleQueue()
        path = os.pathsep.join(each for each in sys.path if each)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C comes here alone
        )
        arguments = (self._process, self._events)
        self._reader = threading.Thread(target=_read, args=arguments, daemon=True)
        self._reader.start()
        return self._process

    def _answer(self, stage: str) -> dict[str, Any]:
        start, turn = time.monotonic(), 0
        detail = ""
        while True:
            elapsed = console.clock(time.monotonic() - start)
            self._report(f"{_SPINNER[turn % 4]} {stage}, {elapsed}  {detail}")
            turn += 1
            try:
                event = self._events.get(timeout=_REDRAW_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                raise self._crashed(stage)
            if "error" in event:
                raise self._error(event)
            if "result" in event:
                result: dict[str, Any] = event["result"]
                return result
            detail = event["stage"]

    def _error(self, event: dict[str, Any]) -> Exception:
        """Return the error that the process had, of the class that it had there."""
        kind = getattr(errors, event["error"], BackendError)
        error: Exception = kind(event["text"])
        error.__cause__ = RuntimeError(self._said())  # shown by --debug
        return error

    def _crashed(self, stage: str) -> BackendError:
        assert self._process is not None
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = self._said().strip().splitlines()
        error = BackendError(
            f"TensorRT crashed ({cause}) while {stage}" + (f": {said[-1]}" if said else "")
        )
        error.__cause__ = RuntimeError("\n".join(said))
        return error

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        assert self._reader is not None
        self._reader.join()  # it reads from what is closed now
        with contextlib.suppress(BrokenPipeError), self._process:
            pass
        self._process = None


def _read(process: subprocess.Popen[str], events: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Pass on the process's events; None at its end."""
    assert process.stdout is not None
    for line in process.stdout:
        events.put(json.loads(line))
    events.put(None)
