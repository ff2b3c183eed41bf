"""Stands for the process that TensorRT runs in, and does what it is told."""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    for line in sys.stdin:
        call = json.loads(line)
        if call["call"] == "crash":
            sys.stderr.write("the last words\n")
            sys.stderr.flush()
            os.abort()
        if call["call"] == "sleep":
            time.sleep(60)
        event: dict[str, object] = {"result": {"pid": os.getpid(), **call}}
        if call["call"] == "fail":
            event = {"error": call["error"], "text": "what went wrong"}
        for each in ({"stage": "halfway"}, event):
            sys.stdout.write(json.dumps(each) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
