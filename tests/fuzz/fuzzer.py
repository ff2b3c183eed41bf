"""Opens hostile files in a child process and judges how each is refused.

A file is a finding if the child crashes or raises what no command expects, exceeds a limit that
`sr-export` does not have itself, prints more than one line, or leaves files behind.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from sr_deploy._worker import Limits, Worker, WorkerCrashError, WorkerLimitError
from sr_deploy.errors import ExportError, SrDeployError
from tests.fuzz import cases, hostile_checkpoints

_MEMORY = 1 << 30
_SECONDS = 90.0
# What `subprocess_export` allows beside the file's own share.
_READING = 448 << 20


@dataclass(frozen=True)
class Finding:
    """A file that was not refused as it should be; `kind` and `number` make it again."""

    kind: str
    number: int
    problem: str


class Fuzzer:
    """Runs numbered cases; the same numbers give the same files. A context manager.

    Args:
        folder: For the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seeds = cases.Seeds(folder)
        self._worker = Worker("tests.fuzz.target", ExportError)
        self._image = folder / "good.png"
        self._image.write_bytes(self._seeds.images[0])
        self.refused = self.accepted = 0

    def __enter__(self) -> Fuzzer:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def run(self, kind: str, number: int) -> Finding | None:
        """Run a case."""
        folder = self._fresh()
        path = cases.KINDS[kind](self._seeds, folder, Random(f"{kind} {number}"))
        problem = self.problem(kind, path)
        return Finding(kind, number, problem) if problem else None

    def recipe(self, name: str) -> str:
        """Run a recipe of `hostile_checkpoints`; return its name and what is wrong, or nothing."""
        folder = self._fresh()
        path = folder / "net.pth"
        path.write_bytes(hostile_checkpoints.HOSTILE[name]())
        problem = self.problem("checkpoint", path)
        return f"{name}: {problem}" if problem else ""

    def problem(self, kind: str, path: Path) -> str:
        """Open a file of a kind alone in its folder; return what is wrong, or an empty text."""
        out = path.parent / f"out{'.png' if kind == 'bundle' else path.suffix}"
        before = _listing(path.parent)
        try:
            code, printed = self._open(kind, path, out)
        except WorkerCrashError as crash:
            return f"crash ({crash.cause}): {crash.last_line}"
        except WorkerLimitError as limit:
            return "" if kind in ("checkpoint", "onnx") and "memory" in str(limit) else f"{limit}"
        except SrDeployError as error:
            return f"unexpected {type(error).__name__}: {error}"
        if code == 0:
            self.accepted += 1
        else:
            self.refused += 1
        # The part of a damaged video that can be decoded is kept, and the exit code is 1.
        allowed = {out.name} if code == 0 or kind == "video" else set()
        left = _listing(path.parent) - before - allowed
        if left:
            return f"left behind: {', '.join(sorted(left))}"
        if code not in (0, 1):
            return f"exit code {code}: {printed[-300:]}"
        lines = printed.strip().splitlines()
        # A video has a line for damage inside, and one for its end.
        wanted = 2 if kind == "video" else 1
        if code == 1 and not 1 <= len(lines) <= wanted:
            return f"{len(lines)} lines: {printed[:300]}"
        return ""

    def _fresh(self) -> Path:
        folder = self._folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _open(self, kind: str, path: Path, out: Path) -> tuple[int, str]:
        if self._worker.pid is None:  # imports are not the file's
            self._call("read", path=str(self._folder / "nothing"))
            out_of_nothing = self._folder / "nothing" / "out.png"
            self._call(
                "upscale",
                arguments=self._arguments(self._seeds.bundle, self._image, out_of_nothing),
            )
        memory, seconds = self._worker.usage()
        most = _MEMORY
        if kind in ("checkpoint", "onnx"):
            most = memory + _READING + 6 * path.stat().st_size
        self._worker.limits = Limits(memory=most, seconds=seconds + _SECONDS)
        if kind in ("checkpoint", "onnx"):
            return self._call("read", path=str(path))
        model, source = (path, self._image) if kind == "bundle" else (self._seeds.bundle, path)
        return self._call("upscale", arguments=self._arguments(model, source, out))

    @staticmethod
    def _arguments(bundle: Path, source: Path, out: Path) -> list[str]:
        return [*map(str, (bundle, source, out)), "--threads", "1", "--memory", "768MiB"]

    def _call(self, function: str, **arguments: Any) -> tuple[int, str]:
        code, text = self._worker.call(function, **arguments)
        return code, text


def _listing(folder: Path) -> set[str]:
    """Return the names of all files below a folder, and its parent's."""
    inside = {str(each.relative_to(folder)) for each in folder.rglob("*")}
    return inside | {f"../{each.name}" for each in folder.parent.iterdir()}
