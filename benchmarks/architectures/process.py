"""Exporting in a process of its own: a crash, or a time that is up, ends nothing else."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import warnings
from typing import TYPE_CHECKING

from architectures.exporting import Row
from architectures.exporting import export as export_here

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from architectures.cells import Cell

# What exporting imports late. A process that is forked has it already, and saves most of its time.
_LATE = ("onnxruntime", "onnxscript", "openvino", "torch._dynamo", "torch.onnx.ops")


def export(cell: Cell, seconds: float) -> Row:
    """Export a network and return what came of it, also where it crashed or took too long."""
    for name in _LATE:
        importlib.import_module(name)
    forking = multiprocessing.get_context("fork")
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=_answer, args=(cell, theirs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads beside this one are idle
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


def _answer(cell: Cell, answers: Connection) -> None:
    warnings.simplefilter("ignore")  # of the networks' own programs
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    try:
        row = export_here(cell)
    except Exception as error:
        row = {"error": f"fails: {type(error).__name__}: {error}"}
    answers.send(row)


def _cause(code: int | None) -> str:
    return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
