"""Other interpreters: PyTorch or TensorRT often live in an environment of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS = ("sr_bench", "sr_deploy", "sr_export")


@contextlib.contextmanager
def environment(python: str | None) -> Iterator[dict[str, str]]:
    """Lend the variables with which an interpreter finds this code; None: the one that runs this.

    Only our packages are lent, by links from a folder of their own: the rest of what is installed
    here was built for the interpreter here.
    """
    if python is None:
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory(prefix="sr-bench-") as folder:
        for name in _OURS:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            (Path(folder) / name).symlink_to(Path(spec.origin).parent, target_is_directory=True)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        yield os.environ | {"PYTHONPATH": path}
