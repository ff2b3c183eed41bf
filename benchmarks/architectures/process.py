"""Exports in a child process, which may crash or exceed its time limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from typing import TYPE_CHECKING, Any

from architectures import exporting
from sr_deploy._worker import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from architectures.cells import Cell

# Imports dominate the time of a small network: the fork server imports once, then forks, where
# `sr_deploy._worker` would import for each of hundreds of cells. Only our code sends pickles.
# The server computes nothing: a forked process inherits locks, not the threads that hold them.
_IMPORTED = (
    "architectures.fork_server",
    "architectures.exporting",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "torch._dynamo",
    "torch.onnx.ops",
)


def export(cell: Cell, seconds: float, how: Callable[[Cell], Any] = exporting.export) -> Any:
    """Return the result of an export, which may be a crash or a timeout."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(list(_IMPORTED))
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=_answer, args=(cell, how, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return {"error": f"not finished within {seconds:g} s"}
        row = ours.recv()
    except EOFError:
        process.join()
        return {"error": f"crashes ({_cause(process.exitcode)})"}
    else:
        return row
    finally:
        process.kill()
        process.join()


def _answer(cell: Cell, how: Callable[[Cell], Any], answers: Connection) -> None:
    die_with_parent()  # the fork server, which ends when it sees that this program has ended
    warnings.simplefilter("ignore")  # from the code of the networks
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    try:
        row = how(cell)
    except Exception as error:
        row = {"error": f"fails: {type(error).__name__}: {error}"}
    answers.send(row)


def _cause(code: int | None) -> str:
    return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
