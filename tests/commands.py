"""The commands in processes of their own, as users run them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sr_deploy.files import TEMPORARY

MODULES = {
    "sr-upscale": "sr_deploy.cli.upscale",
    "sr-generate": "sr_deploy.cli.generate",
    "sr-doctor": "sr_deploy.cli.doctor",
    "sr-export": "sr_export.cli",
    "sr-bench": "sr_bench.cli",
}


def command(program: str, *arguments: object, before: str = "") -> list[str]:
    """Return a command line.

    Args:
        program: A key of MODULES.
        arguments: Of the program.
        before: Python code that runs first.
    """
    code = f"import sys\n{before}\nfrom {MODULES[program]} import main\nsys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def ended(program: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; options are those of `subprocess.run`."""
    # A full disk would leave truncated bytecode, which Python writes without checking.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    usual = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 120}
    options = {**usual, "env": environment, **options}
    before = options.pop("before", "")
    return subprocess.run(command(program, *arguments, before=before), check=False, **options)


def fails_with_one_line(process: subprocess.CompletedProcess[bytes], program: str) -> str:
    """Check that a command failed with one line, as is due; return that line."""
    said = process.stderr.decode(errors="backslashreplace")
    assert process.returncode == 1, said
    (line,) = said.splitlines()
    assert line.startswith(f"{program}: ")
    return line


def kill_at_random(
    start: Callable[[], subprocess.Popen[bytes]], seconds: float, noise: random.Random
) -> bool:
    """Kill a process (SIGKILL) at a random moment; return whether it had not ended before."""
    process = start()
    time.sleep(noise.uniform(0.2, 1) * seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, without temporaries."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not TEMPORARY.fullmatch(path.name)
    }
