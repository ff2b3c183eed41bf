"""Files that are often taken for checkpoints: what each is, and how to get one that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

READABLE = (
    "a PyTorch checkpoint, safetensors, TorchScript, a torch.export program, ONNX or a Keras model"
)
_EXPECTED = f"expected {READABLE}"
_ONE_WAY = (
    "which cannot be converted back; export the checkpoint that it was made from ({}), or its ONNX "
    "file"
)
_PICTURE = "sr-export needs the network; sr-upscale takes {}"
_UNPACK = "unpack it first"
_TF2ONNX = "convert it with tf2onnx: python -m tf2onnx.convert {} --output net.onnx"
_MATLAB = (
    "read it with scipy.io.loadmat, and save its arrays as tensors with torch.save under the names "
    "of the network's state dict"
)
_TFJS = (
    "convert it with tensorflowjs_converter --input_format tfjs_layers_model --output_format keras "
    "FILE net.h5"
)
_NUMPY = (
    "save its arrays for PyTorch, under the names of the network's state dict: import numpy, "
    "torch; torch.save({{k: torch.from_numpy(v) for k, v in numpy.load({!r}).items()}}, "
    "'weights.pth')"
)

# Offset, magic bytes, what the file is, and the way out.
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"MATLAB ", "a MATLAB file (.mat)", _MATLAB),
    (4, b"TFL3", "a TensorFlow Lite model", _TF2ONNX.format("--tflite FILE")),
    (0, b"GGUF", "a GGUF file", "export the checkpoint that it was made from"),
    (0, b"ptrt", "a TensorRT engine", _ONE_WAY.format(".pth")),
    (0, b"ftrt", "a TensorRT engine", _ONE_WAY.format(".pth")),
    (0, b"7767517", "an ncnn parameter file (.param)", _ONE_WAY.format(".pth")),
    (0, b"\x12\x01\0\0\0\0\0\0", "an MXNet parameter file", _ONE_WAY.format(".pth")),
    (
        0,
        b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1",
        "a Torch7 file of Lua (.t7)",
        _ONE_WAY.format(".pth"),
    ),
    (0, b"\x93NUMPY", "a NumPy array", "sr-export needs all weights of the network, by name"),
    (0, b"\x89PNG", "a PNG image", _PICTURE.format("images")),
    (0, b"\xff\xd8\xff", "a JPEG image", _PICTURE.format("images")),
    (0, b"GIF8", "a GIF image", _PICTURE.format("images")),
    (8, b"WEBP", "a WebP image", _PICTURE.format("images")),
    (4, b"ftyp", "a video or image (MP4, MOV, AVIF)", _PICTURE.format("images and videos")),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska, WebM)", _PICTURE.format("videos")),
    (0, b"%PDF", "a PDF document", _EXPECTED),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", f"{_UNPACK} (PyTorch before 0.2 also wrote tar files)"),
)

# Words near the beginning of text files, what each is, and the way out.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (
        "git-lfs.github.com/spec",
        "a Git LFS pointer, not the weights",
        "run `git lfs pull` in the clone",
    ),
    ("<net name=", "an OpenVINO model (.xml)", _ONE_WAY.format(".pth")),
    ('"modelTopology"', "a TensorFlow.js model", _TFJS),
    ("<error><code>", "an error of a web server", "download the file itself"),
    ("<!doctype html", "a web page saved under this name", "download the file itself"),
    ("<html", "a web page saved under this name", "download the file itself"),
    ("syntax:", "a text form of a network", _EXPECTED),
    ("input_dim:", "a Caffe network description (.prototxt)", _ONE_WAY.format(".caffemodel")),
)

_WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".onnx")


def by_head(path: Path, head: bytes) -> str | None:
    """Name a file by its first bytes; None: neither one of these formats nor text."""
    for offset, magic, name, advice in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return f"{name}; {advice}".replace("FILE", path.name)
    if not any(head):
        return f"a file of zeros, as an interrupted download leaves behind; {_EXPECTED}"
    text = head.decode("utf-8-sig", errors="replace").strip()
    if sum(char == "\ufffd" or (char < " " and char not in "\t\r\n") for char in text) > 1:
        return None  # one character cut at the end of the head does not make the file binary
    low = text.lower()
    for words, name, advice in _TEXTS:
        if words.lower() in low:
            return f"{name}; {advice}".replace("FILE", path.name)
    first = text.splitlines()[0] if text else ""
    return f"a text file that begins with {first[:40]!r}; {_EXPECTED}"


def by_fields(path: Path, fields: set[tuple[int, int]]) -> str | None:
    """Name a protobuf file by the numbers and wire types of its fields; None: unknown."""
    if {(1, 0), (2, 2)} < fields and any(number >= 200 for number, _ in fields):
        return f"a Core ML model, {_ONE_WAY.format('.pth or .keras')}"
    if (100, 2) in fields:
        return f"a Caffe network (.caffemodel), {_ONE_WAY.format('.pth')}"
    if fields == {(1, 0), (2, 2)}:
        return (
            "a TensorFlow SavedModel; give its whole folder to tf2onnx: python -m tf2onnx.convert "
            "--saved-model FOLDER --output net.onnx"
        )
    if fields in ({(1, 2)}, {(1, 2), (4, 2)}, {(1, 2), (2, 2), (4, 2)}):
        ends = f"--graphdef {path.name} --inputs NAME:0 --outputs NAME:0"
        return f"a TensorFlow graph (.pb); {_TF2ONNX.format(ends)}"
    return None


def in_zip(path: Path, names: list[str]) -> str:
    """Name a zip archive by its members."""
    weights = next((name for name in names if name.lower().endswith(_WEIGHT_SUFFIXES)), None)
    if weights:
        return f"a zip archive that contains {weights}; {_UNPACK}"
    if any(name.endswith("extern_modules") for name in names):
        return "a torch.package archive, which contains Python code; save its state_dict() instead"
    if names and all(name.endswith(".npy") for name in names):
        return f"a NumPy archive (.npz); {_NUMPY.format(path.name)}"
    return f"a zip archive without a network; {_EXPECTED}"


def in_folder(path: Path) -> str:
    """Name a folder by its files."""
    names = sorted(each.name for each in path.iterdir())
    inside = [name for name in names if name.endswith(_WEIGHT_SUFFIXES)]
    if "saved_model.pb" in names:
        return (
            "is a TensorFlow SavedModel; convert it with tf2onnx, which needs TensorFlow: python "
            f"-m tf2onnx.convert --saved-model {path.name} --output net.onnx; or save the model as "
            ".keras"
        )
    if "Manifest.json" in names and "Data" in names:
        return f"is a Core ML package, {_ONE_WAY.format('.pth or .keras')}"
    if _is_tensorflow(names):
        return (
            "has checkpoints of TensorFlow, which are weights without a network; save the model as "
            ".keras or .h5 in the program that it was trained with"
        )
    if inside:
        return f"is no checkpoint; name a file in it, such as {', '.join(inside[:3])}"
    return f"is no checkpoint; {_EXPECTED}"


def unknown(path: Path) -> str:
    """Describe a file that nothing recognizes, by the files beside it."""
    if path.suffix == ".bin" and path.with_suffix(".param").exists():
        return f"this is an ncnn weight file (.bin), {_ONE_WAY.format('.pth')}"
    if path.suffix == ".bin" and path.with_suffix(".xml").exists():
        return f"this is an OpenVINO weight file (.bin), {_ONE_WAY.format('.pth')}"
    if _is_tensorflow([path.name]):
        return (
            "this is part of a TensorFlow checkpoint, which are weights without a network; save "
            "the model as .keras or .h5 in the program that it was trained with"
        )
    if path.suffix == ".onnx":
        return "the ONNX file is truncated or damaged; copy or download it again"
    return f"unknown file format, or a damaged file; {_EXPECTED}"


def _is_tensorflow(names: Iterable[str]) -> bool:
    return any(".data-0" in name or name.endswith(".index") for name in names)
