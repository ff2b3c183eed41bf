"""`sr-upscale`: images and folders of images, upscaled by a bundle."""

from __future__ import annotations

import argparse
import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

from sr_deploy.bundle.bundle import Bundle
from sr_deploy.cli import console, upscale_images, upscale_video, worklist
from sr_deploy.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DESCRIPTION = """\
Upscale images and videos with a bundle that sr-export made.

One image becomes the file OUTPUT. Several images, and folders with all that is in them, go into
the folder OUTPUT under their own names. PNG, JPEG, WebP, TIFF and BMP are read and written; the
names say which. Gray stays gray, transparency is upscaled too, 16 bits stay 16 bits in PNG and
TIFF. Colour profile, EXIF and resolution are kept, and the orientation of EXIF is applied.

Of a video, sound, subtitles, chapters, attachments, tags and every timestamp are kept; the frames
are encoded again. 10 bits stay 10 bits. What is done of it is kept beside the output: --resume
goes on after an interruption.

"-" is a pipe: Y4M or raw frames (--raw) come in on stdin and go out on stdout.

Inputs are never overwritten. A file is written whole or not at all, so what is there is done."""

_EXAMPLES = """\
examples:
  sr-upscale net.srd photo.jpg big.png          one image, into another format
  sr-upscale net.srd a.png b.png big/           several, into a folder
  sr-upscale net.srd photos big                 a folder with its sub-folders
  sr-upscale net.srd photos big --resume        go on where it was stopped
  sr-upscale net.srd photos big --format webp --quality 90
  sr-upscale net.srd huge.tif big.tif --memory 8GiB
  sr-upscale net.srd film.mp4 big.mkv           a video
  sr-upscale net.srd film.mp4 big.mkv --encoder hevc --quality 18 --preset slow
  sr-upscale net.srd film.mp4 look.mkv --start 1:30 --end 1:40
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | sr-upscale net.srd - - | ffmpeg -i - out.mp4

exit codes: 0 all done, 1 something failed or could not be read (what could is done), 2 wrong usage,
130 interrupted."""

_FORMATS = ("png", "jpg", "webp", "tif", "bmp", "mp4", "mkv", "mov", "webm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-upscale`."""
    return console.run(_parser(), _command, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sr-upscale",
        usage="%(prog)s [options] BUNDLE INPUT [INPUT ...] OUTPUT",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the folder that sr-export made, NAME.srd")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="an image, a folder of them, a video, or -"
    )
    parser.add_argument("output", metavar="OUTPUT", help="a file, a folder to write into, or -")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--format", choices=_FORMATS, help="write this into the folder (default: as the input is)"
    )
    files.add_argument(
        "--quality",
        type=float,
        help="of JPEG and WebP, 1 to 100; WebP is lossless at 100 (default: 95). Of a video, in "
        "the encoder's own measure, such as CRF, where less is better (default: nearly lossless)",
    )
    there = files.add_mutually_exclusive_group()
    there.add_argument(
        "--resume", action="store_true", help="leave outputs that are there; go on with a video"
    )
    there.add_argument("--overwrite", action="store_true", help="replace them")
    upscale_video.add_options(parser)
    _add_engine_options(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print lines of JSON: one per image and one at the end, or how far a video is",
    )
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("how it is run (default: the best that this machine has)")
    engine.add_argument(
        "--backend", default="auto", help="what runs the network; sr-doctor lists what is there"
    )
    engine.add_argument(
        "--precision",
        default="auto",
        help="fp32, fp16, bf16 or int8, for 8-bit images (default: the fastest in the bundle, "
        "where each was measured and holds its budget)",
    )
    engine.add_argument("--device", help="which one, where the backend knows several")
    engine.add_argument("--threads", type=int, help="processor threads (default: the real cores)")
    engine.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="frames computed at once, sharing the threads (default: 1, of a video 2 on a CPU)",
    )
    engine.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the whole command may take, such as 2GiB (default: a quarter of what is free)",
    )
    engine.add_argument(
        "--tile",
        type=_tile,
        metavar="N or HxW",
        help="cut images into tiles of this size (default: as large as memory allows)",
    )


def _tile(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither N nor HxW in pixels") from None


def _command(arguments: argparse.Namespace) -> int:
    streaming = upscale_video.PIPE in (*arguments.inputs, arguments.output) or worklist.are_videos(
        arguments.inputs, arguments.output
    )
    run = upscale_video.run if streaming else upscale_images.run
    with _log_shown(debug=arguments.debug):
        return run(arguments, lambda: _engine(arguments, streaming=streaming))


def _engine(arguments: argparse.Namespace, *, streaming: bool) -> Engine:
    Bundle.open(arguments.bundle).manifest.model.require_images()
    return Engine(
        arguments.bundle,
        backend=arguments.backend,
        precision=arguments.precision,
        device=arguments.device,
        threads=arguments.threads,
        lanes=arguments.lanes,
        streaming=streaming,
        memory=arguments.memory,
        tile=arguments.tile,
    )


@contextlib.contextmanager
def _log_shown(*, debug: bool) -> Iterator[None]:
    """Print the library's warnings; keep quiet about Pillow's, which name no file."""
    handler = _Complaints()
    logger = logging.getLogger("sr_deploy")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


class _Complaints(logging.Handler):
    """Prints log records as the command's own words, with the traceback where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        console.complain("sr-upscale", f"{record.levelname.lower()}: {self.format(record)}")
