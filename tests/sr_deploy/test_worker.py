"""Child processes: calls, errors, crashes, and that none outlives its parent."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sr_deploy._worker import Limits, Worker, WorkerCrashError, WorkerLimitError
from sr_deploy.errors import (
    BackendError,
    BackendMissingError,
    ExportError,
    OutOfMemoryError,
    SrDeployError,
)

STUB = "tests.sr_deploy.stub_worker"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(STUB, ExportError) as worker:
        yield worker


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_calls_go_to_one_process_with_progress(worker: Worker) -> None:
    told: list[str] = []
    first = worker.call("echo", progress=told.append, number=1, text="ü")
    second = worker.call("echo", progress=told.append, number=2)

    assert (first["number"], first["text"], second["number"]) == (1, "ü", 2)
    assert first["pid"] == second["pid"] == worker.pid != os.getpid()
    assert told == ["halfway", "halfway"]
    assert worker.log().count("printed by a library") == 2


def test_the_caller_hears_while_it_waits(worker: Worker) -> None:
    turns = []

    def waiting() -> None:
        turns.append(time.monotonic())
        if len(turns) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        worker.call("sleep", waiting=waiting)
    assert worker.pid is None


@pytest.mark.parametrize("kind", [OutOfMemoryError, BackendMissingError])
def test_errors_keep_their_class(worker: Worker, kind: type[SrDeployError]) -> None:
    with pytest.raises(kind, match="what went wrong") as raised:
        worker.call("fail", error=kind.__name__)
    assert "Traceback" in str(raised.value.__cause__)
    assert worker.call("echo")["pid"] == worker.pid


@pytest.mark.parametrize("name", ["OSError", "MemoryError"])
def test_other_expected_errors_are_of_the_class_that_was_named(worker: Worker, name: str) -> None:
    with pytest.raises(ExportError, match="what went wrong"):
        worker.call("fail", error=name)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_crash_names_its_signal_and_the_next_call_works(worker: Worker) -> None:
    with pytest.raises(WorkerCrashError, match="SIGABRT") as raised:
        worker.call("crash")
    assert raised.value.by_signal
    assert raised.value.last_line == "the last words"
    assert worker.call("echo", number=3)["number"] == 3


def test_a_defect_names_its_exception(worker: Worker) -> None:
    with pytest.raises(WorkerCrashError) as raised:
        worker.call("defect")
    assert not raised.value.by_signal
    assert raised.value.last_line == "ZeroDivisionError: oops"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_kill_by_the_system_suggests_a_lack_of_memory(worker: Worker) -> None:
    pid = worker.call("echo")["pid"]
    threading.Timer(0.2, lambda: os.kill(pid, signal.SIGKILL)).start()
    with pytest.raises(WorkerCrashError, match=r"SIGKILL.*memory"):
        worker.call("sleep")


@pytest.fixture
def listening() -> Iterator[None]:
    """Handle Ctrl-C, which a program that a shell started in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_ends_the_process(worker: Worker) -> None:
    pid = worker.call("echo")["pid"]
    # Not a real signal: faulthandler's stack for those is too small on processors with AMX.
    threading.Timer(0.3, _thread.interrupt_main).start()

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        worker.call("sleep", waiting=lambda: None)

    assert time.monotonic() - start < 10
    assert not alive(pid)


def test_nothing_is_left_at_the_end() -> None:
    with Worker(STUB, BackendError) as worker:
        pid = worker.call("echo")["pid"]
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("death_signal", [True, False], ids=["kernel", "end of stdin"])
def test_a_child_never_outlives_its_parent(tmp_path: Path, death_signal: bool) -> None:
    started = tmp_path / "pid"
    module = STUB
    if not death_signal:  # as on other systems, where stdin tells
        module = "without_death_signal"
        (tmp_path / f"{module}.py").write_text(
            "import runpy\n"
            "from sr_deploy import _worker\n"
            "_worker.die_with_parent = lambda: None\n"
            f"runpy.run_module({STUB!r}, run_name='__main__')\n"
        )
    code = (
        "from sr_deploy._worker import Worker\n"
        "from sr_deploy.errors import ExportError\n"
        f"Worker({module!r}, ExportError).call('sleep', started={str(started)!r})\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, cwd=ROOT
    )
    while not (started.exists() and started.read_text()):
        assert parent.poll() is None
        time.sleep(0.02)
    child = int(started.read_text())
    assert alive(child)

    parent.kill()
    parent.wait()

    assert gone_within(child, seconds=2)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux kills it")
def test_a_command_never_outlives_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    inner = f"import os,time; open({str(note)!r},'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        f"import sys; from sr_deploy import _worker; _worker.run([sys.executable,'-c',{inner!r}])"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    while not (note.exists() and note.read_text()):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert gone_within(int(note.read_text()), seconds=2)


def test_an_interpreter_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with (
        Worker(STUB, ExportError, python=str(tmp_path / "python")) as worker,
        pytest.raises(FileNotFoundError),
    ):
        worker.call("echo")


ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@ONLY_LINUX
def test_memory_beyond_the_limit_ends_the_process() -> None:
    with Worker(STUB, ExportError, limits=Limits(memory=256 << 20)) as worker:
        pid = worker.call("echo")["pid"]
        start = time.monotonic()
        with pytest.raises(WorkerLimitError, match="256 MiB of memory"):
            worker.call("fill", size=8 << 30)
        assert time.monotonic() - start < 5
        assert not alive(pid)
        assert worker.call("fill", size=1 << 20) == 1 << 20  # by another process


@ONLY_LINUX
def test_memory_is_stopped_close_to_its_limit() -> None:
    import resource  # not on Windows

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    limit = max(256 << 20, (before << 10) + (64 << 20))
    with (
        Worker(STUB, ExportError, limits=Limits(memory=limit)) as worker,
        pytest.raises(WorkerLimitError),
    ):
        worker.call("fill", size=8 << 30)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    assert limit < peak < limit + (512 << 20)


@ONLY_LINUX
def test_processor_time_beyond_the_limit_ends_the_process() -> None:
    with (
        Worker(STUB, ExportError, limits=Limits(seconds=1)) as worker,
        pytest.raises(WorkerLimitError, match="1 s of processor time"),
    ):
        worker.call("spin")


@ONLY_LINUX
def test_limits_change_while_a_call_runs() -> None:
    with Worker(STUB, ExportError) as worker:

        def narrow(_: str) -> None:
            memory, seconds = worker.usage()
            assert memory > 1 << 20
            worker.limits = Limits(seconds=seconds + 0.2)

        with pytest.raises(WorkerLimitError):
            worker.call("spin", progress=narrow)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_file_beyond_the_limit_is_an_error_and_the_process_goes_on(tmp_path: Path) -> None:
    with Worker(STUB, ExportError, limits=Limits(file_size=1 << 16)) as worker:
        pid = worker.call("write", path=str(tmp_path / "small"), size=1 << 16)
        with pytest.raises(ExportError):
            worker.call("write", path=str(tmp_path / "large"), size=1 << 17)
        assert worker.call("echo")["pid"] == pid
