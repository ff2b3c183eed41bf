"""Exporting in a process of its own: a crash, or a time that is up, ends nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from typing import TYPE_CHECKING

from architectures import exporting

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from architectures.cells import Cell
    from architectures.exporting import Row

# Imports take most of a small network's time. A server has them all, and forks; it has computed
# nothing itself, since a fork would lack the threads whose locks it inherits.
_IMPORTED = (
    "architectures.exporting",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "torch._dynamo",
    "torch.onnx.ops",
)


def export(cell: Cell, seconds: float, how: Callable[[Cell], Row] = exporting.export) -> Row:
    """Export a network and return what came of it, also where it crashed or took too long."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(list(_IMPORTED))
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=_answer, args=(cell, how, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return {"error": f"not done within {seconds:g} s"}
        row: Row = ours.recv()
    except EOFError:
        process.join()
        return {"error": f"crashes ({_cause(process.exitcode)})"}
    else:
        return row
    finally:
        process.kill()
        process.join()


def _answer(cell: Cell, how: Callable[[Cell], Row], answers: Connection) -> None:
    warnings.simplefilter("ignore")  # of the networks' own programs
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
