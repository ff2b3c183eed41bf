"""Jobs that survive a kill: finished segments and a journal, in a folder beside the output.

The folder is `.NAME.sr-job`. A segment is written under a temporary name, synced, renamed and then
listed in `journal.json`, which is replaced in the same way. So the journal lists complete segments
only, at any instant; other files are leftovers of an interrupted process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.bundle import schema
from sr_deploy.bundle.locking import Lock
from sr_deploy.errors import BundleError, InvalidInputError, SrDeployError, VideoError
from sr_deploy.files import atomic_file
from sr_deploy.video import segments as files
from sr_deploy.video.job_folder import JOURNAL, LOCK, JobFolder, folder_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sr_deploy.video.segments import EncodedPacket

SCHEMA = 1
LARGEST_JOURNAL = 64 << 20
_HASHED = 1 << 20
"""Bytes at either end of the source whose hash identifies it."""


@dataclass(frozen=True)
class Segment:
    """A finished segment in the journal.

    Attributes:
        depth: Reordering depth, see `segments.reordering_depth`.
    """

    file: str
    bytes: int
    sha256: str
    frames: int
    first_pts: int
    last_pts: int
    depth: int


@dataclass(frozen=True)
class Journal:
    """Content of `journal.json`.

    Attributes:
        facts: Everything that changes the output, by names for the user.
        remarks: Messages for the user when the file is written.
        finished: No more segments will come.
    """

    schema: int
    facts: dict[str, str]
    segments: tuple[Segment, ...] = ()
    remarks: tuple[str, ...] = ()
    finished: bool = False

    def to_json(self) -> str:
        """Return the text of `journal.json`."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, folder: Path, facts: Mapping[str, str]) -> Journal:
        """Return the journal of an interrupted job with the same facts.

        Raises:
            InvalidInputError: Its facts differ; the message names the first difference.
            VideoError: The journal is damaged, or a segment is missing.
        """
        path = folder / JOURNAL
        advice = "begin the job again with --overwrite"
        try:
            journal = schema.read(cls, path, SCHEMA, largest=LARGEST_JOURNAL, advice=advice)
        except BundleError as error:
            raise VideoError(str(error)) from None
        old = journal.facts
        for name in [*facts, *old]:
            if facts.get(name) != old.get(name):
                raise InvalidInputError(
                    f"{folder}: the interrupted job differs in {name}: it was "
                    f"{old.get(name, 'missing')}, now it is {facts.get(name, 'missing')}; "
                    "repeat it with the same options, or begin again with --overwrite"
                )
        for number, segment in enumerate(journal.segments):
            if segment.file != f"{number:06}.packets":
                raise VideoError(f"{path}: wrong segment name {segment.file!r}; {advice}")
            file = folder / segment.file
            if not file.is_file() or file.stat().st_size != segment.bytes:
                raise VideoError(f"{file}: missing or of the wrong size; {advice}")
        return journal


def source_facts(source: Path) -> dict[str, str]:
    """Return what identifies a source: its size, time, and hash of head and tail.

    Raises:
        VideoError: It cannot be read.
    """
    try:
        status = source.stat()
        with source.open("rb") as file:
            digest = hashlib.sha256(file.read(_HASHED))
            file.seek(max(0, status.st_size - _HASHED))
            digest.update(file.read(_HASHED))
    except OSError as error:
        raise VideoError(f"{source}: cannot be read: {error}") from None
    return {
        "the source's size": str(status.st_size),
        "the source's time of change": str(status.st_mtime_ns),
        "the source's first and last bytes": digest.hexdigest(),
    }


class TranscodeJob:
    """An output video in segments that stand alone; a context manager.

    Args:
        target: The output.
        facts: Everything that changes the output, by names for the user (`source_facts`, options,
            versions, threads).
        resume: Continue an interrupted job; begin one if there is none.
        overwrite: Discard an interrupted job.

    Attributes:
        folder: The job folder.

    Raises:
        InvalidInputError: An interrupted job exists and neither option is given, another process
            holds it, its facts differ, or something else has the name of its folder.
        VideoError: The folder cannot be written, or its content is damaged.
    """

    def __init__(
        self,
        target: Path,
        facts: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = folder_of(target)
        self._journal = Journal(SCHEMA, dict(facts))
        with _disk_errors(self.folder, kept=False):
            self._files = JobFolder(target)
            try:
                self._lock = Lock(self.folder / LOCK)
            except BaseException as error:
                self._files.close()
                if not isinstance(error, BlockingIOError):
                    raise
                raise InvalidInputError(
                    f"{target}: another process is writing it; wait for it, or choose another "
                    "output"
                ) from None
            try:
                self._begin(resume=resume, overwrite=overwrite)
            except BaseException:
                self._release(delete=not self._files.has_journal)
                raise

    def _begin(self, *, resume: bool, overwrite: bool) -> None:
        if not self._files.has_journal or overwrite:
            self._save(self._journal)
        elif resume:
            self._journal = Journal.read(self.folder, self._journal.facts)
        else:
            raise InvalidInputError(
                f"{self.folder}: an interrupted job exists; "
                "--resume continues it, --overwrite begins again"
            )
        self._files.delete_all_but({JOURNAL, LOCK, *(each.file for each in self.segments)})

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Finished segments, in order."""
        return self._journal.segments

    @property
    def frames(self) -> int:
        """Number of frames in the finished segments."""
        return sum(segment.frames for segment in self.segments)

    @property
    def last_pts(self) -> int | None:
        """Latest time in the finished segments; the job continues with the frames after it."""
        return self.segments[-1].last_pts if self.segments else None

    @property
    def complete(self) -> bool:
        """Whether all frames are encoded."""
        return self._journal.finished

    @property
    def remarks(self) -> tuple[str, ...]:
        """Messages for the user from all runs."""
        return self._journal.remarks

    @property
    def extradata(self) -> bytes:
        """The encoder's global header; empty before the first segment."""
        if not self.segments:
            return b""
        with _disk_errors(self.folder, kept=True):
            return files.read_extradata(self.folder / self.segments[0].file)

    def add(self, extradata: bytes, packets: Iterable[EncodedPacket]) -> Segment:
        """Write one segment, completely or not at all.

        Args:
            extradata: The encoder's global header, the same for all segments.
            packets: In decoding order, beginning with a keyframe, later than the segment before.
                It may be a generator that runs the encoder; if it raises, nothing is listed.

        Raises:
            InvalidInputError: Packets or header do not fit.
            VideoError: The disk is full, or the file cannot be written.
        """
        if self.segments and extradata != self.extradata:
            raise InvalidInputError(
                "the encoder's header differs between segments; this encoder cannot write a video "
                "in segments"
            )
        path = self.folder / f"{len(self.segments):06}.packets"
        kept = bool(self.segments)
        with _disk_errors(self.folder, kept=kept), atomic_file(path) as temporary:
            sha256, pts = files.write(temporary, extradata, packets)
            if len(set(pts)) != len(pts):
                raise InvalidInputError("two pictures of a segment have the same time")
            if self.last_pts is not None and min(pts) <= self.last_pts:
                raise InvalidInputError(
                    f"a picture at {min(pts)} follows a segment that ends at {self.last_pts}; "
                    "segments must not overlap"
                )
            size = temporary.stat().st_size
        depth = files.reordering_depth(pts)
        segment = Segment(path.name, size, sha256, len(pts), min(pts), max(pts), depth)
        self._save(dataclasses.replace(self._journal, segments=(*self.segments, segment)))
        return segment

    def remark(self, remarks: Iterable[str]) -> None:
        """Add messages for the user; known ones are not repeated."""
        known = tuple(dict.fromkeys((*self.remarks, *remarks)))
        if known != self.remarks:
            self._save(dataclasses.replace(self._journal, remarks=known))

    def finish(self) -> None:
        """Record that all frames are encoded."""
        self._save(dataclasses.replace(self._journal, finished=True))

    def packets(self) -> Iterator[tuple[EncodedPacket, int]]:
        """Yield the packets of all segments in order, each with its decoding time.

        Raises:
            VideoError: A segment is damaged.
        """
        paths = [(self.folder / segment.file, segment.sha256) for segment in self.segments]
        depth = max((segment.depth for segment in self.segments), default=0)
        with _disk_errors(self.folder, kept=True):
            times = files.decoding_times((files.read_pts(path) for path, _ in paths), depth)
            for path, sha256 in paths:
                for packet in files.read(path, sha256):
                    yield packet, next(times)

    def remove(self) -> None:
        """Delete the job, after its output is written, and release it."""
        self._release(delete=True)

    def close(self) -> None:
        """Release the job, and delete it if it has no segment; twice is fine."""
        self._release(delete=not self.segments)

    def _release(self, *, delete: bool) -> None:
        if not self._lock.held:
            return
        if delete:
            self._files.delete_all_but({LOCK})
        self._files.close()
        self._lock.release(delete=delete)
        if delete:
            with contextlib.suppress(OSError):  # the next process may already hold a lock in it
                self.folder.rmdir()

    def __enter__(self) -> TranscodeJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _save(self, journal: Journal) -> None:
        path, kept = self.folder / JOURNAL, bool(self.segments)
        with _disk_errors(self.folder, kept=kept), atomic_file(path) as temporary:
            temporary.write_text(journal.to_json(), encoding="utf-8")
        self._journal = journal


@contextlib.contextmanager
def _disk_errors(folder: Path, *, kept: bool) -> Iterator[None]:
    """Convert the system's errors to `VideoError`, with advice if segments are kept."""
    try:
        yield
    except SrDeployError:
        raise
    except OSError as error:
        advice = "finished segments are kept: solve the problem, then continue with --resume"
        raise VideoError(
            f"{folder}: {error.strerror or error}" + (f"; {advice}" if kept else "")
        ) from error
