"""Which file becomes which, and what is never touched."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sr_deploy.cli import worklist
from sr_deploy.cli.worklist import WorkItem
from sr_deploy.errors import InvalidInputError, NotFoundError, SrDeployError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a few files in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "in/a.PNG", "in/sub/c.webp", "in/sub/.hidden.png"):
        _touch(name)
    for name in ("in/notes.txt", "in/.thumbs/t.png", "clip.mp4"):
        _touch(name)
    return tmp_path


def _touch(name: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _planned(inputs: list[str], output: str, suffix: str | None = None) -> dict[str, str]:
    jobs = worklist.plan(inputs, output, suffix)
    return {job.source.as_posix(): job.target.as_posix() for job in jobs}


@pytest.mark.usefixtures("here")
class TestPlan:
    def test_one_to_a_file(self) -> None:
        assert _planned(["a.png"], "big.jpg") == {"a.png": "big.jpg"}

    def test_one_into_a_folder(self) -> None:
        Path("out").mkdir()
        assert _planned(["a.png"], "out") == {"a.png": "out/a.png"}
        assert _planned(["in/a.PNG"], "new/") == {"in/a.PNG": "new/a.PNG"}
        assert _planned(["a.png"], "new/", ".webp") == {"a.png": "new/a.webp"}

    def test_several_into_a_folder(self) -> None:
        planned = {"a.png": "out/a.png", "b.jpg": "out/b.jpg"}
        assert _planned(["a.png", "b.jpg"], "out") == planned

    def test_a_folder_with_all_below_it(self) -> None:
        planned = {"in/a.PNG": "out/a.PNG", "in/sub/c.webp": "out/sub/c.webp"}
        assert _planned(["in"], "out") == planned
        assert _planned(["in/"], "out/") == planned

    def test_another_format(self) -> None:
        planned = {"in/a.PNG": "out/a.jpg", "in/sub/c.webp": "out/sub/c.jpg"}
        assert _planned(["in"], "out", ".jpg") == planned

    def test_the_output_inside_the_input_is_not_an_input(self) -> None:
        _touch("in/big/a.PNG")
        assert "in/big/a.PNG" not in _planned(["in"], "in/big")

    def test_an_image_that_is_named_twice_is_done_once(self) -> None:
        planned = {"in/a.PNG": "out/a.PNG", "in/sub/c.webp": "out/sub/c.webp"}
        assert _planned(["in", "in", "in/a.PNG"], "out") == planned

    def test_videos_in_a_folder_are_left_out_with_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert "clip.mp4" not in _planned(["."], "out")
        assert "1 videos" in caplog.text

    @pytest.mark.parametrize(
        ("inputs", "output", "message"),
        [
            (["a.png"], "a.png", "a.png: inputs"),
            (["in"], "in", "inputs"),
            (["a.png", "b.jpg"], ".", "inputs"),
            (["a.png", "b.jpg"], "c.png", "c.png"),
            (["in"], "c.png", "c.png"),
            (["a.png", "b.jpg"], "clip.mp4", "clip.mp4"),
            (["a.png"], "big", ".png"),
            (["a.png"], "big.gif", ".png"),
            (["a.png", "in/notes.txt"], "out", "notes.txt"),
            (["in/.thumbs/../notes.txt"], "out/", "notes.txt"),
        ],
    )
    def test_what_is_refused(self, inputs: list[str], output: str, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            worklist.plan(inputs, output)

    def test_a_link_to_an_input_is_an_input(self) -> None:
        Path("link.png").symlink_to("a.png")
        with pytest.raises(InvalidInputError, match=r"link\.png"):
            worklist.plan(["a.png"], "link.png")

    def test_two_that_would_become_one(self) -> None:
        _touch("in/a.jpg")
        assert len(worklist.plan(["in"], "out")) == 3
        with pytest.raises(InvalidInputError, match=r"a.PNG and in/a.jpg .* out/a.png"):
            worklist.plan(["in"], "out", ".png")

    def test_format_is_for_folders(self) -> None:
        with pytest.raises(InvalidInputError, match="--format"):
            worklist.plan(["a.png"], "b.jpg", ".png")

    @pytest.mark.parametrize(("source", "output"), [("none.png", "b.png"), ("a.png", "none/b.png")])
    def test_what_is_not_there(self, source: str, output: str) -> None:
        with pytest.raises(NotFoundError, match="none"):
            worklist.plan([source], output)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_a_pipe_never_blocks(self, caplog: pytest.LogCaptureFixture) -> None:
        os.mkfifo("in/pipe.png")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("in/socket.png")
        planned = _planned(["in"], "out")
        assert not {"in/pipe.png", "in/socket.png"} & set(planned)
        assert "pipe.png" in caplog.text
        assert "socket.png" in caplog.text
        for name in ("in/pipe.png", "/dev/zero"):
            with pytest.raises(InvalidInputError, match=name):
                worklist.plan([name], "out.png")

    def test_an_empty_folder(self) -> None:
        Path("empty").mkdir()
        with pytest.raises(SrDeployError, match="empty"):
            worklist.plan(["empty"], "out")


def _jobs(folder: Path, count: int, done: int) -> list[WorkItem]:
    jobs = [WorkItem(folder / f"{i}.jpg", folder / f"{i}.png") for i in range(count)]
    for job in jobs[:done]:
        job.target.touch()
    return jobs


def test_nothing_is_in_the_way(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, 3, 0)
    assert worklist.remaining(jobs, overwrite=False, resume=False) == jobs


def test_what_is_done_is_skipped_or_done_again(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, 3, 2)
    assert worklist.remaining(jobs, overwrite=False, resume=True) == jobs[2:]
    assert worklist.remaining(jobs, overwrite=True, resume=False) == jobs


@pytest.mark.parametrize(
    ("count", "message"),
    [(1, "0.png.*--overwrite"), (3, "1 of 3.*--resume.*--overwrite")],
)
def test_without_a_word_nothing_is_overwritten(tmp_path: Path, count: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        worklist.remaining(_jobs(tmp_path, count, 1), overwrite=False, resume=False)


@pytest.mark.usefixtures("here")
class TestVideos:
    @pytest.mark.parametrize(
        ("inputs", "output", "videos"),
        [
            (["clip.mp4"], "big.mkv", True),
            (["clip.MP4", "other.mov"], "out", True),
            (["clip.bin"], "big.mkv", True),
            (["a.png"], "big.png", False),
            (["in"], "out", False),
        ],
    )
    def test_what_is_work_on_videos(self, inputs: list[str], output: str, videos: bool) -> None:
        assert worklist.are_videos(inputs, output) is videos

    def test_videos_and_images_are_not_mixed(self) -> None:
        with pytest.raises(InvalidInputError, match=r"clip\.mp4 is a video, a\.png is not"):
            worklist.are_videos(["a.png", "clip.mp4"], "out")

    def test_one_to_a_file_and_several_into_a_folder(self) -> None:
        Path("out").mkdir()
        _touch("other.mov")
        clip, other = Path("clip.mp4"), Path("other.mov")
        assert worklist.plan_videos(["clip.mp4"], "big.mkv") == [WorkItem(clip, Path("big.mkv"))]
        assert worklist.plan_videos(["clip.mp4"], "out") == [WorkItem(clip, Path("out/clip.mp4"))]
        assert worklist.plan_videos(["clip.mp4", "other.mov", "clip.mp4"], "out", ".mkv") == [
            WorkItem(clip, Path("out/clip.mkv")),
            WorkItem(other, Path("out/other.mkv")),
        ]

    @pytest.mark.parametrize(
        ("inputs", "output", "message"),
        [
            (["none.mp4"], "big.mkv", "none.mp4"),
            (["clip.mp4"], "nowhere/big.mkv", "nowhere"),
            (["clip.mp4"], "clip.mp4", "clip.mp4: inputs"),
            (["clip.mp4", "in/clip.mp4"], ".", "inputs"),
            (["clip.mp4"], "big.png", "big.png"),
            (["clip.mp4", "in/clip.mp4"], "big.mkv", "big.mkv"),
        ],
    )
    def test_what_is_refused(self, inputs: list[str], output: str, message: str) -> None:
        _touch("in/clip.mp4")
        with pytest.raises(SrDeployError, match=message):
            worklist.plan_videos(inputs, output)
