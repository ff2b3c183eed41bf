"""Run a module, a command or a file as Python does, in an interpreter that drops PYTHONPATH.

Some environments start their interpreter by a script that removes PYTHONPATH. This module runs in
between and receives the path under another name.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Interpret the arguments as Python does."""
    path = os.environ["SR_PATH"]
    sys.path[:1] = path.split(os.pathsep)  # replaces the folder of this file
    os.environ["PYTHONPATH"] = path  # for child processes
    how, *rest = sys.argv[1:]
    if how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    else:
        sys.argv = [how, *rest]
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    main()
