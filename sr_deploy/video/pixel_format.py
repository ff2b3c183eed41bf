"""In which pixel format an encoder is given its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av

from sr_deploy.errors import InvalidInputError
from sr_deploy.video.encoders import CODERS, Coder
from sr_deploy.video.sample_layout import layout

if TYPE_CHECKING:
    from sr_deploy.video.sample_layout import SampleLayout


def plain(pixel_format: str) -> str:
    """Return a format's name without the range that FFmpeg once put into names (yuvj420p)."""
    return pixel_format.replace("yuvj", "yuv")


def asked(encoder: str, pixel_format: str, size: tuple[int, int]) -> str:
    """Return the format that a user asks for.

    Raises:
        InvalidInputError: the encoder does not take it, or not in this size.
    """
    names = sorted({plain(name) for _, name in _taken(encoder)})
    if plain(pixel_format) not in names:
        raise InvalidInputError(f"pixel format {pixel_format}: {encoder} takes {', '.join(names)}")
    if not _fits(encoder, layout(pixel_format), size):
        raise InvalidInputError(_odd(encoder, plain(pixel_format), size))
    return plain(pixel_format)


def nearest(encoder: str, source: str, size: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """Return the format in which an encoder loses nothing of a source's, and what to tell of it.

    Raises:
        InvalidInputError: there is none.
    """
    wanted = layout(source)
    options = [(kind, name) for kind, name in _taken(encoder) if _holds(kind, wanted)]
    if not options:
        takes = ", ".join(sorted({plain(name) for _, name in _taken(encoder)}))
        raise InvalidInputError(
            f"{encoder} would lose depth or colour of {source}: it takes {takes}; name one of them "
            "as pixel format if that may be lost, or take another encoder (ffv1 takes nearly all)"
        )
    fitting = [(kind, name) for kind, name in options if _fits(encoder, kind, size)]
    if not fitting:
        raise InvalidInputError(_odd(encoder, options[0][1], size))
    kind, name = min(fitting, key=lambda option: _distance(option[0], option[1], wanted))
    return plain(name), _told(encoder, kind, plain(name), wanted, source, size)


def _taken(encoder: str) -> list[tuple[SampleLayout, str]]:
    """Return what an encoder takes of what is converted here."""
    shuns = CODERS.get(encoder, Coder()).shuns
    taken = []
    for found in av.Codec(encoder, "w").video_formats or ():
        if found.name in shuns or found.is_big_endian:
            continue
        try:
            taken.append((layout(found.name), found.name))
        except InvalidInputError:
            continue
    return taken


def _holds(kind: SampleLayout, wanted: SampleLayout) -> bool:
    """Return whether a format loses nothing; alpha and the kind of colours apart."""
    chroma = kind.across <= wanted.across and kind.down <= wanted.down
    return (
        kind.bits >= wanted.bits
        and kind.colours >= wanted.colours
        and (chroma or wanted.colours == 1)
        and (wanted.rgb or not kind.rgb)
    )


def _fits(encoder: str, kind: SampleLayout, size: tuple[int, int]) -> bool:
    odd = size[0] % kind.across or size[1] % kind.down
    return not odd or CODERS.get(encoder, Coder()).odd


def _distance(kind: SampleLayout, name: str, wanted: SampleLayout) -> tuple[object, ...]:
    return (
        kind.rgb != wanted.rgb,
        kind.alpha != wanted.alpha,
        kind.colours - wanted.colours,
        kind.bits,
        -kind.across * kind.down,  # as few samples of chroma as will do
        plain(name) != kind.planar,
    )


def _told(
    encoder: str,
    kind: SampleLayout,
    name: str,
    wanted: SampleLayout,
    source: str,
    size: tuple[int, int],
) -> tuple[str, ...]:
    notes = []
    if wanted.alpha and not kind.alpha:
        notes.append(
            f"{encoder} keeps no transparency: alpha is left out (ffv1 and prores keep it)"
        )
    if wanted.rgb and not kind.rgb:
        notes.append(f"{encoder} takes no RGB: {source} is encoded as {name}, rounded once")
    elif (kind.bits, kind.across, kind.down, kind.colours) != (
        *(wanted.bits, wanted.across, wanted.down),
        wanted.colours,
    ):
        odd = size[0] % wanted.across or size[1] % wanted.down
        reason = f"with {size[0]}x{size[1]} pixels, which is odd, " if odd else ""
        notes.append(
            f"{reason}{encoder} does not take {source}: it is given {name}, which loses nothing"
        )
    return tuple(notes)


def _odd(encoder: str, name: str, size: tuple[int, int]) -> str:
    return (
        f"{encoder} takes no odd width or height in {name}, and this is {size[0]}x{size[1]}; crop "
        "a row or column away, ask for pixel format yuv444p, or take the encoder ffv1"
    )
