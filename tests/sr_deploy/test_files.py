"""Files are complete or absent, and existing ones are not lost."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import atomic_file, atomic_folder, inside, sha256_of


class _InterruptedError(Exception):
    """Any failure in the middle of writing."""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_of_known_content(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected


def test_file_appears_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    with atomic_file(target) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert _names(tmp_path) == ["picture.png"]


def test_interrupted_file_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    target.write_text("old")
    with pytest.raises(_InterruptedError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise _InterruptedError
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["picture.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    with atomic_file(tmp_path / "atomic") as temporary:
        temporary.touch()
    assert (tmp_path / "atomic").stat().st_mode == ordinary.stat().st_mode


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "x.srd"
    target.mkdir()
    (target / "old").touch()
    with atomic_folder(target) as temporary:
        (temporary / "new").touch()
        assert _names(target) == ["old"]
    assert _names(target) == ["new"]
    assert _names(tmp_path) == ["x.srd"]


def test_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "x.srd"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(_InterruptedError), atomic_folder(target) as temporary:
        (temporary / "new").touch()
        raise _InterruptedError
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["x.srd"]


def test_inside_returns_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "a").touch()
    assert inside(tmp_path, "engines/a") == tmp_path / "engines" / "a"
    with pytest.raises(NotFoundError, match="'b'"):
        inside(tmp_path, "b")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret"])
def test_inside_refuses_names_that_lead_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").touch()
    folder = tmp_path / "bundle"
    folder.mkdir()
    with pytest.raises(BundleError, match=re.escape(name)):
        inside(folder, name)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_inside_refuses_links_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="link"):
        inside(folder, "link")
