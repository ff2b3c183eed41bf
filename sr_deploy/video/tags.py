"""What a file says of itself and its streams in words: titles, languages, dates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from av.container import InputContainer
    from av.stream import Stream

    from sr_deploy.video.info import Info

_CODES = (
    "bod/tib ces/cze cym/wel deu/ger ell/gre eus/baq fas/per fra/fre hye/arm isl/ice "
    "kat/geo mkd/mac mri/mao msa/may mya/bur nld/dut ron/rum slk/slo sqi/alb zho/chi"
)
_BIBLIOGRAPHIC = {code[:3]: code[4:] for code in _CODES.split()}
"""The other of a language's two codes in ISO 639-2, the only one that FFmpeg writes to MOV."""
_OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
_OF_THE_STREAM = {"duration", "vendor_id"}
_OF_THE_OLD_PICTURES = {"encoder", "bps", "number_of_frames", "number_of_bytes"}
_STATISTICS = "_statistics"


def copy(stream: Any, template: Stream, container: str, old: Collection[str] = ()) -> None:
    """Say of a stream what is said of another, but for what is listed or written by FFmpeg."""
    for key, value in template.metadata.items():
        name = key.lower().partition("-")[0]  # mkvmerge writes BPS-eng
        if name in _OF_THE_STREAM or name in old or (old and name.startswith(_STATISTICS)):
            continue
        # FFmpeg reads the title of an MP4 track under another name than it writes it.
        key = "title" if key == "name" and "title" not in template.metadata else key
        if container == "mov" and name == "language":
            value = _BIBLIOGRAPHIC.get(value, value)
        stream.metadata[key] = value
    stream.disposition = template.disposition.value


def copy_to_video(stream: Any, source: InputContainer, info: Info, container: str) -> None:
    """Say of the new video what was said of the old one, but for what is no longer so."""
    copy(stream, source.streams[info.stream], container, _OF_THE_OLD_PICTURES)
    for each in source.streams:
        if each.type == "data" and "timecode" in each.metadata:
            stream.metadata.setdefault("timecode", each.metadata["timecode"])


def of_file(source: InputContainer) -> dict[str, str]:
    """Return what is said of the whole source, but for what is said of its container."""
    return {key: value for key, value in source.metadata.items() if key.lower() not in _OF_THE_FILE}


def lost(source: InputContainer, path: Path) -> tuple[str, ...]:
    """Return in words what is said of the whole source and not of the file that was written."""
    with av.open(str(path), metadata_errors="replace") as written:
        there = {key.lower() for key in written.metadata}
        name = written.format.name.partition(",")[0]
    missing = [key for key in of_file(source) if key.lower() not in there]
    return tuple(f"{name} has no place for the tag {key!r} of the file" for key in missing)
