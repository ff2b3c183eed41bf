"""Architectures that people train and spandrel does not know, as additions to its registry."""

from sr_export.models.torchvision_stub import import_spandrel

import_spandrel()  # before what imports it

from sr_export.models.layers import MismatchError  # noqa: E402
from sr_export.models.recognition import ARCHITECTURES, PlainArch, find  # noqa: E402
from sr_export.models.translators import TRANSLATORS, Translator  # noqa: E402

__all__ = ["ARCHITECTURES", "TRANSLATORS", "MismatchError", "PlainArch", "Translator", "find"]
