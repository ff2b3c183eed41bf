"""The TensorRT plans of a bundle: what each was built for, and which of them run here.

A plan is a file in `engines/` with a JSON of the same name beside it. It belongs to one ONNX file,
one TensorRT and one kind of GPU; a bundle may hold the plans of many machines, and nobody touches
those of another. A plan is handed to TensorRT only when everything fits and its content is what
was built, because TensorRT itself answers a wrong plan cryptically and a damaged one by crashing.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_deploy.bundle import schema
from sr_deploy.bundle.manifest import Stored
from sr_deploy.bundle.plan_record import SCHEMA, PlanRecord
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import atomic_file, inside

if TYPE_CHECKING:
    from pathlib import Path

    from sr_deploy.bundle.plan_record import PlanRequest, Shape, Shapes

FOLDER = "engines"
TIMING_CACHE = "timing.cache"
_LARGEST_RECORD = 1 << 16


@dataclass(frozen=True)
class StoredPlan:
    """A plan that fits, not read yet."""

    folder: Path
    """`engines/`."""
    record: PlanRecord

    @property
    def path(self) -> Path:
        """Where it is."""
        assert self.record.plan is not None
        return self.folder / self.record.plan.file

    def read(self) -> bytes:
        """Return its content, which is what was built: nothing else may reach TensorRT.

        Raises:
            NotFoundError: it is gone.
            BundleError: it is damaged, or its name leads out of the folder.
        """
        assert self.record.plan is not None
        content = inside(self.folder, self.record.plan.file).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.record.plan.sha256:
            raise BundleError(
                f"{self.path}: damaged or changed since it was built (SHA-256 {found[:12]}, its "
                f"record says {self.record.plan.sha256[:12]}); build it again"
            )
        return content


@dataclass(frozen=True)
class FoundPlan:
    """What a bundle has for someone."""

    plans: tuple[StoredPlan, ...] = ()
    """Those that serve: made for exactly that shape first, then those tuned closest to it."""
    reasons: tuple[str, ...] = ()
    """Why each of the others does not, by file name. Those for other files and precisions are not
    among them."""
    refused: tuple[str, ...] = field(default=())
    """What was built here for this very wish and thrown away: building again would not help."""


def find(bundle: Path, wanted: PlanRequest) -> FoundPlan:
    """Look for plans; none of them is read.

    A record that is damaged counts as one that does not fit; its plan can be built again.

    Args:
        bundle: The bundle's folder.
        wanted: What for.
    """
    plans, reasons, refused = [], [], []
    for path in sorted((bundle / FOLDER).glob("*.json")):
        try:
            record = read(path)
        except (BundleError, OSError) as error:
            reasons.append(str(error))
            continue
        if (record.onnx, record.precision) != (wanted.onnx, wanted.precision):
            continue
        if differences := record.differences(wanted):
            reasons.append(f"{path.name}: {'; '.join(differences)}")
        elif record.plan is None:
            refused += [f"{path.name}: {each}" for each in record.refused]
        elif not (path.parent / record.plan.file).is_file():
            reasons.append(f"{path.name}: its plan {record.plan.file} is gone")
        else:
            plans.append(StoredPlan(path.parent, record))
    plans.sort(key=lambda plan: _distance(plan.record.shapes, wanted.shape))
    return FoundPlan(tuple(plans), tuple(reasons), tuple(refused))


def read(path: Path) -> PlanRecord:
    """Read and check a plan's JSON.

    Raises:
        BundleError: it is not JSON, of another schema, or a field does not fit.
    """
    return schema.read(PlanRecord, path, SCHEMA, largest=_LARGEST_RECORD)


def write(bundle: Path, record: PlanRecord, content: bytes | None) -> StoredPlan | None:
    """Store a plan and its record; a plan for the same machine, file and shapes is replaced.

    Args:
        bundle: The bundle's folder.
        record: With everything but the file, which is filled in here.
        content: The plan; None: only the record, which says why there is none.

    Returns:
        The plan, if there is one.

    Raises:
        NotFoundError: there is no such bundle.
    """
    if not bundle.is_dir():
        raise NotFoundError(f"{bundle}: no such bundle")
    folder = bundle / FOLDER
    folder.mkdir(exist_ok=True)
    name = record.name
    stored = None
    if content is not None:
        stored = Stored(f"{name}.plan", hashlib.sha256(content).hexdigest())
        with atomic_file(folder / stored.file) as temporary:
            temporary.write_bytes(content)
    whole = dataclasses.replace(record, plan=stored, size=len(content or b""))
    # The record comes last: until then, an older one names an older hash, and that is an error.
    with atomic_file(folder / f"{name}.json") as temporary:
        temporary.write_text(whole.to_json(), encoding="utf-8")
    return None if stored is None else StoredPlan(folder, whole)


def _distance(shapes: Shapes, shape: Shape | None) -> tuple[bool, int]:
    """Return how far a plan is from what it was tuned for, to sort by; smaller is better."""
    batch, height, width = shapes.best
    pixels = batch * height * width
    if shape is None:
        return False, -pixels
    return shapes.least != shapes.most, abs(pixels - shape[0] * shape[1] * shape[2])
