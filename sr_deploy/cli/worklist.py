"""What `sr-upscale` is to do: which file becomes which, and what must not be touched."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy import images
from sr_deploy.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_log = logging.getLogger(__name__)

_VIDEO_SUFFIXES = frozenset(
    f".{each}"
    for each in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "wmv", "flv"),
        *("mpg", "mpeg", "ts", "m2ts", "mts", "3gp", "ogv", "y4m"),
    )
)


@dataclass(frozen=True)
class WorkItem:
    """One image to upscale."""

    source: Path
    target: Path


def plan(inputs: Sequence[str], output: str, suffix: str | None = None) -> list[WorkItem]:
    """Decide where each input goes.

    One image goes to the file that `output` names. Several images, and folders with all that is in
    them, go into the folder that it names; so does one image if `output` is a folder or ends in a
    slash. Names and sub-folders stay. Hidden files are left out.

    Args:
        inputs: image files and folders.
        output: a file or a folder, as typed.
        suffix: what the names in the folder are to end in; None keeps each one's own.

    Raises:
        NotFoundError: an input, or the folder of the output, is not there.
        InvalidInputError: it cannot be done as asked; the text says what to do instead.
    """
    sources = [Path(each) for each in inputs]
    for source in sources:
        _check_source(source)
    target = Path(output)
    several = len(sources) > 1 or sources[0].is_dir()
    if several or target.is_dir() or output.endswith(("/", os.sep)):
        _check_folder(output, target)
        jobs = list(_into_folder(sources, target, suffix))
    elif suffix is not None:
        raise InvalidInputError(
            f"{output}: --format is for folders of images; the name of one file says its format"
        )
    else:
        if not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: no such folder")
        jobs = [WorkItem(sources[0], target)]
    if not jobs:
        raise InvalidInputError(f"{', '.join(inputs)}: no images there")
    _check_targets(jobs)
    return list(dict.fromkeys(jobs))


def are_videos(inputs: Sequence[str], output: str) -> bool:
    """Return whether this is work on videos.

    Raises:
        InvalidInputError: some inputs are videos, others are not.
    """
    videos = [each for each in inputs if _is_video(Path(each))]
    others = [each for each in inputs if each not in videos]
    if videos and others:
        raise InvalidInputError(
            f"{videos[0]} is a video, {others[0]} is not; upscale videos and images one after the "
            "other"
        )
    # A video may have any name; what is to become a video is one.
    return bool(videos) or (len(inputs) == 1 and _is_video(Path(output)))


def plan_videos(inputs: Sequence[str], output: str, suffix: str | None = None) -> list[WorkItem]:
    """Decide where each video goes: one into the file that `output` names, several into a folder.

    Args:
        inputs: video files.
        output: a file or a folder, as typed.
        suffix: what the names in the folder are to end in; None keeps each one's own.

    Raises:
        NotFoundError: an input, or the folder of the output, is not there.
        InvalidInputError: it cannot be done as asked; the text says what to do instead.
    """
    sources = [Path(each) for each in inputs]
    for source in sources:
        if not source.exists():
            raise NotFoundError(f"{source}: no such file")
    target = Path(output)
    if len(sources) > 1 or target.is_dir() or output.endswith(("/", os.sep)):
        if not target.is_dir():
            raise NotFoundError(f"{target}: no such folder for several videos to go into")
        jobs = [
            WorkItem(each, target / (each.with_suffix(suffix) if suffix else each).name)
            for each in sources
        ]
    else:
        if not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: no such folder")
        jobs = [WorkItem(sources[0], target)]
    for job in jobs:
        if images.could_be_image(job.target):
            raise InvalidInputError(
                f"{job.source}: a video, which cannot become the image {job.target.name}; name a "
                "video, such as big.mkv"
            )
    _check_apart(jobs)
    return list(dict.fromkeys(jobs))


def remaining(jobs: Sequence[WorkItem], *, overwrite: bool, resume: bool) -> list[WorkItem]:
    """Return the jobs that are to be done, given what is there already.

    Raises:
        InvalidInputError: outputs are there, and neither option says what to do about it.
    """
    done = {job for job in jobs if job.target.exists()}
    if not done or overwrite:
        return list(jobs)
    if resume:
        return [job for job in jobs if job not in done]
    first = next(job.target for job in jobs if job in done)
    if len(jobs) == 1:
        raise InvalidInputError(f"{first}: is there already; --overwrite replaces it")
    raise InvalidInputError(
        f"{len(done)} of {len(jobs)} outputs are there already, such as {first}; "
        "--resume leaves them and does the others, --overwrite does all"
    )


def _check_source(source: Path) -> None:
    if not source.exists():
        raise NotFoundError(f"{source}: no such file or folder")


def _check_folder(output: str, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InvalidInputError(f"{output}: a file, but several images need a folder to go into")
    if images.could_be_image(target) and not target.exists() and not output.endswith(("/", os.sep)):
        raise InvalidInputError(
            f"{output}: names one image, but several are to be written; name a folder"
        )


def _into_folder(sources: Sequence[Path], folder: Path, suffix: str | None) -> Iterator[WorkItem]:
    for source in sources:
        found = _images_in(source, folder) if source.is_dir() else [source]
        base = source if source.is_dir() else source.parent
        for path in found:
            name = path.relative_to(base)
            yield WorkItem(path, folder / (name.with_suffix(suffix) if suffix else name))


def _images_in(folder: Path, output: Path) -> Iterator[Path]:
    """Yield the images in a folder and below it, but not those in the folder of the output."""
    videos = 0
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and not _is_same(here / each, output)
        )
        for name in sorted(names):
            if name.startswith("."):
                continue
            if images.could_be_image(name):
                yield here / name
            videos += _is_video(Path(name))
    if videos:
        _log.warning("%s: %d videos left out; name them to have them upscaled", folder, videos)


def _check_targets(jobs: Sequence[WorkItem]) -> None:
    for job in jobs:
        images.check_fits(job.target, 1, 1)  # the name says a format
    _check_apart(jobs)


def _check_apart(jobs: Sequence[WorkItem]) -> None:
    """Check that no job writes what another reads or writes."""
    sources = {job.source.resolve(): job.source for job in jobs}
    taken: dict[str, WorkItem] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise InvalidInputError(
                f"{job.target}: is an input, which is never overwritten; choose another output"
            )
        other = taken.setdefault(os.path.normcase(job.target), job)
        if other.source.resolve() != job.source.resolve():
            raise InvalidInputError(
                f"{other.source} and {job.source} would both become {job.target}; "
                "rename one, or do them into two folders"
            )


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in _VIDEO_SUFFIXES and not path.is_dir()


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)
