"""TensorRT in a child process, as far as it goes without TensorRT."""

from __future__ import annotations

import os

import pytest

from sr_deploy.errors import BackendError, BackendMissingError
from sr_export.trt.worker import TensorRtProcess
from tests.sr_deploy.test_worker import STUB


def test_progress_names_the_stage_and_its_detail() -> None:
    told: list[str] = []
    with TensorRtProcess(told.append, module=STUB) as process:
        assert process.call("echo", "echoing", number=1)["number"] == 1
    assert "echoing, 0 s" in told[0]
    assert any("halfway" in each for each in told)


def test_a_crash_is_a_backend_error_with_the_stage() -> None:
    with (
        TensorRtProcess(lambda _: None, module=STUB) as process,
        pytest.raises(BackendError, match=r"SIGABRT.*crashing on purpose.*the last words"),
    ):
        process.call("crash", "crashing on purpose")


def test_the_real_child_names_what_is_missing() -> None:
    # cuda-python, a driver or a GPU, whichever the machine lacks.
    if os.path.exists("/dev/nvidiactl"):  # noqa: PTH110
        pytest.skip("nothing is missing here")
    with (
        TensorRtProcess(lambda _: None) as process,
        pytest.raises((BackendMissingError, BackendError)),
    ):
        process.call("describe", "starting", library="tensorrt", device=0)
