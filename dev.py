#!/usr/bin/env python3
"""Every developer task, from a fresh clone. Needs only Python 3.10 or newer and git.

python3 dev.py demo          create the environment, export a checkpoint, upscale a picture
python3 dev.py test          create the environment, then run every check and every test
python3 dev.py test --fast   the same without the slow tests, for daily work
python3 dev.py lint          formatter, linter, type checker and import contracts only
python3 dev.py docs          build the documentation into site/
python3 dev.py minimal       import the package and run its commands with numpy and Pillow only
python3 dev.py lowest        run the fast tests with the lowest version of every dependency
python3 dev.py setup         create the environment only
python3 dev.py gpu-check BUNDLE ...   everything that needs a GPU, in one run; no network needed

The environment is .venv. It is created once, and again after pyproject.toml, constraints.txt or
native/ has changed. Arguments after `test` go to pytest: `dev.py test -k tiling`.
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
PINNED = ROOT / "constraints.txt"
LOWEST = ROOT / "constraints-lowest.txt"
# Plain `torch` installs several gigabytes of CUDA on Linux; the pinned release has a CPU build.
TORCH = "torch==2.13.0"


def main() -> int:
    """Run one task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        TASKS[arguments.task](arguments.options)
    except subprocess.CalledProcessError as error:
        print(f"dev.py: failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


def setup(_options: list[str]) -> None:
    """Create .venv, unless it exists and its inputs have not changed."""
    sources = [ROOT / "pyproject.toml", PINNED]
    # native/ also holds build outputs of the editable installation.
    sources += sorted((ROOT / "native").glob("[hkp]*.[ch]*"))
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = ENVIRONMENT / "made-from"
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return
    # With TensorRT for RTX, tests build real plans, without a GPU.
    create(ENVIRONMENT, "--constraint", PINNED, extras="[cpu,export,rtx,video]")
    stamp.write_text(fingerprint)


def demo(options: list[str]) -> None:
    """Run the main job end to end: export the shipped checkpoint, upscale, measure."""
    setup(options)
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    bundle = out / "compact_x2.srd"
    big = out / "cat_x2.png"
    command("sr-export", "examples/compact_x2.pth", "--output", bundle, "--overwrite")
    command("sr-upscale", bundle, "examples/cat.png", big, "--overwrite")
    command("sr-bench", "quality", bundle, "--ground-truth", "examples/original")
    print(f"\nLook at {big.relative_to(ROOT)}, made from examples/cat.png.")


def lint(options: list[str]) -> None:
    """Check format, style, types, import contracts and the GitHub workflows."""
    setup(options)
    command("ruff", "check", ".")
    command("ruff", "format", "--check", ".")
    command("mypy")
    command("lint-imports", "--no-logo")
    command(
        *("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
        *sorted((ROOT / ".github" / "workflows").glob("*.yml")),
    )


def test(options: list[str]) -> None:
    """Run what CI runs: every check, the documentation build and the tests."""
    fast = "--fast" in options
    options = [option for option in options if option != "--fast"]
    lint([])
    if not fast:
        command("python", "tests/bindings/check.py")
        docs([])
    pytest(ENVIRONMENT, *(["-m", "not slow"] if fast else []), *options)


def docs(options: list[str]) -> None:
    """Build the documentation; every warning is an error."""
    setup(options)
    # Without it, the theme prints an announcement of its own on every build.
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    command("mkdocs", "build", "--strict", "--quiet")


def minimal(_options: list[str]) -> None:
    """Check that the package imports and its commands answer with numpy and Pillow only."""
    environment = ROOT / ".venv-minimal"
    create(environment, "--constraint", lowest_or_pinned(), extras="", groups=[])
    run([python_of(environment), "tests/minimal.py"])


def lowest(options: list[str]) -> None:
    """Run the fast tests with the lowest versions; `--torch 2.6.0` installs that one, too."""
    if lowest_or_pinned() != LOWEST:
        sys.exit("dev.py: the lowest versions have no wheels for Python 3.12; use 3.10 or 3.11")
    parser = argparse.ArgumentParser(prog="dev.py lowest")
    parser.add_argument("--torch", default=TORCH.partition("==")[2], metavar="VERSION")
    wanted, rest = parser.parse_known_args(options)
    environment = ROOT / ".venv-lowest"
    torch = f"torch=={wanted.torch}"
    create(environment, "--constraint", LOWEST, torch, groups=["test"])
    pytest(environment, "-m", "not slow", *rest)


def gpu_check(options: list[str]) -> None:
    """Run everything that needs a GPU with the Python that runs this file."""
    run([sys.executable, "benchmarks/gpu_check", *options])


def create(
    environment: Path,
    *arguments: object,
    extras: str = "[cpu,export,video]",
    groups: list[str] | None = None,
) -> None:
    """Create an environment and install the project into it."""
    print(f"dev.py: creating {environment.name} (a few minutes)", file=sys.stderr)
    venv.create(environment, with_pip=True, clear=True)
    pip = [python_of(environment), "-m", "pip", "install", "--quiet"]
    # Older releases of pip do not know dependency groups.
    run([*pip, "--constraint", PINNED, "--upgrade", "pip"])
    chosen = ["dev"] if groups is None else groups
    named = [option for group in chosen for option in ("--group", group)]
    run([*pip, *arguments, "--editable", f".{extras}", *named])


def lowest_or_pinned() -> Path:
    """Return the lowest versions where this Python has wheels of them, else the pinned ones."""
    return LOWEST if sys.version_info < (3, 12) else PINNED


def pytest(environment: Path, *options: object) -> None:
    """Run the tests on all cores, fast ones first."""
    run([python_of(environment), "-m", "pytest", "--numprocesses", "auto", *options])


def python_of(environment: Path) -> Path:
    """Return the interpreter of an environment."""
    return scripts_of(environment) / "python"


def scripts_of(environment: Path) -> Path:
    """Return the folder of an environment's commands."""
    return environment / ("Scripts" if os.name == "nt" else "bin")


def command(name: str, *arguments: object) -> None:
    """Run a command of .venv."""
    run([scripts_of(ENVIRONMENT) / name, *arguments])


def run(words: list[object]) -> None:
    """Run a command in the project's folder; stop when it fails."""
    sys.stdout.flush()
    subprocess.run(list(map(str, words)), check=True, cwd=ROOT)


TASKS = {
    "demo": demo,
    "test": test,
    "lint": lint,
    "docs": docs,
    "minimal": minimal,
    "lowest": lowest,
    "setup": setup,
    "gpu-check": gpu_check,
}

if __name__ == "__main__":
    sys.exit(main())
