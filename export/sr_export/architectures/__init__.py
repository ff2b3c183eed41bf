"""Architectures that people train and spandrel does not know, as additions to its registry."""

from sr_export.stand_in import import_spandrel

import_spandrel()  # before what imports it

from sr_export.architectures.layers import MismatchError  # noqa: E402
from sr_export.architectures.recognition import ARCHITECTURES, PlainArch, find  # noqa: E402
from sr_export.architectures.translators import TRANSLATORS, Translator  # noqa: E402

__all__ = ["ARCHITECTURES", "TRANSLATORS", "MismatchError", "PlainArch", "Translator", "find"]
