"""The bundle: the folder `NAME.srd/` that `sr-export` writes and `Engine` opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy.bundle import manifest, network_fit
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import inside, sha256_of

if TYPE_CHECKING:
    import os

    from sr_deploy.bundle.manifest import Manifest, PixelFormat, Precision, Stored, Variant

SUFFIX = ".srd"


@dataclass(frozen=True)
class Bundle:
    """An open bundle: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and check its manifest; other files are checked when they are used.

        Raises:
            NotFoundError: the folder does not exist.
            BundleError: it is not a bundle, or its manifest is invalid.
        """
        folder = Path(path)
        try:
            is_there = folder.exists()
            has_manifest = (folder / manifest.NAME).is_file()
        except (OSError, ValueError) as error:  # no right, too long, NUL
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"{str(folder)!r}: cannot be opened: {reason}") from None
        if not is_there:
            raise NotFoundError(f"{folder}: bundle does not exist")
        if not has_manifest:
            raise BundleError(
                f"{folder}: not a bundle (no {manifest.NAME}); make one: sr-export CHECKPOINT"
            )
        return cls(folder, manifest.read(folder / manifest.NAME))

    def variant(self, precision: Precision, pixel_format: PixelFormat) -> Variant | None:
        """Return the variant with a precision and pixel format, or None."""
        for each in self.manifest.variants:
            if (each.precision, each.pixel_format) == (precision, pixel_format):
                return each
        return None

    def verified(self, stored: Stored | Variant) -> Path:
        """Return the path of a file of the bundle after checking its hash.

        Raises:
            BundleError: the name leads out of the bundle, or the hash differs.
            NotFoundError: the file is missing.
        """
        path = inside(self.folder, stored.file)
        found = sha256_of(path)
        if found != stored.sha256:
            raise BundleError(
                f"{path}: damaged or changed since the export "
                f"(SHA-256 {found[:12]}, recorded {stored.sha256[:12]})"
            )
        return path

    def network(self, variant: Variant) -> Path:
        """Return the path of a variant after checking its hash and its graph.

        Raises:
            BundleError: as `verified`, or the graph does not fit the manifest, or is made to fill
                the memory or compute without end.
            NotFoundError: the file is missing.
        """
        path = self.verified(variant)
        network_fit.check(path, self.manifest.model, variant.pixel_format)
        return path
