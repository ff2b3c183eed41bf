"""A bundle on disk: the folder `NAME.srd/` that `sr-export` writes and `Engine` opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy.bundle import manifest
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import inside, sha256_of

if TYPE_CHECKING:
    import os

    from sr_deploy.bundle.manifest import Manifest, PixelFormat, Precision, Stored, Variant

SUFFIX = ".srd"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and what its manifest says."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and check its manifest; files are checked when they are used.

        Raises:
            NotFoundError: there is no such folder.
            BundleError: it is not a bundle, or its manifest does not hold.
        """
        folder = Path(path)
        if not folder.exists():
            raise NotFoundError(f"{folder}: no such bundle")
        if not (folder / manifest.NAME).is_file():
            raise BundleError(
                f"{folder}: not a bundle (no {manifest.NAME}); `sr-export CHECKPOINT` makes one"
            )
        return cls(folder, manifest.read(folder / manifest.NAME))

    def variant(self, precision: Precision, pixel_format: PixelFormat) -> Variant | None:
        """Return the variant of this precision and pixel format, if the bundle has it."""
        for each in self.manifest.variants:
            if (each.precision, each.pixel_format) == (precision, pixel_format):
                return each
        return None

    def verified(self, stored: Stored | Variant) -> Path:
        """Return the path of a file of the bundle, after checking that it is the one exported.

        Raises:
            BundleError: the name leads out of the bundle, or the content has changed.
            NotFoundError: the file is gone.
        """
        path = inside(self.folder, stored.file)
        found = sha256_of(path)
        if found != stored.sha256:
            raise BundleError(
                f"{path}: damaged or changed since the export "
                f"(SHA-256 {found[:12]}, the manifest says {stored.sha256[:12]})"
            )
        return path
