"""The steps of the GPU check, each in its own process: a crash of one does not end the others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gpu_check.pythons import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gpu_check.pythons import Python

_MARK = "gpu"
_TILE = "400x672"
_RANGE = ("1x64x64", "1x720x1280", "1x1080x1920")
_KERNEL_TESTS = "tests/sr_deploy/tiling/test_native.py"


@dataclass(frozen=True)
class CheckPlan:
    """The requested checks.

    Attributes:
        bundles: Bundles; some steps use only the first.
        precisions: Precisions to build plans for.
        sizes: Frame sizes, height x width.
        soak: Seconds of the soak test.
        end: No step starts after this time of the monotonic clock.
    """

    bundles: list[Path]
    precisions: list[str]
    sizes: list[str]
    soak: float
    end: float


class GpuCheck:
    """Runs steps and collects their results.

    Attributes:
        facts: Description of the machine.
        results: By step, then by command.
    """

    steps: ClassVar[tuple[str, ...]] = (
        *("kernels", "plans", "tests", "outputs", "speed", "tiles", "soak", "sanitizer"),
    )

    def __init__(
        self, plan: CheckPlan, found: list[Python], variables: dict[str, str], output: Path
    ) -> None:
        self._plan = plan
        self._variables = variables
        self._output = output.resolve()
        self._pythons = found
        self._tensorrt = self._with("tensorrt", "cuda.bindings", "numpy", "PIL")
        self.facts: dict[str, Any] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def run(self, name: str) -> None:
        """Run a step and write the results so far."""
        self.results[name] = {}
        if time.monotonic() > self._plan.end:
            self._skip(name, "not started: out of time")
            return
        start = time.monotonic()
        getattr(self, f"_{name}")()
        self.results[name]["seconds"] = round(time.monotonic() - start, 1)
        self.write()  # the machine may disappear at any time

    def write(self) -> None:
        """Write the results so far."""
        text = json.dumps(self.facts | {"steps": self.results}, indent=2)
        (self._output / "gpu_check.json").write_text(text + "\n", encoding="utf-8")

    def summary(self) -> list[str]:
        """Return a line for each step."""
        lines = []
        for name, found in self.results.items():
            parts = ["passed" if found["ok"] else "FAILED"] if "ok" in found else []
            parts += [f"not run: {each}" for each in found.get("not_done", ())]
            lines.append(f"{name:<10} {'; '.join(parts) or 'nothing to do'}")
        return lines

    def _with(self, *names: str) -> str | None:
        """Return an interpreter with these packages."""
        return next((each.command for each in self._pythons if each.has(*names)), None)

    def _skip(self, step: str, text: str) -> None:
        """Record a check that cannot run."""
        self.results[step].setdefault("not_done", []).append(text)
        sys.stdout.write(f"{step}: {text}\n")

    def _call(self, step: str, what: str, command: Sequence[object], **more: str) -> bool:
        """Run a command with its output in a log file; return whether it succeeded."""
        sys.stdout.write(f"{step}: {what}\n")
        sys.stdout.flush()
        log = self._output / f"{step}-{what.replace(' ', '-').replace('/', '-')}.log"
        start = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                list(map(str, command)),
                cwd=ROOT,
                env=self._variables | more,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        seconds = round(time.monotonic() - start, 1)
        good = done.returncode == 0
        result = {"exit": done.returncode, "seconds": seconds, "log": log.name}
        self.results[step][what] = result
        self.results[step]["ok"] = self.results[step].get("ok", True) and good
        if not good:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            result["last_line"] = lines[-1][:500] if lines else ""
            sys.stdout.write(f"{step}: {what}: FAILED: {result['last_line']}\n")
        return good

    def _result(self, step: str, what: str, path: Path) -> None:
        """Add the JSON result of a command to the results."""
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.results[step][what]["found"] = found

    def _kernels(self) -> None:
        """Build `native/` unless the kernels exist."""
        if (ROOT / "sr_deploy/_native/kernels.fatbin").is_file():
            self.results["kernels"]["existing"] = True
            return
        if shutil.which("cmake") is None or shutil.which("nvcc") is None:
            self._skip("kernels", "no kernels, and cmake or nvcc is missing")
            return
        build = self._output / "native"
        configure = ["cmake", "-S", ROOT / "native", "-B", build, "-D", "SKBUILD_STATE=editable"]
        if self._call("kernels", "configure", configure):
            self._call("kernels", "build", ["cmake", "--build", build])

    def _plans(self) -> None:
        if self._tensorrt is None:
            self._skip("plans", "no interpreter with tensorrt, cuda-python, numpy and Pillow")
            return
        export = [self._tensorrt, "-m", "sr_export"]
        for bundle in self._plan.bundles:
            for size in self._plan.sizes:
                command = [*export, bundle, "--engine", *self._plan.precisions, "--frame", size]
                self._call("plans", f"{bundle.stem} {size}", command)
        # Plans for any size, and for tiles, of the first bundle.
        bundle = self._plan.bundles[0]
        first = self._plan.precisions[0]
        command = [*export, bundle, "--engine", first, "--range", *_RANGE]
        self._call("plans", f"{bundle.stem} any size", command)
        tiled = self._tiled()
        shutil.rmtree(tiled, ignore_errors=True)
        ignored = shutil.ignore_patterns("engines")
        shutil.copytree(bundle, tiled, ignore=ignored)
        command = [*export, tiled, "--engine", *self._plan.precisions, "--tile", _TILE]
        self._call("plans", f"{bundle.stem} tiles", command)

    def _tests(self) -> None:
        names = ("pytest", "numpy", "cuda.bindings", "tensorrt")
        python = self._with(*names) or self._with(*names[:-1])
        if python is None:
            self._skip("tests", "no interpreter with pytest, numpy and cuda-python")
            return
        command = [python, "-m", "pytest", "-m", _MARK, "-p", "no:cacheprovider", "tests/sr_deploy"]
        self._call("tests", "on the GPU", command, SR_REQUIRE_GPU="1")

    def _outputs(self) -> None:
        """Upscale photos on the GPU; compare with a CPU if an interpreter has a backend."""
        if self._tensorrt is None:
            self._skip("outputs", "no interpreter with TensorRT")
            return
        cpu = self._with("onnxruntime", "numpy", "PIL") or self._with("openvino", "numpy", "PIL")
        for bundle in self._plan.bundles:
            patches = self._output / f"{bundle.stem}.npz"
            options = ["--precisions", *self._plan.precisions, "--sizes", *self._plan.sizes]
            self._on_gpu("outputs", bundle, [*options, "--patches", patches])
            if cpu is None or not patches.is_file():
                self._skip(
                    "outputs",
                    f"{bundle.stem}: not compared with a CPU; with onnxruntime, run "
                    f"python -m gpu_check.finish {bundle.name} {patches.name} psnr.json",
                )
                continue
            path = self._output / f"psnr-{bundle.stem}.json"
            what = f"{bundle.stem} beside a CPU"
            self._call("outputs", what, [cpu, "-m", "gpu_check.finish", bundle, patches, path])
            self._result("outputs", what, path)

    def _speed(self) -> None:
        torch = self._with("torch", "numpy", "PIL")
        if self._tensorrt is None:
            self._skip("speed", "no interpreter with TensorRT")
            return
        python = torch or self._tensorrt
        if torch is None:
            self._skip("speed", "no interpreter with torch: no baseline")
        rows = ["tensorrt", *(["torch"] if torch else [])]
        sizes = ["x".join(reversed(size.split("x"))) for size in self._plan.sizes]
        for bundle in self._plan.bundles:
            path = self._output / f"speed-{bundle.stem}.json"
            command = [python, "-m", "sr_bench", "speed", bundle, "--device", "cuda"]
            command += ["--backends", *rows, "--precisions", *self._plan.precisions]
            command += ["--full", "--sizes", *sizes, "--modes", "network", "stream"]
            command += ["--json", path, "--python", f"tensorrt={self._tensorrt}"]
            self._call("speed", bundle.stem, command)

    def _tiles(self) -> None:
        if self._tensorrt is None or not self._tiled().is_dir():
            self._skip("tiles", "no plans for tiles")
            return
        options = ["--precisions", *self._plan.precisions, "--sizes", *self._plan.sizes]
        self._on_gpu("tiles", self._plan.bundles[0], [*options, "--tiled", self._tiled()])

    def _soak(self) -> None:
        if self._tensorrt is None:
            self._skip("soak", "no interpreter with TensorRT")
            return
        left = min(self._plan.soak, max(10.0, self._plan.end - time.monotonic()))
        options = ["--seconds", left, "--precisions", self._plan.precisions[0]]
        self._on_gpu("soak", self._plan.bundles[0], options)

    def _sanitizer(self) -> None:
        command = shutil.which("compute-sanitizer")
        python = self._with("pytest", "numpy", "cuda.bindings")
        if command is None or python is None:
            missing = "compute-sanitizer" if command is None else "pytest with cuda-python"
            self._skip("sanitizer", f"missing: {missing}")
            return
        tests = [python, "-m", "pytest", "-m", _MARK, "-p", "no:cacheprovider", _KERNEL_TESTS]
        options = ["--error-exitcode", "9", "--target-processes", "all"]
        self._call("sanitizer", "memcheck", [command, *options, *tests], SR_REQUIRE_GPU="1")

    def _tiled(self) -> Path:
        """Return the copy of the first bundle with plans for tiles only."""
        return self._output / f"tiled-{self._plan.bundles[0].name}"

    def _on_gpu(self, what: str, bundle: Path, options: Sequence[object]) -> None:
        """Run a check of `on_gpu` and add its results."""
        path = self._output / f"{what}-{bundle.stem}.json"
        python = self._tensorrt
        assert python is not None
        command = [python, "-m", "gpu_check.on_gpu", what, bundle, path, *options]
        self._call(what, bundle.stem, command)
        self._result(what, bundle.stem, path)
        found = self.results[what][bundle.stem].get("found", {})
        good = [each for each in (found, *found.values()) if isinstance(each, dict)]
        if any(each.get("ok") is False for each in good):
            self.results[what]["ok"] = False
