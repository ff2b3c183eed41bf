"""The errors of sr-deploy; their messages say what was found, what is allowed and what to do.

All are subclasses of `SrDeployError`, and each also of the matching builtin exception, so
`except FileNotFoundError` works without this module.
"""

from __future__ import annotations


class SrDeployError(Exception):
    """Base class of all errors that sr-deploy raises on purpose."""


class NotFoundError(SrDeployError, FileNotFoundError):
    """A file or folder does not exist."""


class InvalidInputError(SrDeployError, ValueError):
    """An argument, an array or a file is invalid; the message says what is allowed."""


class BundleError(SrDeployError, ValueError):
    """A bundle is damaged or incomplete, or this version cannot read it."""


class TilingNeededError(SrDeployError, ValueError):
    """A YUV frame would have to be tiled, which only RGB frames can be."""


class ImageError(SrDeployError, OSError):
    """An image file cannot be read or written."""


class VideoError(SrDeployError, OSError):
    """A video file cannot be read or written."""


class BackendError(SrDeployError, RuntimeError):
    """A backend failed while loading or running a network."""


class DriverError(BackendError):
    """CUDA or the NVIDIA driver failed: this says nothing about the network."""


class BackendMissingError(SrDeployError, ImportError):
    """The package of a backend is not installed; the message says what to install."""


class OutOfMemoryError(SrDeployError, MemoryError):
    """The work does not fit into the memory budget, or an allocation failed."""


class CheckpointError(SrDeployError, ValueError):
    """A checkpoint cannot be read, or contains no network that can be exported."""


class ExportError(SrDeployError, RuntimeError):
    """A network could not be exported to a verified bundle."""
