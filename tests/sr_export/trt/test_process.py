from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from sr_deploy.errors import BackendError, BackendMissingError, OutOfMemoryError, SrDeployError
from sr_export.trt.process import Worker

_STUB = "tests.sr_export.trt.stub_worker"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def worker(told: list[str]) -> Iterator[Worker]:
    with Worker(told.append, module=_STUB) as worker:
        yield worker


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_calls_go_to_one_process_and_progress_is_told(worker: Worker, told: list[str]) -> None:
    first = worker.call("echo", "echoing", number=1)
    second = worker.call("echo", "echoing again", number=2)

    assert (first["number"], second["number"]) == (1, 2)
    assert first["pid"] == second["pid"] != os.getpid()
    assert "echoing, 0 s" in told[0]
    assert any("halfway" in each for each in told)


@pytest.mark.parametrize("kind", [OutOfMemoryError, BackendMissingError])
def test_errors_keep_their_class(worker: Worker, kind: type[SrDeployError]) -> None:
    with pytest.raises(kind, match="what went wrong"):
        worker.call("fail", "failing", error=kind.__name__)


def test_a_crash_is_an_error_and_the_next_call_works(worker: Worker) -> None:
    with pytest.raises(BackendError, match=r"crashed \(SIGABRT\) while crashing: the last words"):
        worker.call("crash", "crashing")
    assert worker.call("echo", "echoing", number=3)["number"] == 3


@pytest.fixture
def listening() -> Iterator[None]:
    """Listen to Ctrl-C, which programs that a shell started in the background do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_ends_the_process(worker: Worker) -> None:
    pid = worker.call("echo", "echoing")["pid"]
    # Not a real signal: faulthandler's stack for those is too small on processors with AMX.
    threading.Timer(0.5, _thread.interrupt_main).start()

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        worker.call("sleep", "sleeping")

    assert time.monotonic() - start < 10
    assert not alive(pid)


def test_nothing_is_left_at_the_end(told: list[str]) -> None:
    with Worker(told.append, module=_STUB) as worker:
        pid = worker.call("echo", "echoing")["pid"]
    assert not alive(pid)


def test_the_real_one_says_what_is_missing(told: list[str]) -> None:
    # Whichever it is on the machine: cuda-python, a driver or a GPU.
    if os.path.exists("/dev/nvidiactl"):  # noqa: PTH110
        pytest.skip("nothing is missing here")
    with Worker(told.append) as worker, pytest.raises((BackendMissingError, BackendError)):
        worker.call("describe", "starting", device=0)
