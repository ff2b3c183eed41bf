"""Type stubs of the real bindings of TensorRT and TensorRT for RTX, made without a GPU.

    python tests/bindings/check.py

downloads the bindings of every supported version, compiles empty libraries for them to load, and
writes type stubs to `.tensorrt/`, which later runs reuse. NVIDIA's license does not allow us to
redistribute the bindings, so they are never committed. Tests that need them are skipped without.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".tensorrt"
_STUBGEN = "pybind11-stubgen==2.5.5"
_NEEDED = ("numpy", "Pillow")  # by TensorRT's module and by ours
_LIBRARIES = {
    "tensorrt": ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_onnxparser_rtx"),
}
# Symbols that the bindings of all versions import from their libraries. They are never called.
_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "getBuilderPluginRegistry",
    "initLibNvInferPlugins",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN11nvuffparser15createUffParserEv",
)
_FAILING = (
    "build_serialized_network",
    "create_execution_context",
    "create_execution_context_without_device_memory",
    "create_timing_cache",
    "deserialize_cuda_engine",
)
_LIST_NAMES = """
import json, MODULE
print(json.dumps({name: dir(value) for name, value in vars(MODULE).items()}))
"""


class UnavailableError(Exception):
    """The bindings of a version cannot be prepared on this machine."""


@dataclass(frozen=True)
class Version:
    """A supported release of TensorRT."""

    number: str
    distribution: str
    pythons: tuple[str, ...]
    """Supported Python versions with wheels."""
    module: str = "tensorrt"

    @property
    def folder(self) -> Path:
        """The folder of its bindings."""
        return CACHE / self.number

    @property
    def stubs(self) -> Path:
        """The folder of its stubs, for the type checker's path."""
        return self.folder / "stubs"

    def run(self, code: str) -> str:
        """Run Python code with the bindings on the path, and return its output.

        Raises:
            UnavailableError: the code failed.
        """
        ours = (self.folder, ROOT, ROOT / "export")
        path = os.pathsep.join(map(str, ours))
        environment = os.environ | {"LD_LIBRARY_PATH": str(self.folder), "PYTHONPATH": path}
        return _run([(self.folder / "python").read_text(), "-c", code], environment)

    def names(self) -> dict[str, list[str]]:
        """Return the module's names, each with the names in it."""
        names: dict[str, list[str]] = json.loads((self.folder / "names.json").read_text())
        return names


_MODERN = ("3.10", "3.11", "3.12", "3.13", "3.14")
VERSIONS = (
    Version("8.6.0", "tensorrt", ("3.10",)),
    Version("10.3.0", "tensorrt-cu12-bindings", _MODERN[:3]),
    Version("10.16.1.11", "tensorrt-cu13-bindings", _MODERN),
    Version("11.4.0.106", "tensorrt-cu13-bindings", _MODERN),
    Version("1.7.1.116", "tensorrt-rtx-cu13-bindings", _MODERN[:4], "tensorrt_rtx"),
)


def ready(version: Version) -> bool:
    """Return whether a version is in the cache."""
    return (version.folder / "names.json").is_file()


def prepare(version: Version) -> None:
    """Add a version to the cache, unless it is there.

    Raises:
        UnavailableError: this machine lacks something.
    """
    if ready(version):
        return
    python = _python(version.pythons)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        _unpack(_download(version, python, folder), version.module, folder)
        _compile_libraries(version, folder)
        environment = os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
        tools = _tools(python)
        generate = [str(tools), "-m", "pybind11_stubgen", version.module, "--ignore-all-errors"]
        _run([*generate, "--output-dir", str(folder / "stubs")], environment)
        made = (folder / "stubs" / f"{version.module}.pyi").read_text()
        # Our annotations have TensorRT's name for the classes of both libraries.
        (folder / "stubs" / "tensorrt.pyi").write_text(
            mended(made.replace(f"{version.module}.", "tensorrt."))
        )
        listing = _LIST_NAMES.replace("MODULE", version.module)
        names = _run([str(tools), "-c", listing], environment)
        (folder / "names.json").write_text(names)
        (folder / "python").write_text(str(tools))
        shutil.rmtree(version.folder, ignore_errors=True)
        # A copy, because `TemporaryDirectory` deletes its folder by name.
        shutil.copytree(folder, version.folder, ignore=shutil.ignore_patterns("*.whl"))


def mended(stubs: str) -> str:
    """Return stubs with valid syntax and the types that the bindings really accept and return."""
    lines = [_mended_line(line) for line in stubs.splitlines()]
    for name, method in {
        "Dims": "def __iter__(self) -> typing.Iterator[int]: ...",
        "IHostMemory": "def __buffer__(self, flags: int, /) -> memoryview: ...",
    }.items():
        lines.insert(lines.index(f"class {name}:") + 1, f"    {method}")
    lines.append("__version__: str")
    lines[lines.index("import typing")] = "import builtins, typing, typing_extensions"
    while (wrong := _first_error(lines)) is not None:
        # Functions of plugins and layers have parameters with invalid names or in an invalid order.
        start = max(i for i in range(wrong + 1) if lines[i].lstrip().startswith("def "))
        name = lines[start].split("(")[0]
        lines[start] = f"{name}(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:"
    return "\n".join(lines) + "\n"


def _mended_line(line: str) -> str:
    # The module has a data type named bool.
    line = re.sub(r"(?<=[\[:>] )bool\b|(?<=\[)bool\b", "builtins.bool", line)
    if not line.lstrip().startswith("def "):
        return line
    # Tuples are accepted as dimensions.
    line = re.sub(r"(?<=[(,])( ?\w+): Dims(?=[,)= ])", r"\1: Dims | tuple[int, ...]", line)
    # Functions that can fail return None.
    return re.sub(rf"(def (?:{'|'.join(_FAILING)})\(.*\) -> .*):$", r"\1 | None:", line)


def _first_error(lines: list[str]) -> int | None:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError as error:
        return (error.lineno or 1) - 1
    return None


def _python(versions: tuple[str, ...]) -> str:
    """Return an interpreter of one of the versions."""
    running = "{}.{}".format(*sys.version_info[:2])
    if running in versions:
        return sys.executable
    for version in versions:
        found = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
        for each in (shutil.which(f"python{version}"), *map(str, sorted(found))):
            if each and subprocess.run([each, "-c", ""], capture_output=True).returncode == 0:
                return each
    raise UnavailableError(f"Python {' or '.join(versions)} is not installed")


def _tag(python: str) -> str:
    """Return an interpreter's version."""
    return _run([python, "-c", "import sys; print('{}.{}'.format(*sys.version_info[:2]))"]).strip()


def _tools(python: str) -> Path:
    """Return an interpreter of the same version with the stub generator installed."""
    folder = CACHE / f"tools-{_tag(python)}"
    inner = folder / "bin" / "python"
    if not (folder / _STUBGEN).is_file():
        _run([python, "-m", "venv", "--clear", str(folder)])
        _run([str(inner), "-m", "pip", "install", "--quiet", _STUBGEN, *_NEEDED])
        (folder / _STUBGEN).touch()
    return inner


def _download(version: Version, python: str, folder: Path) -> Path:
    wanted = f"{version.distribution}=={version.number}"
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version", _tag(python)]
    pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted]
    _run(pip)
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, module: str, folder: Path) -> None:
    """Extract the bindings from the wheel, as a single module."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(f"/{module}.so"))
        (folder / f"{module}.so").write_bytes(archive.read(name))
    wheel.unlink()


def _compile_libraries(version: Version, folder: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise UnavailableError("this needs Linux and a C compiler")
    source = folder / "functions.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in _FUNCTIONS))
    for library in _LIBRARIES[version.module]:
        name = f"lib{library}.so.{version.number.split('.')[0]}"
        flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{name}"]
        _run([compiler, *flags, "-o", str(folder / name), str(source)])


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run a command and return its output.

    Raises:
        UnavailableError: the command failed.
    """
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines()
        last = lines[-1] if lines else f"exit code {error.returncode}"
        raise UnavailableError(f"{' '.join(command[:5])} ...: {last}") from error
    return done.stdout


def main() -> int:
    """Prepare every version; an unavailable one is reported, and is not an error."""
    for version in VERSIONS:
        if not ready(version):
            sys.stderr.write(f"{version.module} {version.number}: making type stubs\n")
        try:
            prepare(version)
        except UnavailableError as error:
            sys.stderr.write(f"{version.module} {version.number}: not available: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
