"""The catalogue: which files of which origins, and how each origin's script runs its network.

`catalogue.json` lists origins (repository, commit, licence) and their files. Of a file: its path in
the repository, SHA-256, family, task ("sr", "restoration" or "other"), `options` that a user gives
to sr-export ("{origin}" stands for the origin's folder), and `run`, how the origin's script uses
the network. Keys of `run`, with their defaults:

    kind         torch, keras (of TensorFlow), keras3 or onnx
    path         folders of the origin to import from (["."])
    module       module that defines the network; with `definitions` a script or notebook of which
                 only imports, functions and classes are kept
    class        class of the network; without it, the file holds the whole pickled module
    function     for Keras: builds the network, where the file holds weights only; `member` of its
                 result is the model, `positional` its arguments
    args         the class's keyword arguments; {"namespace": {...}} becomes an object
    key, remove  where in the file the weights are, and a prefix of their names ("module.")
    call         keyword arguments of the call
    output       which of several outputs
    color        rgb, bgr, gray, y and ycbcr (full range), y_studio and ycbcr_studio (16 to 235)
    enlarge      how the script enlarges the image before the network, such as ["bicubic", 3]
    chroma       how the script enlarges the color planes of a y network ("bicubic")
    input, range values of black and white in the input ([0, 1]) and in the output (as the input)
    mean, std    subtracted from the input and divided by, with `restore_mean` in the output too
    residual     plus or minus: the script adds the result to its input, or subtracts it
    pad          edge pixels that the script adds on each side
    floor        the script cuts off fractions instead of rounding
    size         the only size that the network takes
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an origin."""

    name: str
    repository: str  # owner/name
    commit: str
    licence: str
    path: str
    sha256: str
    family: str
    task: str
    options: tuple[str, ...]
    run: dict[str, Any]

    def origin(self, origins: Path) -> Path:
        """Return the folder with the origin's files, ORIGINS/owner/name."""
        return origins / self.repository

    def file(self, origins: Path) -> Path:
        """Return the checkpoint.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is another file.
        """
        file = self.origin(origins) / self.path
        if not file.is_file():
            raise FileNotFoundError(f"{self.name}: {self.repository} has no {self.path} here")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(f"{self.name}: SHA-256 is {found}, expected {self.sha256}")
        return file

    def chosen_options(self, origins: Path) -> list[str]:
        """Return the options that a user would give to sr-export."""
        return [option.replace("{origin}", str(self.origin(origins))) for option in self.options]


def entries() -> Iterator[Entry]:
    """Yield all files of the catalogue."""
    for origin in json.loads(FILE.read_text(encoding="utf-8"))["origins"]:
        for file in origin["files"]:
            yield Entry(
                file["name"],
                origin["repository"],
                origin["commit"],
                origin["licence"],
                file["path"],
                file["sha256"],
                file["family"],
                file["task"],
                tuple(file.get("options", ())),
                file["run"],
            )
