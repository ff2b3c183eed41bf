"""The fuzzer by hand: `python -m tests.fuzz --minutes 60`; exits with 1 if it finds anything."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import cases, hostile_checkpoints
from tests.fuzz.fuzzer import Fuzzer


def main() -> int:
    """Run cases of all kinds in turn until the time is up."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kinds", nargs="+", choices=sorted(cases.KINDS), default=[*cases.KINDS])
    parser.add_argument("--only", action="store_true", help="run the first case only")
    arguments = parser.parse_args()
    end, found, number = time.monotonic() + 60 * arguments.minutes, 0, 0
    with tempfile.TemporaryDirectory() as folder, Fuzzer(Path(folder)) as fuzzer:
        recipes = sorted(hostile_checkpoints.HOSTILE) if "checkpoint" in arguments.kinds else []
        for name in recipes if not arguments.only else ():
            if problem := fuzzer.recipe(name):
                found += 1
                sys.stdout.write(f"{problem}\n")
        for number in itertools.count(arguments.first):
            for kind in arguments.kinds:
                if finding := fuzzer.run(kind, number):
                    found += 1
                    sys.stdout.write(f"{finding.kind} {finding.number}: {finding.problem}\n")
                    sys.stdout.flush()
            if arguments.only or time.monotonic() > end:
                break
        sys.stdout.write(
            f"cases {arguments.first} to {number}: {fuzzer.refused} files refused, "
            f"{fuzzer.accepted} accepted, {found} findings\n"
        )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
