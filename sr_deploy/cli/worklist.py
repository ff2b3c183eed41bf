"""The work of `sr-upscale`: which input becomes which output, checked before anything is done."""

from __future__ import annotations

import logging
import os
import stat
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
    """One image or video to upscale."""

    source: Path
    target: Path


def plan(inputs: Sequence[str], output: str, suffix: str | None = None) -> list[WorkItem]:
    """Map image inputs to outputs.

    One image is written to the file `output`. Several images, and the contents of folders, are
    written into the folder `output`; so is one image if `output` is a folder or ends in a slash.
    Names and subfolders are kept. Hidden files are skipped.

    Args:
        inputs: Image files and folders.
        output: A file or a folder, as typed.
        suffix: Suffix of the output names in a folder; None for that of each input.

    Raises:
        NotFoundError: An input, or the folder of the output, does not exist.
        InvalidInputError: The request is contradictory; the text says what to do instead.
    """
    sources, target = _checked_sources(inputs), Path(output)
    several = len(sources) > 1 or sources[0].is_dir()
    if several or target.is_dir() or output.endswith(("/", os.sep)):
        _check_folder(output, target)
        jobs = list(_into_folder(sources, target, suffix))
    elif suffix is not None:
        raise InvalidInputError(
            f"{output}: --format is for an output folder; a file's suffix selects its format"
        )
    else:
        jobs = [_into_file(sources[0], target)]
    if not jobs:
        raise InvalidInputError(f"{', '.join(inputs)}: contains no images")
    _check_targets(jobs)
    return list(dict.fromkeys(jobs))


def are_videos(inputs: Sequence[str], output: str) -> bool:
    """Return whether the inputs are videos.

    Raises:
        InvalidInputError: Some are videos, others are not.
    """
    videos = [each for each in inputs if _is_video(Path(each))]
    others = [each for each in inputs if each not in videos]
    if videos and others:
        raise InvalidInputError(
            f"{videos[0]} is a video, {others[0]} is not; upscale videos and images separately"
        )
    # A video may have any name; the output's name tells, too.
    return bool(videos) or (len(inputs) == 1 and _is_video(Path(output)))


def plan_videos(inputs: Sequence[str], output: str, suffix: str | None = None) -> list[WorkItem]:
    """Map video inputs to outputs: one to the file `output`, several into the folder `output`.

    Args:
        inputs: Video files.
        output: A file or a folder, as typed.
        suffix: Suffix of the output names in a folder; None for that of each input.

    Raises:
        NotFoundError: An input, or the folder of the output, does not exist.
        InvalidInputError: The request is contradictory; the text says what to do instead.
    """
    sources, target = _checked_sources(inputs), Path(output)
    if len(sources) > 1 or target.is_dir() or output.endswith(("/", os.sep)):
        if not target.is_dir():
            raise NotFoundError(f"{target}: no such folder; several videos need an output folder")
        jobs = [
            WorkItem(each, target / (each.with_suffix(suffix) if suffix else each).name)
            for each in sources
        ]
    else:
        jobs = [_into_file(sources[0], target)]
    for job in jobs:
        if images.could_be_image(job.target):
            raise InvalidInputError(
                f"{job.source}: a video cannot be written to the image {job.target.name}; name a "
                "video file, such as big.mkv"
            )
    _check_apart(jobs)
    return list(dict.fromkeys(jobs))


def remaining(jobs: Sequence[WorkItem], *, overwrite: bool, resume: bool) -> list[WorkItem]:
    """Return the items that are not yet done.

    Raises:
        InvalidInputError: Outputs exist, and neither option is set.
    """
    done = {job for job in jobs if job.target.exists()}
    if not done or overwrite:
        return list(jobs)
    if resume:
        return [job for job in jobs if job not in done]
    first = next(job.target for job in jobs if job in done)
    if len(jobs) == 1:
        raise InvalidInputError(f"{first}: already exists; --overwrite replaces it")
    raise InvalidInputError(
        f"{len(done)} of {len(jobs)} outputs already exist, such as {first}; "
        "--resume keeps them and continues, --overwrite replaces them"
    )


def _checked_sources(inputs: Sequence[str]) -> list[Path]:
    """Check that inputs exist and cannot block: opening a pipe or a device may never return."""
    sources = [Path(each) for each in inputs]
    for source in sources:
        if not source.exists():
            raise NotFoundError(f"{source}: no such file or folder")
        if not (source.is_file() or source.is_dir()):
            raise InvalidInputError(
                f"{source}: not a regular file; pipe frames to stdin (-) instead"
            )
    return sources


def _into_file(source: Path, target: Path) -> WorkItem:
    if not target.parent.is_dir():
        raise NotFoundError(f"{target.parent}: no such folder")
    return WorkItem(source, target)


def _check_folder(output: str, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InvalidInputError(f"{output}: is a file; several images need an output folder")
    if images.could_be_image(target) and not target.exists() and not output.endswith(("/", os.sep)):
        raise InvalidInputError(
            f"{output}: is the name of one image, but several are written; name a folder"
        )


def _into_folder(sources: Sequence[Path], folder: Path, suffix: str | None) -> Iterator[WorkItem]:
    for source in sources:
        found = _images_in(source, folder) if source.is_dir() else [source]
        base = source if source.is_dir() else source.parent
        for path in found:
            name = path.relative_to(base)
            yield WorkItem(path, folder / (name.with_suffix(suffix) if suffix else name))


def _images_in(folder: Path, output: Path) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders, except those in the output folder."""
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
                if _is_regular(here / name):
                    yield here / name
                else:
                    _log.warning("%s: skipped, not a regular file", here / name)
            videos += _is_video(Path(name))
    if videos:
        _log.warning("%s: skipped %d videos; name them to upscale them", folder, videos)


def _is_regular(path: Path) -> bool:
    """Return whether a path leads to a regular file, or cannot be read (reported when opened)."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _check_targets(jobs: Sequence[WorkItem]) -> None:
    for job in jobs:
        images.check_fits(job.target, 1, 1)  # the suffix names a format
    _check_apart(jobs)


def _check_apart(jobs: Sequence[WorkItem]) -> None:
    """Check that no item writes a file that another reads or writes."""
    # Not Path.resolve, which raises RuntimeError for links in a loop before Python 3.13.
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, WorkItem] = {}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise InvalidInputError(
                f"{job.target}: inputs are never overwritten; choose another output"
            )
        other = taken.setdefault(os.path.normcase(job.target), job)
        if os.path.realpath(other.source) != os.path.realpath(job.source):
            raise InvalidInputError(
                f"{other.source} and {job.source} would both be written to {job.target}; "
                "rename one, or use two output folders"
            )


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in _VIDEO_SUFFIXES and not path.is_dir()


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)
