from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video import job as jobs
from sr_deploy.video import segments
from sr_deploy.video.job import TranscodeJob, source_facts
from sr_deploy.video.job_folder import folder_of
from sr_deploy.video.segments import EncodedPacket

FACTS = {"the encoder": "x", "the source's size": "7"}

WORK = """
import sys, time
from pathlib import Path
from tests.sr_deploy.video.test_job import FACTS, fake
from sr_deploy.video.job import TranscodeJob

with TranscodeJob(Path(sys.argv[1]), FACTS, resume=True) as job:
    for number in range(len(job.segments), int(sys.argv[2])):
        def slowly():
            for packet in fake(number):
                time.sleep(0.002)
                yield packet
        job.add(b"header", slowly())
        print(number, flush=True)
    job.remark(["all there"])
    job.finish()
"""


def fake(number: int, count: int = 6) -> Iterator[EncodedPacket]:
    """Yield packets that depend on the number of the segment only."""
    chance = random.Random(number)
    pts = [100 * number + 7 * each for each in range(count)]
    order = [pts[0], pts[2], pts[1], *pts[3:]]
    for place, shown in enumerate(order):
        yield EncodedPacket(chance.randbytes(500), shown, 7, keyframe=place == 0)


def start(target: Path, **options: bool) -> TranscodeJob:
    return TranscodeJob(target, FACTS, **options)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "film.mkv"


def test_a_job_returns_the_packets_that_were_added(target: Path) -> None:
    with start(target) as job:
        assert (job.frames, job.last_pts, job.complete, job.extradata) == (0, None, False, b"")
        for number in range(3):
            job.add(b"header", fake(number))
        assert (job.frames, job.last_pts, job.extradata) == (18, 235, b"header")
        found = list(job.packets())
        assert [packet for packet, _ in found] == [*fake(0), *fake(1), *fake(2)]
        assert [dts for _, dts in found][:4] == [-7, 0, 7, 14]
        job.remark(["one", "two"])
        job.remark(["two", "three"])
        job.finish()
        assert job.complete
        assert job.remarks == ("one", "two", "three")


def test_a_resumed_job_equals_one_without_a_stop(target: Path) -> None:
    with start(target) as job:
        job.add(b"header", fake(0))
    with start(target, resume=True) as job:
        assert job.last_pts == 35
        job.add(b"header", fake(1))
    with start(target, resume=True) as job:
        assert [packet for packet, _ in job.packets()] == [*fake(0), *fake(1)]


def test_a_removed_job_leaves_nothing(target: Path) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
        job.remove()
    assert list(target.parent.iterdir()) == []
    start(target).close()


def test_a_job_that_did_nothing_leaves_nothing(target: Path) -> None:
    start(target).close()
    assert list(target.parent.iterdir()) == []


def test_an_interrupted_job_needs_resume_or_overwrite(target: Path) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
    with pytest.raises(InvalidInputError, match=r"--resume .* --overwrite"):
        start(target)
    with start(target, overwrite=True) as job:
        assert job.segments == ()
        assert sorted(each.name for each in job.folder.iterdir()) == ["journal.json", "lock"]


@pytest.mark.parametrize(
    ("facts", "difference"),
    [
        ({**FACTS, "the encoder": "y"}, "the encoder.* x.* y;"),
        ({"the encoder": "x"}, "the source's size.* 7,"),
        ({**FACTS, "threads": "2"}, "threads.* 2;"),
    ],
)
def test_another_job_is_refused(target: Path, facts: dict[str, str], difference: str) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
    with pytest.raises(InvalidInputError, match=difference) as caught:
        TranscodeJob(target, facts, resume=True)
    assert "\n" not in str(caught.value)
    start(target, resume=True).close()  # and nothing was lost or left locked


def test_two_processes_cannot_write_one_output(target: Path) -> None:
    with (
        start(target) as job,
        pytest.raises(InvalidInputError, match=r"film\.mkv"),
    ):
        job.add(b"", fake(0))
        start(target, overwrite=True)
    with start(target, resume=True) as job:
        assert job.frames == 6


def test_an_encoder_that_fails_leaves_no_segment(target: Path) -> None:
    def broken() -> Iterator[EncodedPacket]:
        yield from itertools.islice(fake(1), 2)
        raise ZeroDivisionError

    with start(target) as job:
        job.add(b"", fake(0))
        with pytest.raises(ZeroDivisionError):
            job.add(b"", broken())
        assert job.frames == 6
        assert len(list(job.folder.glob("*packets*"))) == 1
        job.add(b"", fake(1))


@pytest.mark.parametrize(
    ("extradata", "packets", "message"),
    [
        (b"other", fake(1), "header"),
        (b"", fake(0), " 0 .* 35"),
        (b"", [*fake(1), *fake(1)], "time"),
    ],
)
def test_segments_must_fit_each_other(
    target: Path, extradata: bytes, packets: list[EncodedPacket], message: str
) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
        with pytest.raises(InvalidInputError, match=message):
            job.add(extradata, packets)
        assert job.frames == 6


def test_a_full_disk_is_reported_and_loses_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with start(target) as job:
        job.add(b"", fake(0))
        with monkeypatch.context() as patch:
            patch.setattr(segments, "write", full)
            with pytest.raises(VideoError, match=r"No space left on device.*--resume"):
                job.add(b"", fake(1))
    with start(target, resume=True) as job:
        assert [packet for packet, _ in job.packets()] == list(fake(0))


def test_a_really_full_disk(target: Path) -> None:
    """The system limits the size of files, as a full disk does."""
    resource = pytest.importorskip("resource")
    large = [EncodedPacket(bytes(1 << 20), 100, 1, keyframe=True)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with start(target) as job:
            job.add(b"", fake(0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
            with pytest.raises(VideoError, match="File too large"):
                job.add(b"", large)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            job.add(b"", large)
            assert job.frames == 7
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "facts": {}, "segments": [{}]}', "\ud800"],
)
def test_a_damaged_journal_is_refused(target: Path, text: str) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
    (folder_of(target) / "journal.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(VideoError, match=r"journal\.json.*--overwrite"):
        start(target, resume=True)


def test_a_journal_leads_nowhere_else(target: Path) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
    path = folder_of(target) / "journal.json"
    value = json.loads(path.read_text())
    value["segments"][0]["file"] = "../other.mkv"
    path.write_text(json.dumps(value))
    with pytest.raises(VideoError, match=r"journal\.json.*other\.mkv"):
        start(target, resume=True)


def test_a_missing_segment_is_refused(target: Path) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
    (folder_of(target) / "000000.packets").unlink()
    with pytest.raises(VideoError, match=r"000000\.packets"):
        start(target, resume=True)


def test_a_damaged_segment_is_refused_when_it_is_read(target: Path) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
        path = job.folder / "000000.packets"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(VideoError, match=r"000000\.packets"):
            list(job.packets())


def test_leftovers_are_deleted(target: Path) -> None:
    with start(target) as job:
        job.add(b"", fake(0))
        (job.folder / "000001.packets").write_bytes(b"half")
        (job.folder / ".sr-tmp-abcdefgh.packets").write_bytes(b"quarter")
    with start(target, resume=True) as job:
        names = sorted(each.name for each in job.folder.iterdir())
    assert names == ["000000.packets", "journal.json", "lock"]


@pytest.mark.slow
def test_a_process_killed_at_any_instant_goes_on(target: Path) -> None:
    """Kill the worker until it gets through; the result is the same as without kills."""
    count = 12
    chance = random.Random(1)
    kills = 0
    while True:
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(target), str(count)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        ) as worker:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            if line and int(line) < count - 1:
                time.sleep(chance.uniform(0, 0.03))
                worker.kill()
                kills += 1
            rest = worker.stdout.read()
        if worker.returncode == 0:
            break
        assert worker.returncode == -signal.SIGKILL, rest
    assert kills >= 3
    with start(target, resume=True) as job:
        assert job.complete
        assert job.remarks == ("all there",)
        expected = [packet for number in range(count) for packet in fake(number)]
        assert [packet for packet, _ in job.packets()] == expected


def test_facts_identify_a_source(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, ns=(5, 5))
    before = source_facts(path)
    assert source_facts(path) == before
    for place in (0, 3 * (1 << 20) - 1):
        data = bytearray(3 << 20)
        data[place] = 1
        path.write_bytes(data)
        os.utime(path, ns=(5, 5))
        assert source_facts(path) != before
    path.write_bytes(bytes(3 << 20))
    assert source_facts(path) != before  # its time


def test_a_missing_source_has_no_facts(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="none"):
        source_facts(tmp_path / "none")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="No such file"):
        start(tmp_path / "none" / "film.mkv")


def test_the_journal_is_small() -> None:
    segment = jobs.Segment("000000.packets", 1 << 30, "0" * 64, 250, 1 << 40, 1 << 40, 3)
    ten_hours = jobs.Journal(1, {}, (segment,) * (10 * 3600 * 60 // 250))
    assert len(ten_hours.to_json()) < jobs.LARGEST_JOURNAL
