#!/usr/bin/env python3
"""Everything that a developer runs, from a fresh clone: needs Python 3.10 or newer, nothing else.

python3 dev.py demo    make the environment, export the shipped checkpoint, upscale a picture
python3 dev.py test    make the environment, run linter, type checker and tests
python3 dev.py setup   make the environment only
python3 dev.py gpu-check BUNDLE ...   what only a GPU can show; without network or environment

The environment is .venv; it is made once and again when pyproject.toml or the pins change.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
CONSTRAINTS = ROOT / "constraints.txt"


def main() -> int:
    """Run one task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["demo", "test", "setup", "gpu-check"])
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    task = arguments.task
    try:
        if task == "gpu-check":
            run([sys.executable, "benchmarks/gpu_check", *arguments.options])
            return 0
        setup()
        if task == "demo":
            demo()
        elif task == "test":
            test()
    except subprocess.CalledProcessError as error:
        print(f"dev.py: failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


def setup() -> None:
    """Make the environment, unless it is there and what it was made from has not changed."""
    compiled = (ROOT / "native").glob("[hkp]*.[ch]*")  # what was built lies there, too
    sources = [ROOT / "pyproject.toml", CONSTRAINTS, *sorted(compiled)]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = ENVIRONMENT / "made-from"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("dev.py: making the environment in .venv (a few minutes)", file=sys.stderr)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [BIN / "python", "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS]
    run([*pip, "--upgrade", "pip"])
    run([*pip, "--editable", ".[cpu,export,video]", "--group", "dev"])
    stamp.write_text(wanted)


def demo() -> None:
    """The main job, end to end: from the shipped checkpoint to an upscaled picture, measured."""
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    bundle = out / "compact_x2.srd"
    big = out / "cat_x2.png"
    run([BIN / "sr-export", "examples/compact_x2.pth", "--output", bundle])
    run([BIN / "sr-upscale", bundle, "examples/cat.png", big, "--overwrite"])
    run([BIN / "sr-bench", "quality", bundle, "--ground-truth", "examples/original"])
    print(f"\nLook at {big.relative_to(ROOT)}, made from examples/cat.png.")


def test() -> None:
    """What CI runs: linter, formatter, type checker, tests."""
    run([BIN / "ruff", "check", "."])
    run([BIN / "ruff", "format", "--check", "."])
    run([BIN / "mypy"])
    run([BIN / "python", "tests/bindings/check.py"])
    run([BIN / "python", "-m", "pytest"])


def run(command: list[object]) -> None:
    """Run a command in the project's folder; stop when it fails."""
    sys.stdout.flush()
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
