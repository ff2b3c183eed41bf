"""Runs a module, a command or a file like Python itself, in an interpreter that hides PYTHONPATH.

Some environments set up their interpreter by a script that takes PYTHONPATH away. This is put
between: it gets the path by another name.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Do what Python does with the same arguments."""
    path = os.environ["SR_PATH"]
    sys.path[:1] = path.split(os.pathsep)  # in the place of this file's folder
    os.environ["PYTHONPATH"] = path  # for processes that are started in turn
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
