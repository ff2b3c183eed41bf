"""Architectures that people train and spandrel does not know, as additions to its registry."""

from sr_export.stand_in import import_spandrel

import_spandrel()  # before the modules below, which import it

from sr_export.architectures.edsr import EdsrArch  # noqa: E402
from sr_export.architectures.msrresnet import MsrResNetArch  # noqa: E402
from sr_export.architectures.srresnet import SrResNetArch  # noqa: E402

ARCHITECTURES = (MsrResNetArch, EdsrArch, SrResNetArch)
