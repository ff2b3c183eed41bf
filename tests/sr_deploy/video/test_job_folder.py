"""Nothing is deleted that the job did not write."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
from sr_deploy.errors import InvalidInputError
from sr_deploy.video.job import TranscodeJob
from sr_deploy.video.job_folder import folder_of
from sr_deploy.video.segments import EncodedPacket

PACKETS = [EncodedPacket(b"key", 0, 1, keyframe=True)]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "film.mkv"


def stranger(folder: Path) -> dict[str, bytes]:
    """Fill a folder with files that look like ours and others; return them."""
    (folder / "deeper").mkdir(parents=True)
    for name in (
        "000000.packets",
        "letter.txt",
        "deeper/photo.png",
        "lock",
        ".sr-tmp-abcdefgh.mkv",
    ):
        (folder / name).write_bytes(name.encode())
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.parametrize("journal", [False, True])
def test_a_link_is_refused(target: Path, tmp_path: Path, option: str, journal: bool) -> None:
    before = stranger(tmp_path / "private")
    if journal:
        (tmp_path / "private" / "journal.json").write_text("{}")
        before = contents(tmp_path / "private")
    folder_of(target).symlink_to(tmp_path / "private", target_is_directory=True)
    with pytest.raises(InvalidInputError, match=r"\.film\.mkv\.sr-job"):
        TranscodeJob(target, {}, **{option: True})
    assert contents(tmp_path / "private") == before
    assert folder_of(target).is_symlink()


@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_a_folder_without_our_journal_is_refused(target: Path, option: str) -> None:
    before = stranger(folder_of(target))
    with pytest.raises(InvalidInputError, match=r"\.film\.mkv\.sr-job"):
        TranscodeJob(target, {}, **{option: True})
    assert contents(folder_of(target)) == before


def test_a_journal_that_is_a_link_is_no_proof(target: Path, tmp_path: Path) -> None:
    before = stranger(folder_of(target))
    (tmp_path / "elsewhere.json").write_text("{}")
    (folder_of(target) / "journal.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InvalidInputError, match=r"\.film\.mkv\.sr-job"):
        TranscodeJob(target, {}, overwrite=True)
    assert {**contents(folder_of(target)), "journal.json": b""} == {**before, "journal.json": b""}


def test_a_file_in_place_of_the_folder_is_refused(target: Path) -> None:
    folder_of(target).write_text("mine")
    with pytest.raises(InvalidInputError):
        TranscodeJob(target, {}, overwrite=True)
    assert folder_of(target).read_text() == "mine"


def test_files_that_we_did_not_write_stay(target: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TranscodeJob(target, {}) as job:
        job.add(b"", PACKETS)
    folder = folder_of(target)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "photo.png").write_bytes(b"photo")
    (folder / "letter.txt").write_bytes(b"letter")
    (folder / "000001.packets").symlink_to(folder / "letter.txt")
    (folder / "000002.packets").write_bytes(b"leftover")
    with caplog.at_level(logging.WARNING), TranscodeJob(target, {}, resume=True) as job:
        assert not (folder / "000002.packets").exists()
        job.remove()
    assert sorted(path.name for path in folder.iterdir()) == [
        "000001.packets",
        "deeper",
        "letter.txt",
    ]
    assert contents(folder)["deeper/photo.png"] == b"photo"
    assert "letter.txt" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no descriptors of folders")
def test_a_link_put_in_place_of_an_open_folder_leads_nowhere(target: Path, tmp_path: Path) -> None:
    job = TranscodeJob(target, {})
    job.add(b"", PACKETS)
    before = stranger(tmp_path / "private")
    folder_of(target).rename(tmp_path / "moved")
    folder_of(target).symlink_to(tmp_path / "private", target_is_directory=True)
    job._files.delete_all_but(())
    job._files.close()
    job._lock.release()
    assert contents(tmp_path / "private") == before
    assert contents(tmp_path / "moved") == {}


def test_a_job_that_was_killed_before_its_journal_begins_again(target: Path) -> None:
    folder_of(target).mkdir()
    (folder_of(target) / "lock").touch()
    (folder_of(target) / ".sr-tmp-abcdefgh.json").write_text("{")
    with TranscodeJob(target, {}) as job:
        assert sorted(path.name for path in job.folder.iterdir()) == ["journal.json", "lock"]


def test_a_refused_job_keeps_its_segments(target: Path) -> None:
    with TranscodeJob(target, {"encoder": "x"}) as job:
        job.add(b"", PACKETS)
    before = contents(folder_of(target))
    for facts, options in [({"encoder": "x"}, {}), ({"encoder": "y"}, {"resume": True})]:
        with pytest.raises(InvalidInputError):
            TranscodeJob(target, facts, **options)
        assert contents(folder_of(target)) == before


@pytest.mark.parametrize("name", ["n" * 251 + ".mkv", "猫" * 83 + ".mkv", "n" * 250 + ".mkv"])
def test_the_longest_names_have_job_folders(tmp_path: Path, name: str) -> None:
    with TranscodeJob(tmp_path / name, {}) as job:
        job.add(b"", PACKETS)
    other = tmp_path / f"m{name[1:]}"
    assert folder_of(other) != folder_of(tmp_path / name)
    with TranscodeJob(tmp_path / name, {}, resume=True) as job:
        assert job.frames == 1
        job.remove()
    assert list(tmp_path.iterdir()) == []
