"""Runs the trainer: `python -m examples.training`."""

import sys

from examples.training.cli import main

if __name__ == "__main__":
    sys.exit(main())
