"""Identify a checkpoint file by its content, never by its suffix, and name unsupported files."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, BinaryIO, Literal

from sr_deploy.errors import CheckpointError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["torch", "torch-legacy", "torchscript", "program", "safetensors", "onnx"]

READABLE = "a PyTorch checkpoint, safetensors, TorchScript, a torch.export program or ONNX"

MAX_EXPANSION = 100
"""Largest ratio of unpacked to stored bytes. PyTorch stores without compression: ratio 1."""

# Files of torch.save before PyTorch 1.6 begin with its pickled magic number.
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

# Offset, magic bytes, name of the format.
_UNSUPPORTED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "a Keras or other HDF5 file (.h5)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"ptrt", "a TensorRT engine, which cannot be converted back to a network"),
    (0, b"ftrt", "a TensorRT engine, which cannot be converted back to a network"),
    (0, b"7767517", "an ncnn parameter file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"\xfd7zXZ", "an xz archive; unpack it first"),
    (0, b"BZh", "a bzip2 archive; unpack it first"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first (PyTorch before 0.2 also wrote tar files)"),
)

_WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".onnx")


def identify(path: Path) -> Kind:
    """Return the kind of checkpoint at `path`; a zip archive is also checked for damage.

    Raises:
        NotFoundError: `path` does not exist.
        CheckpointError: the file is damaged or unsupported; the message names what it is.
    """
    if path.is_dir():
        raise CheckpointError(_folder_text(path))
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
    for offset, magic, name in _UNSUPPORTED:
        if head[offset : offset + len(magic)] == magic:
            raise CheckpointError(f"{path}: this is {name}; expected {READABLE}")
    if text := _text_kind(head):
        raise CheckpointError(f"{path}: this is {text}; expected {READABLE}")
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
    raise CheckpointError(f"{path}: this is {_zip_text(names)}; expected {READABLE}")


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


def _zip_text(names: list[str]) -> str:
    weights = next((name for name in names if name.lower().endswith(_WEIGHT_SUFFIXES)), None)
    if weights:
        return f"a zip archive that contains {weights}; unpack it first"
    if "model.weights.h5" in names:
        return "a Keras model"
    if any(name.endswith("extern_modules") for name in names):
        return "a torch.package archive, which contains Python code; save its state_dict() instead"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    return "a zip archive without a network"


def _text_kind(head: bytes) -> str | None:
    """Name text files that are often mistaken for weights; return None for binary content."""
    if not any(head):
        return "a file of zeros, as an interrupted download leaves behind"
    text = head.decode("utf-8-sig", errors="replace").strip()
    low = text.lower()
    if low.startswith(("<!doctype html", "<html")):
        return "a web page saved under this name; download the file itself"
    if low.startswith("version https://git-lfs"):
        return "a Git LFS pointer, not the weights; run `git lfs pull` in the clone"
    if sum(char == "\ufffd" or (char < " " and char not in "\t\r\n") for char in text) > 1:
        return None  # one character cut at the end of the head does not make the file binary
    first = text.splitlines()[0] if text else ""
    return f"a text file that begins with {first[:40]!r}"


def _identify_protobuf(path: Path, file: BinaryIO, size: int) -> Kind:
    """Tell ONNX from TensorFlow by the numbers of the top-level fields; neither has a magic."""
    fields = _protobuf_fields(file, size)
    if fields is not None and {(1, 0), (7, 2)} <= fields:  # ir_version, graph
        return "onnx"
    if fields is not None and fields in ({(1, 0), (2, 2)}, {(1, 2)}, {(1, 2), (4, 2)}):
        raise CheckpointError(f"{path}: this is a TensorFlow graph (.pb); expected {READABLE}")
    file.seek(0)
    if file.read(1) == b"\x80":
        raise CheckpointError(
            f"{path}: this is a Python pickle that torch.save did not write; "
            "save the network's state_dict() with torch.save"
        )
    raise CheckpointError(f"{path}: unknown file format, or a damaged file; expected {READABLE}")


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


def _folder_text(path: Path) -> str:
    inside = sorted(each.name for each in path.iterdir() if each.suffix in _WEIGHT_SUFFIXES)
    if (path / "saved_model.pb").is_file():
        return f"{path}: this folder is a TensorFlow SavedModel; expected {READABLE}"
    if inside:
        return f"{path}: this is a folder; name a file in it, such as {', '.join(inside[:3])}"
    return f"{path}: this is a folder; expected {READABLE}"
