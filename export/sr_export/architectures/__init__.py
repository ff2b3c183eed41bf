"""Architectures that people train and spandrel does not know."""

from sr_export.architectures.edsr import EdsrArch
from sr_export.architectures.msrresnet import MsrResNetArch
from sr_export.architectures.srresnet import SrResNetArch

ARCHITECTURES = (MsrResNetArch, EdsrArch, SrResNetArch)
