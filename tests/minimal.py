"""Checks an installation with numpy and Pillow only; `python3 dev.py minimal` runs it.

Not a pytest module: that environment holds nothing but the package and its two dependencies.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
# What must not be imported with the package.
OTHERS = {"torch", "onnx", "onnxruntime", "openvino", "av", "cuda", "filelock"}
OTHERS |= {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}


def main() -> None:
    """Import every public name, run every command."""
    import sr_deploy

    for name in sr_deploy.__all__:
        getattr(sr_deploy, name)
    loaded = {name.partition(".")[0] for name in sys.modules}
    unexpected = loaded & OTHERS
    assert not unexpected, f"import sr_deploy loads {sorted(unexpected)}"

    for command in ("sr-upscale", "sr-generate", "sr-doctor"):
        assert run(command, "--help").returncode == 0, command
    doctor = run("sr-doctor")
    assert "Traceback" not in doctor.stdout + doctor.stderr, doctor.stderr

    for command, extra in (("sr-export", "export"), ("sr-bench", "bench")):
        missing = run(command, "x.srd")
        assert missing.returncode == 1, (command, missing)
        lines = missing.stderr.splitlines()
        assert len(lines) == 1, (command, missing.stderr)
        assert f"[{extra}]" in lines[0], (command, missing.stderr)
    print("works with numpy and Pillow only")


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the package's commands."""
    return subprocess.run(
        [BIN / command, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


if __name__ == "__main__":
    main()
