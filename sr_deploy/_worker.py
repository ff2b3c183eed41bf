"""Child processes: a module runs in a new interpreter and answers calls.

Exporters, compilers and backends can crash, hang or run out of memory. In a child process such a
fault is an ordinary error of the command, and Ctrl-C always works.

The parent writes calls to the child's stdin; the child writes progress and results to its stdout.
Each is one JSON object per line: nothing from a child is unpickled. Large arrays go through files.
Whatever libraries print in the child goes to a log, which `--debug` shows with an error.

A child never outlives its parent: the kernel kills it (Linux), or it sees stdin close (elsewhere).

A child has limits of memory, processor time and file size: what it reads may come from a stranger,
and a file of 1 kB can ask for all memory of the machine, or compute forever. The parent looks at
the child's memory and time 40 times a second and kills it beyond a limit. The address space
(RLIMIT_AS) says little: torch reserves gigabytes that it never touches.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sr_deploy import errors, machine
from sr_deploy.errors import SrDeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    Progress = Callable[[str], None]

# How often `waiting` is called while a call runs.
_WAITING_SECONDS = 0.2
# How often the child's usage is compared with its limits; memory fills at about 4 GB/s.
_WATCH_SECONDS = 0.025
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Limits:
    """The most that a child may use.

    Attributes:
        memory: Resident bytes; by default, what the machine has free. Linux only.
        seconds: Processor time of all threads. Linux only.
        file_size: Bytes of each file that it writes, as a call begins. Not on Windows.
    """

    memory: int = field(default_factory=machine.free_memory)
    seconds: float | None = None
    file_size: int | None = None


class WorkerLimitError(Exception):
    """The child exceeded a limit and was killed; the text is the limit with its unit."""


class WorkerCrashError(Exception):
    """The child ended without an answer.

    Attributes:
        cause: The signal's name or the exit code.
        by_signal: A signal ended it; else Python did, with an exception that is not expected.
        log: Everything that the child printed.
    """

    def __init__(self, code: int, log: str) -> None:
        self.by_signal = code < 0
        self.cause = f"exit code {code}"
        if self.by_signal:
            self.cause = signal.Signals(-code).name
        if self.cause == "SIGKILL":
            self.cause += ", as when the system runs out of memory"
        self.log = log
        super().__init__(self.cause)

    @property
    def last_line(self) -> str:
        """The last line that the child printed; of a traceback, the one that names the error."""
        lines = self.log.strip().splitlines()
        return lines[-1] if lines else "no message"


class Worker:
    """A child process that answers calls. A context manager.

    The process starts with the first call, and again with the first call after a crash. On Linux it
    also dies with the thread that started it, so one thread makes all calls.

    Args:
        module: What runs: a module that calls `serve` when it is the main one.
        failure: The class of an error in the child that is none of `sr_deploy.errors`.
        python: The interpreter; None for this one, with this one's import path.
        environment: The child's environment variables; None for this process's.
        limits: The most that the child may use.

    Attributes:
        limits: As above; may be changed at any time, also while a call runs.
    """

    def __init__(
        self,
        module: str,
        failure: type[SrDeployError],
        *,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._failure = failure
        self.limits = limits or Limits()
        self._command = [python or sys.executable, "-m", module]
        self._environment = dict(os.environ if environment is None else environment)
        if python is None:
            self._environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        return None if self._process is None else self._process.pid

    def call(
        self,
        function: str,
        *,
        progress: Progress = lambda _: None,
        waiting: Callable[[], None] | None = None,
        **arguments: object,
    ) -> Any:
        """Call a function of the child and return its result.

        Args:
            function: A name that the child serves.
            progress: Called with each progress message of the child.
            waiting: Called several times a second until the result comes.
            arguments: Of the call; JSON values.

        Raises:
            SrDeployError: What the function raised, of the same class.
            WorkerCrashError: The child crashed.
            WorkerLimitError: The child exceeded a limit.
            OSError: The child cannot be started.
        """
        if self._process is None:
            self._start()
        try:
            most = self.limits.file_size
            self._send({"file_size": most, "call": function, "arguments": arguments})
            while True:
                event = self._next_event(waiting)
                if event is None:
                    raise self._crash()
                if "error" in event:
                    raise self._error(event)
                if "result" in event:
                    return event["result"]
                progress(event["progress"])
        except SrDeployError:
            raise
        except BaseException:  # Ctrl-C too: the child is busy with a call that nobody waits for
            self._stop()
            raise

    def log(self) -> str:
        """Return everything that the child printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """Kill the child, if there is one."""
        self._stop()
        self._log.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - a module of this project
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches the parent only, which ends the child
        )
        self._events = queue.SimpleQueue()
        self._reader = threading.Thread(
            target=_read_events, args=(self._process, self._events), daemon=True
        )
        self._reader.start()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _next_event(self, waiting: Callable[[], None] | None) -> dict[str, Any] | None:
        told = -_WAITING_SECONDS
        while True:
            if waiting is not None and time.monotonic() - told >= _WAITING_SECONDS:
                told = time.monotonic()
                waiting()
            self._check_limits()
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=_WATCH_SECONDS)

    def usage(self) -> tuple[int, float]:
        """Return the child's resident bytes and its processor seconds; 0 where unknown."""
        return _usage(self.pid) if self.pid is not None else (0, 0.0)

    def _check_limits(self) -> None:
        memory, seconds = self.usage()
        if memory > self.limits.memory:
            raise WorkerLimitError(f"{machine.format_bytes(self.limits.memory)} of memory")
        if self.limits.seconds is not None and seconds > self.limits.seconds:
            raise WorkerLimitError(f"{self.limits.seconds:.0f} s of processor time")

    def _error(self, event: dict[str, Any]) -> SrDeployError:
        """Return the error that the child raised."""
        kind = getattr(errors, event["error"], self._failure)
        error: SrDeployError = kind(event["text"])
        error.__cause__ = RuntimeError(self.log())
        return error

    def _crash(self) -> WorkerCrashError:
        assert self._process is not None
        return WorkerCrashError(self._process.wait(), self.log())

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        assert self._reader is not None
        self._reader.join()  # before its pipe is closed
        with contextlib.suppress(BrokenPipeError), self._process:
            pass
        self._process = None


def _usage(pid: int) -> tuple[int, float]:
    """Return the resident bytes and the processor seconds of a process; 0 where unknown."""
    try:
        entries = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0, 0.0
    user, system, pages = (int(entries[each]) for each in (11, 12, 21))
    seconds = (user + system) / os.sysconf("SC_CLK_TCK")
    return pages * os.sysconf("SC_PAGE_SIZE"), seconds


def _read_events(
    process: subprocess.Popen[bytes], events: queue.SimpleQueue[dict[str, Any] | None]
) -> None:
    """Pass on the child's events; None when it has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        events.put(json.loads(line))
    events.put(None)


def serve(functions: Mapping[str, Callable[..., Any]]) -> NoReturn:
    """Answer the parent's calls until it ends: the main loop of a child.

    Args:
        functions: By name. Each takes `progress`, a function of a text, and the call's arguments,
            and returns a JSON value. An `SrDeployError`, `OSError`, `MemoryError` or `ImportError`
            that it raises goes to the parent; any other exception ends the child.
    """
    die_with_parent()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between

    def send(**event: object) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_calls, args=(calls,), daemon=True).start()
    while True:
        call = json.loads(calls.get())
        function = functions[call["call"]]
        try:
            _limit_files(call["file_size"])
            result = function(progress=lambda text: send(progress=text), **call["arguments"])
        except (SrDeployError, OSError, MemoryError, ImportError) as error:
            traceback.print_exc()
            send(error=type(error).__name__, text=str(error) or type(error).__name__)
        else:
            send(result=result)


def _read_calls(calls: queue.SimpleQueue[bytes]) -> None:
    """Pass on the parent's calls; end this process when the parent has ended."""
    # Not through sys.stdin: a thread that waits in it makes Python abort when it exits.
    rest = b""
    while received := os.read(0, 1 << 16):
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            calls.put(line)
    os._exit(1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even while it is in native code."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that, on Linux, does not outlive this process, and return what it printed."""
    return subprocess.run(  # noqa: S603 - commands of this project
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
        # Between fork and exec it makes one system call and takes no lock.
        preexec_fn=die_with_parent if _LIBC is not None else None,
    )


def _limit_files(size: int | None) -> None:
    """Limit the size of each file that this process writes; a lower limit of the system stays.

    Core files have none: one of a child that fills the memory would fill the disk.
    """
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if size is not None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            allowed = size if hard == resource.RLIM_INFINITY else min(size, hard)
            resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, hard))
