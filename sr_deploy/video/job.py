"""A long job that a kill cannot undo: its finished segments and its journal, in a folder.

The folder `.NAME.sr-job` lies beside the output. A segment is written to a temporary name, synced
and renamed, and then listed in `journal.json`, which is replaced the same way. So at any instant
the journal lists segments that are whole, and what it does not list is rubbish.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import shutil
from typing import TYPE_CHECKING

from sr_deploy.bundle.locking import Lock
from sr_deploy.errors import InvalidInputError, SrDeployError, VideoError
from sr_deploy.files import atomic_file
from sr_deploy.video import journal_schema
from sr_deploy.video import segments as files
from sr_deploy.video.decode_times import decoding_times, reordering_depth
from sr_deploy.video.journal_schema import Journal, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sr_deploy.video.packets import Packet

_log = logging.getLogger(__name__)

_LOCK = "lock"
_PROBED = 1 << 20
"""So many bytes at either end of the source tell it from another."""


def facts_of_source(source: Path) -> dict[str, str]:
    """Return what tells this source from another: its size, time, and hash of head and tail.

    Raises:
        VideoError: it cannot be read.
    """
    try:
        status = source.stat()
        with source.open("rb") as file:
            digest = hashlib.sha256(file.read(_PROBED))
            file.seek(max(0, status.st_size - _PROBED))
            digest.update(file.read(_PROBED))
    except OSError as error:
        raise VideoError(f"{source}: cannot be read: {error}") from None
    return {
        "the source's size": str(status.st_size),
        "the source's time of change": str(status.st_mtime_ns),
        "the source's first and last bytes": digest.hexdigest(),
    }


def folder_of(target: Path) -> Path:
    """Return the folder in which the job of an output works."""
    return target.with_name(f".{target.name}.sr-job")


class TranscodeJob:
    """One video being written, in segments that stand alone; a context manager.

    Attributes:
        folder: where it works, beside the target.
    """

    def __init__(self, folder: Path, lock: Lock, journal: Journal) -> None:
        self.folder = folder
        self._lock = lock
        self._journal = journal

    @classmethod
    def open(
        cls,
        target: Path,
        facts: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> TranscodeJob:
        """Begin the job whose output is `target`, or go on with one that was interrupted.

        Args:
            target: the file that the job is to end in.
            facts: all that changes the output, each under a name that tells a user what it is
                (`facts_of_source`, options, versions, threads).
            resume: go on with a job that is there; begin one if there is none.
            overwrite: throw away a job that is there.

        Raises:
            InvalidInputError: there is a job already and neither option was given, it is held by
                another process, or it differs in its facts; the text says in which.
            VideoError: the folder cannot be written, or what is in it is damaged.
        """
        folder = folder_of(target)
        with _saying(folder):
            folder.mkdir(exist_ok=True)
            try:
                lock = Lock(folder / _LOCK)
            except BlockingIOError:
                raise InvalidInputError(
                    f"{target}: another process is writing it; wait for it, or name another output"
                ) from None
            try:
                return cls._begin(folder, lock, dict(facts), resume=resume, overwrite=overwrite)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def _begin(
        cls, folder: Path, lock: Lock, facts: dict[str, str], *, resume: bool, overwrite: bool
    ) -> TranscodeJob:
        there = (folder / journal_schema.NAME).exists()
        if there and not (resume or overwrite):
            raise InvalidInputError(
                f"{folder}: holds a job that was interrupted; "
                "--resume goes on with it, --overwrite begins again"
            )
        job = cls(folder, lock, Journal(journal_schema.SCHEMA, facts))
        if there and not overwrite:
            job._journal = journal_schema.read(folder / journal_schema.NAME)
            journal_schema.check(job._journal, facts, folder)
        else:
            job._save(job._journal)
        job._tidy()
        return job

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Those that are complete, in order."""
        return self._journal.segments

    @property
    def frames(self) -> int:
        """How many frames the complete segments hold."""
        return sum(segment.frames for segment in self.segments)

    @property
    def last_pts(self) -> int | None:
        """The latest time among the complete segments; go on with the frames after it."""
        return self.segments[-1].last_pts if self.segments else None

    @property
    def complete(self) -> bool:
        """Whether all frames are there."""
        return self._journal.finished

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be told when the file is written, of all runs."""
        return self._journal.remarks

    @property
    def extradata(self) -> bytes:
        """The encoder's global header; empty before the first segment."""
        if not self.segments:
            return b""
        with _saying(self.folder):
            return files.read_extradata(self.folder / self.segments[0].file)

    def add(self, extradata: bytes, packets: Iterable[Packet]) -> Segment:
        """Write one segment, whole or not at all: packets in the order of decoding.

        Args:
            extradata: the encoder's global header, the same for all segments.
            packets: the first is a keyframe, and all are shown after those of the segment before.
                It may be a generator that runs the encoder; if it raises, nothing is listed.

        Raises:
            InvalidInputError: the packets or the header are not so.
            VideoError: the disk is full, or the file cannot be written.
        """
        if self.segments and extradata != self.extradata:
            raise InvalidInputError(
                "the encoder began this segment with another header than the first one; "
                "it cannot write a video in segments"
            )
        path = self.folder / f"{len(self.segments):06}.packets"
        with _saying(self.folder), atomic_file(path) as temporary:
            sha256, pts = files.write(temporary, extradata, packets)
            self._check_times(pts)
            size = temporary.stat().st_size
        segment = Segment(
            path.name, size, sha256, len(pts), min(pts), max(pts), reordering_depth(pts)
        )
        self._save(dataclasses.replace(self._journal, segments=(*self.segments, segment)))
        return segment

    def remark(self, remarks: Iterable[str]) -> None:
        """Note what is to be told when the file is written; what is noted already stays once."""
        known = tuple(dict.fromkeys((*self.remarks, *remarks)))
        if known != self.remarks:
            self._save(dataclasses.replace(self._journal, remarks=known))

    def finish(self) -> None:
        """Note that all frames are there."""
        self._save(dataclasses.replace(self._journal, finished=True))

    def packets(self) -> Iterator[tuple[Packet, int]]:
        """Yield the packets of all segments in order, each with its decoding time.

        Raises:
            VideoError: a segment is not what was written.
        """
        paths = [(self.folder / segment.file, segment.sha256) for segment in self.segments]
        depth = max((segment.depth for segment in self.segments), default=0)
        with _saying(self.folder):
            times = decoding_times((files.read_pts(path) for path, _ in paths), depth)
            for path, sha256 in paths:
                for packet in files.read(path, sha256):
                    yield packet, next(times)

    def remove(self) -> None:
        """Delete the folder, when the output is there; the job is over then."""
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()
        self._lock.release(delete=True)
        with contextlib.suppress(OSError):  # the next process may have its lock in it by now
            self.folder.rmdir()

    def close(self) -> None:
        """Let other processes have the folder, if there is something in it; twice is fine."""
        if self._lock.held and not self.segments:
            self.remove()
        self._lock.release()

    def __enter__(self) -> TranscodeJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _save(self, journal: Journal) -> None:
        with _saying(self.folder), atomic_file(self.folder / journal_schema.NAME) as temporary:
            temporary.write_text(journal.to_json(), encoding="utf-8")
        self._journal = journal

    def _check_times(self, pts: list[int]) -> None:
        latest = self.last_pts
        if len(set(pts)) != len(pts):
            raise InvalidInputError("two pictures of a segment are shown at the same time")
        if latest is not None and min(pts) <= latest:
            raise InvalidInputError(
                f"a picture at {min(pts)} comes after a segment that ends at {latest}; "
                "segments must follow each other"
            )

    def _tidy(self) -> None:
        """Delete what the journal does not list: the work of a process that was killed."""
        known = {journal_schema.NAME, _LOCK, *(segment.file for segment in self.segments)}
        for path in self.folder.iterdir():
            if path.name not in known:
                _log.debug("%s: deleted, since the journal does not list it", path)
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _saying(folder: Path) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except SrDeployError:
        raise
    except OSError as error:
        raise VideoError(
            f"{folder}: the disk says: {error.strerror or error}; nothing that was finished is "
            "lost: make room or set it right, then go on with --resume"
        ) from error
