"""Identify a checkpoint file by its content, never by its suffix, and name unsupported files."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, BinaryIO, Literal

from sr_deploy.errors import CheckpointError, NotFoundError
from sr_export.checkpoint import other_formats

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["torch", "torch-legacy", "torchscript", "program", "safetensors", "onnx", "keras"]

_HDF5 = b"\x89HDF\r\n\x1a\n"

MAX_EXPANSION = 100
"""Largest ratio of unpacked to stored bytes. PyTorch stores without compression: ratio 1."""

# Files of torch.save before PyTorch 1.6 begin with its pickled magic number.
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


def identify(path: Path) -> Kind:
    """Return the kind of checkpoint at `path`; a zip archive is also checked for damage.

    Raises:
        NotFoundError: `path` does not exist.
        CheckpointError: the file is damaged or unsupported; the message names what it is.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: this folder {other_formats.in_folder(path)}")
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            return _identify(path, file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def _identify(path: Path, file: BinaryIO) -> Kind:
    head = file.read(4096)
    size = path.stat().st_size
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    if head.startswith(b"PK"):
        return _identify_zip(path)
    if head.startswith(_LEGACY_TORCH):
        return "torch-legacy"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header < 1 << 40:
        if header > size - 8:
            raise CheckpointError(f"{path}: {_damaged('safetensors file')}")
        return "safetensors"
    if head.startswith(_HDF5):
        return "keras"
    if text := other_formats.by_head(path, head):
        raise CheckpointError(f"{path}: this is {text}")
    return _identify_protobuf(path, file, size)


def _identify_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            names = archive.namelist()
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises almost anything on damaged files
        raise CheckpointError(f"{path}: {_damaged('zip file')}") from error
    # torch puts everything into one folder, except torch.export before 2.8.
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return "program"
    if "constants.pkl" in inner:
        return "torchscript"
    if "data.pkl" in inner:
        return "torch"
    if "model.weights.h5" in names:
        return "keras"
    raise CheckpointError(f"{path}: this is {other_formats.in_zip(path, names)}")


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Check names, unpacked size and CRC-32 of all members.

    torch looks members up without regard to case and takes the first match, zipfile takes the
    last. With colliding names, torch could therefore load a member that was never checked.
    """
    entries = archive.infolist()
    seen: set[str] = set()
    for entry in entries:
        folded = entry.filename.casefold()
        if folded in seen:
            raise CheckpointError(
                f"{path}: the zip archive contains {entry.filename!r} twice (names are compared "
                "without regard to case); torch.save does not write such files"
            )
        seen.add(folded)
    if sum(entry.file_size for entry in entries) > MAX_EXPANSION * path.stat().st_size:
        raise CheckpointError(
            f"{path}: the zip archive unpacks to more than {MAX_EXPANSION} times its size; "
            "torch.save does not write such files"
        )
    # torch.serialization.set_crc32_options(False) stores 0 in place of every checksum.
    has_checksums = any(entry.CRC for entry in entries)
    if has_checksums and (damaged := archive.testzip()) is not None:
        raise CheckpointError(f"{path}: {_damaged('zip file')} (CRC-32 of {damaged!r} differs)")


def _identify_protobuf(path: Path, file: BinaryIO, size: int) -> Kind:
    """Tell ONNX from TensorFlow by the numbers of the top-level fields; neither has a magic."""
    fields = _protobuf_fields(file, size)
    if fields is not None and {(1, 0), (7, 2)} <= fields:  # ir_version, graph
        return "onnx"
    if fields is not None and (text := other_formats.by_fields(path, fields)):
        raise CheckpointError(f"{path}: this is {text}")
    file.seek(0)
    if file.read(1) == b"\x80":
        raise CheckpointError(
            f"{path}: this is a Python pickle that torch.save did not write; "
            "save the network's state_dict() with torch.save"
        )
    raise CheckpointError(f"{path}: {other_formats.unknown(path)}")


def _protobuf_fields(file: BinaryIO, size: int) -> set[tuple[int, int]] | None:
    """Return the (number, wire type) of each top-level field, or None if it is not protobuf."""
    file.seek(0)
    fields = set()
    while file.tell() < size:
        tag = _varint(file)
        if tag is None:
            return None
        number, wire = tag >> 3, tag & 7
        length = {1: 8, 5: 4}.get(wire, 0)
        if wire in (0, 2):
            value = _varint(file)
            if value is None:
                return None
            length = value if wire == 2 else 0
        elif not length:
            return None
        if not 0 < number < 1000 or file.tell() + length > size:
            return None
        file.seek(length, 1)
        fields.add((number, wire))
    return fields


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _damaged(kind: str) -> str:
    return f"the {kind} is truncated or damaged; copy or download it again"
