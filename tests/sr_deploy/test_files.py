"""Files are complete or absent, and existing ones are not lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sr_deploy import files
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import atomic_file, atomic_folder, collect_leftovers, inside, sha256_of


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


# Leftovers of killed processes.

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
_KILLED = """
import os, signal, sys
from pathlib import Path
from sr_deploy import files
target = Path(sys.argv[2])
{}
with getattr(files, sys.argv[1])(target) as temporary:
    (temporary / "part" if temporary.is_dir() else temporary).write_text("new")
    if sys.argv[3] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""
_NO_EXCHANGE = "files._exchange = lambda *_: False"
_KILL_AFTER_FIRST_RENAME = f"""
{_NO_EXCHANGE}
rename = Path.rename
Path.rename = lambda *paths: (rename(*paths), os.kill(os.getpid(), signal.SIGKILL))
"""


def _killed(function: str, target: Path, patch: str = "", when: str = "writing") -> None:
    """Write `target` in a process that is killed before the end."""
    command = [sys.executable, "-c", _KILLED.format(patch), function, str(target), when]
    ended = subprocess.run(command, check=False, capture_output=True)
    assert ended.returncode == -9, ended.stderr


@POSIX
@pytest.mark.parametrize("function", ["atomic_file", "atomic_folder"])
def test_leftovers_of_a_killed_process_are_collected(tmp_path: Path, function: str) -> None:
    target = tmp_path / "x.srd"
    for _ in range(2):
        _killed(function, target)
    assert not target.exists()
    assert len(_names(tmp_path)) == 1  # the second run has collected the leftover of the first
    assert files.TEMPORARY.fullmatch(_names(tmp_path)[0])
    files._collect_once.cache_clear()
    with getattr(files, function)(tmp_path / "other") as temporary:
        assert _names(tmp_path) == [temporary.relative_to(tmp_path).parts[0]]


@POSIX
@pytest.mark.parametrize("function", ["atomic_file", "atomic_folder"])
def test_temporaries_of_a_running_neighbor_stay(tmp_path: Path, function: str) -> None:
    with getattr(files, function)(tmp_path / "one") as one:
        collect_leftovers(tmp_path)
        with getattr(files, function)(tmp_path / "two"):
            pass
        assert one.exists()
    assert _names(tmp_path) == ["one", "two"]


@POSIX
def test_a_bundle_that_was_moved_away_is_restored(tmp_path: Path) -> None:
    target = tmp_path / "x.srd"
    target.mkdir()
    (target / "old").touch()
    _killed("atomic_folder", target, _KILL_AFTER_FIRST_RENAME, "renaming")
    assert not target.exists()
    collect_leftovers(tmp_path)
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["x.srd"]


@POSIX
def test_a_bundle_that_is_exchanged_is_there_at_any_moment(tmp_path: Path) -> None:
    target = tmp_path / "x.srd"
    target.mkdir()
    (target / "old").touch()
    kill = "files._delete = lambda _: os.kill(os.getpid(), signal.SIGKILL)"
    _killed("atomic_folder", target, kill, "exchanged")
    assert _names(target) == ["part"]
    collect_leftovers(tmp_path)
    assert _names(tmp_path) == ["x.srd"]


def test_a_folder_is_replaced_where_nothing_can_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    test_a_folder_is_replaced_as_a_whole(tmp_path)


def test_a_bundle_is_restored_when_its_successor_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    rename = Path.rename

    def broken(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    target = tmp_path / "x.srd"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(OSError), atomic_folder(target) as temporary:  # noqa: PT011
        (temporary / "new").touch()
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["x.srd"]


@POSIX
def test_what_is_not_ours_is_never_collected(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "letter").touch()
    folder = tmp_path / "folder"
    (folder / ".sr-tmp-aaaaaaaa").mkdir(parents=True)
    (folder / ".sr-tmp-aaaaaaaa" / "letter").touch()
    (folder / ".sr-tmp-bbbbbbbb").symlink_to(private, target_is_directory=True)
    (folder / ".sr-tmp-cccccccc.png").symlink_to(private / "letter")
    os.mkfifo(folder / ".sr-tmp-dddddddd")
    (folder / ".sr-tmp-eeeeeeee").mkdir()
    (folder / ".sr-tmp-eeeeeeee" / "new").symlink_to(private, target_is_directory=True)
    (folder / ".sr-tmp-photo.png").touch()  # not a name of ours
    collect_leftovers(folder)
    kept = [f".sr-tmp-{each}" for each in ("aaaaaaaa", "bbbbbbbb", "cccccccc.png", "dddddddd")]
    assert _names(folder) == [*kept, ".sr-tmp-photo.png"]
    assert _names(folder / ".sr-tmp-aaaaaaaa") == ["letter"]
    assert _names(private) == ["letter"]


@POSIX
@pytest.mark.parametrize("name", ["n" * 251 + ".png", "猫" * 83 + ".png", "a." + "n" * 253])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    with atomic_file(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert _names(tmp_path) == [name]
