"""`sr-upscale`: upscale images, folders of images, videos and pipes."""

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
Upscale images and videos with a bundle from sr-export.

Images: one image is written to the file OUTPUT; several images and folders (with subfolders) are
written into the folder OUTPUT under their own names. Formats: PNG, JPEG, WebP, TIFF and BMP, by
suffix. Gray stays gray, alpha is upscaled too, and 16 bits stay 16 bits in PNG and TIFF. ICC
profile, EXIF and resolution are kept; the EXIF orientation is applied.

Videos: frames are encoded again, with the same timestamps; audio, subtitles, chapters, attachments
and tags are copied. 10 bits stay 10 bits. Progress is saved next to the output, and --resume
continues after an interruption.

Pipes: "-" reads Y4M or raw frames (--raw) from stdin, or writes them to stdout.

Inputs are never overwritten. Outputs appear only when they are complete."""

_EXAMPLES = """\
examples:
  sr-upscale net.srd photo.jpg big.png          one image, to another format
  sr-upscale net.srd a.png b.png big/           several images, into a folder
  sr-upscale net.srd photos big                 a folder with its subfolders
  sr-upscale net.srd photos big --resume        continue after an interruption
  sr-upscale net.srd photos big --format webp --quality 90
  sr-upscale net.srd huge.tif big.tif --memory 8GiB
  sr-upscale net.srd film.mp4 big.mkv           a video
  sr-upscale net.srd film.mp4 big.mkv --encoder hevc --quality 18 --preset slow
  sr-upscale net.srd film.mp4 test.mkv --start 1:30 --end 1:40
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | sr-upscale net.srd - - | ffmpeg -i - out.mp4

exit codes: 0 everything is done, 1 something failed (the rest is done), 2 wrong usage,
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
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle from sr-export, NAME.srd")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="an image, a folder of images, a video, or -"
    )
    parser.add_argument("output", metavar="OUTPUT", help="a file, a folder, or -")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--format", choices=_FORMATS, help="format of outputs in a folder (default: the input's)"
    )
    files.add_argument(
        "--quality",
        type=float,
        help="for JPEG and WebP 1 to 100, WebP is lossless at 100 (default: 95); for a video the "
        "encoder's own scale, such as CRF, where lower is better (default: nearly lossless)",
    )
    existing = files.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="keep complete outputs and continue the rest"
    )
    existing.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    upscale_video.add_options(parser)
    _add_engine_options(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON lines: one per image and a summary, or the progress of a video",
    )
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("execution (default: the fastest on this machine)")
    engine.add_argument(
        "--backend",
        default="auto",
        help="openvino, onnxruntime, tensorrt or tensorrt_rtx; sr-doctor lists the installed ones",
    )
    engine.add_argument(
        "--precision",
        default="auto",
        help="fp32, fp16, bf16 or int8, for 8-bit images (default: the fastest in the bundle; "
        "every precision there has passed its quality check)",
    )
    engine.add_argument("--device", help="the backend's name of a device, such as cuda:1")
    engine.add_argument("--threads", type=int, help="CPU threads (default: all physical cores)")
    engine.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="frames computed at once, sharing the threads (default: 1; 2 for a video on a CPU)",
    )
    engine.add_argument(
        "--memory",
        metavar="SIZE",
        help="memory limit of the command, such as 2GiB (default: a quarter of the free memory)",
    )
    engine.add_argument(
        "--tile",
        type=_tile,
        metavar="N or HxW",
        help="tile size in pixels (default: the largest that fits into memory)",
    )


def _tile(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be N or HxW in pixels") from None


def _command(arguments: argparse.Namespace) -> int:
    streaming = upscale_video.PIPE in (*arguments.inputs, arguments.output) or worklist.are_videos(
        arguments.inputs, arguments.output
    )
    run = upscale_video.run if streaming else upscale_images.run
    with _log_on_stderr(debug=arguments.debug):
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
def _log_on_stderr(*, debug: bool) -> Iterator[None]:
    """Print the library's warnings; hide Pillow's, which name no file."""
    handler = _ConsoleHandler()
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


class _ConsoleHandler(logging.Handler):
    """Prints log records like the command's other messages."""

    def emit(self, record: logging.LogRecord) -> None:
        console.complain("sr-upscale", f"{record.levelname.lower()}: {self.format(record)}")
