"""What can go wrong, in words that say what was found, what is allowed and what to do.

Every error of this library is an `SrDeployError`. Each also is the builtin that a caller
would have expected, so `except FileNotFoundError` works without knowing this module.
"""

from __future__ import annotations


class SrDeployError(Exception):
    """Base of every error that this library raises on purpose."""


class NotFoundError(SrDeployError, FileNotFoundError):
    """A file or folder that was named is not there."""


class InvalidInputError(SrDeployError, ValueError):
    """An argument, an array or a file does not fit; the text says what would."""


class BundleError(SrDeployError, ValueError):
    """A bundle is damaged, incomplete, or of a kind that this version does not read."""


class TilingNeededError(SrDeployError, ValueError):
    """A frame of YUV does not fit in one piece; as RGB, it would be cut into tiles."""


class ImageError(SrDeployError, OSError):
    """An image file cannot be read or written."""


class VideoError(SrDeployError, OSError):
    """A video file cannot be read or written."""


class BackendError(SrDeployError, RuntimeError):
    """A backend failed while loading or running a network."""


class BackendMissingError(SrDeployError, ImportError):
    """A backend's package is not installed; the text says what to install."""


class OutOfMemoryError(SrDeployError, MemoryError):
    """The work does not fit into the memory that it may use."""


class CheckpointError(SrDeployError, ValueError):
    """A checkpoint cannot be read, or holds no network that can be exported."""


class ExportError(SrDeployError, RuntimeError):
    """A network could not be turned into a bundle that holds what it promises."""
