"""The process in which an export runs: `python -m sr_export.worker`, started by `isolation`.

Exporters crash: a segmentation fault in here costs this process, not the command. What torch and
its friends print goes to stderr, which the command keeps for `--debug`; events go to stdout, one
JSON object a line.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from sr_deploy.bundle import schema
from sr_deploy.errors import SrDeployError


def main() -> int:
    """Read a job from stdin, do it, and tell how it went."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.load(sys.stdin)
    try:
        _run(job, events)
    except (SrDeployError, OSError, MemoryError) as error:
        traceback.print_exc()
        _send(events, error=type(error).__name__, text=str(error))
        return 1
    return 0


def _run(job: dict[str, Any], events: TextIO) -> None:
    _send(events, stage="starting")  # importing torch takes seconds
    from sr_export.options import Options
    from sr_export.pipeline import build

    build(
        schema.decode(Options, job["options"], "options"),
        Path(job["folder"]),
        lambda text: _send(events, stage=text),
        skip=job["skip"],
    )


def _send(events: TextIO, **event: object) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main())
