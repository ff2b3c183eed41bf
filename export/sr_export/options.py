"""What the user asked of an export; plain data, so that it can go to another process."""

from __future__ import annotations

from dataclasses import dataclass

# Not for type checking only: sr_deploy.strict reads the annotation when a job is decoded.
from sr_export.ranges import Ranges  # noqa: TC001


@dataclass(frozen=True)
class Options:
    """What to export and how."""

    checkpoint: str
    """The file to read."""
    name: str
    """What the bundle calls itself."""
    key: str | None = None
    """Where in the checkpoint the weights are; None: found by the usual names."""
    ema: bool = True
    """Whether an averaged copy of the weights is preferred."""
    trust: bool = False
    """Whether a torch.export program may be opened, which can run code."""
    architecture: str | None = None
    """None: recognised by the weights."""
    network: str | None = None
    """A file and a function that makes the module, `FILE.py:FUNCTION`."""
    ranges: Ranges | None = None
    """None: found out by looking at the output."""
