"""Architectures that spandrel lacks, by the tensor names of their repositories.

Each module holds one family. A builder reads widths, depths and scale from the shapes of the
weights, and returns a module of our own that computes what the origin's code computes.
"""

from __future__ import annotations

from sr_export.models.known.cascading import CASCADING
from sr_export.models.known.convolving import CONVOLVING
from sr_export.models.known.denoising import DENOISING
from sr_export.models.known.dense import DENSE
from sr_export.models.known.distilling import DISTILLING
from sr_export.models.known.gated import GATED
from sr_export.models.known.spans import SPANS
from sr_export.models.known.waifu import WAIFU

KNOWN = (*DISTILLING, *CASCADING, *DENOISING, *WAIFU, *DENSE, *SPANS, *GATED, *CONVOLVING)
