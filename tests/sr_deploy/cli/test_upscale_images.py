"""Images overlap where memory allows, and the failure of one is no harm to the others."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sr_deploy import images
from sr_deploy.cli import upscale_images
from sr_deploy.cli.upscale_images import ImageResult, Pipeline
from sr_deploy.cli.worklist import WorkItem
from sr_deploy.errors import BackendError, ImageError, OutOfMemoryError
from sr_deploy.images import Picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_deploy.images.picture import AnyPixels

PLENTY = 1 << 30
# A test of threads that waits for what never comes fails after this many seconds.
PATIENCE = 10


@dataclass
class Nearest:
    """Doubles every pixel; `before` is called with the number of the image first."""

    before: Callable[[int], None] = lambda _: None
    count: int = field(default=0)
    reserves: list[int] = field(default_factory=list)

    def upscale(self, image: AnyPixels, /, *, reserve: int) -> AnyPixels:
        self.reserves.append(reserve)
        self.count += 1
        self.before(self.count - 1)
        return image.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture
def jobs(tmp_path: Path) -> list[WorkItem]:
    """Four small images to double."""
    found = []
    for number in range(4):
        pixels = np.full((3 + number, 5, 3), 10 * number, np.uint8)
        images.write(tmp_path / f"{number}.png", Picture(pixels))
        found.append(WorkItem(tmp_path / f"{number}.png", tmp_path / "out" / f"{number}.png"))
    return found


def _run(
    jobs: list[WorkItem], upscaler: Nearest, available: int = PLENTY, shared: int = PLENTY
) -> list[ImageResult]:
    line = Pipeline(upscaler, scale=2, available=available, shared=shared, quality=95)
    return list(line.run(jobs))


def _written(jobs: list[WorkItem]) -> list[str]:
    folder = jobs[0].target.parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("shared", [0, PLENTY])
def test_all_are_done_in_order(jobs: list[WorkItem], shared: int) -> None:
    outcomes = _run(jobs, Nearest(), shared=shared)
    assert [outcome.item for outcome in outcomes] == jobs
    assert [outcome.size for outcome in outcomes] == [(6 + 2 * i, 10) for i in range(4)]
    for number, job in enumerate(jobs):
        assert (images.read(job.target).pixels == 10 * number).all()


def test_one_alone(jobs: list[WorkItem]) -> None:
    (outcome,) = _run(jobs[:1], Nearest())
    assert outcome.error is None
    assert outcome.seconds > 0


def test_the_next_is_read_while_one_is_upscaled(
    jobs: list[WorkItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    def read(path: Path) -> Picture:
        if path == jobs[1].source:
            started.set()
        return images.read(path)

    def before(number: int) -> None:
        if number == 0:
            assert started.wait(PATIENCE)

    monkeypatch.setattr(upscale_images, "images", _Images(read))
    assert [outcome.error for outcome in _run(jobs, Nearest(before))] == [None] * 4


def test_the_last_is_written_while_one_is_upscaled(
    jobs: list[WorkItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = threading.Event()

    def write(path: Path, picture: Picture, *, quality: int) -> None:
        assert path != jobs[0].target or reached.wait(PATIENCE)
        images.write(path, picture, quality=quality)

    def before(number: int) -> None:
        if number == 1:
            reached.set()

    monkeypatch.setattr(upscale_images, "images", _Images(write=write))
    assert [outcome.error for outcome in _run(jobs, Nearest(before))] == [None] * 4


def test_without_shared_memory_there_is_one_at_a_time(
    jobs: list[WorkItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def read(path: Path) -> Picture:
        events.append(f"read {path.name}")
        return images.read(path)

    def write(path: Path, picture: Picture, *, quality: int) -> None:
        images.write(path, picture, quality=quality)
        events.append(f"wrote {path.name}")

    monkeypatch.setattr(upscale_images, "images", _Images(read, write))
    _run(jobs, Nearest(), shared=0)
    assert events == [f"{done} {i}.png" for i in range(4) for done in ("read", "wrote")]


class _Images:
    """The module sr_deploy.images, with other ways to read and write."""

    def __init__(
        self,
        read: Callable[[Path], Picture] = images.read,
        write: Callable[..., None] = images.write,
    ) -> None:
        self.read = read
        self.write = write

    def __getattr__(self, name: str) -> object:
        return getattr(images, name)


def test_the_network_is_told_what_others_may_take(jobs: list[WorkItem]) -> None:
    alone, together = Nearest(), Nearest()
    _run(jobs, alone, shared=0)
    encoding = images.writing_memory(jobs[0].target, 60, alpha=False, quality=95)
    assert alone.reserves == [encoding] * 4
    _run(jobs, together, shared=PLENTY)
    pixels = [(3 + i) * 5 * 3 * 5 for i in range(4)]
    assert together.reserves == [PLENTY - each for each in pixels]


def test_a_damaged_image_is_no_harm_to_the_others(jobs: list[WorkItem]) -> None:
    jobs[0].source.write_bytes(jobs[0].source.read_bytes()[:40])
    jobs[2].source.write_bytes(b"no image")
    outcomes = _run(jobs, Nearest())
    assert [type(outcome.error) for outcome in outcomes] == [
        ImageError,
        type(None),
        ImageError,
        type(None),
    ]
    assert _written(jobs) == ["1.png", "3.png"]


def test_an_image_that_the_network_fails_on_is_no_harm_to_the_others(jobs: list[WorkItem]) -> None:
    def before(number: int) -> None:
        if number == 1:
            raise OutOfMemoryError("too much")

    outcomes = _run(jobs, Nearest(before))
    assert [str(outcome.error or "") for outcome in outcomes] == ["", "too much", "", ""]
    assert _written(jobs) == ["0.png", "2.png", "3.png"]


def test_a_backend_that_fails_ends_it(jobs: list[WorkItem]) -> None:
    def before(number: int) -> None:
        if number == 1:
            raise BackendError("no more")

    with pytest.raises(BackendError, match="no more"):
        _run(jobs, Nearest(before))
    assert _written(jobs) == ["0.png"]


@pytest.mark.parametrize("shared", [0, PLENTY])
def test_an_interruption_ends_it(jobs: list[WorkItem], shared: int) -> None:
    def before(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(jobs, Nearest(before), shared=shared)
    assert _written(jobs) == ["0.png", "1.png"]  # whole, and nothing half-written


def test_who_takes_no_more_ends_it(jobs: list[WorkItem]) -> None:
    line = Pipeline(Nearest(), scale=2, available=PLENTY, shared=0, quality=95)
    outcomes = line.run(jobs)
    assert next(outcomes).item == jobs[0]
    outcomes.close()
    assert "3.png" not in _written(jobs)


def test_an_image_that_cannot_fit_is_not_even_read(
    jobs: list[WorkItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscale_images, "images", _Images(read=lambda path: pytest.fail(str(path))))
    outcomes = _run(jobs, Nearest(), available=1000)
    assert all(isinstance(outcome.error, OutOfMemoryError) for outcome in outcomes)
    assert "5x3 pixels to 10x6" in str(outcomes[0].error)


def test_what_decoding_takes_counts_where_it_is_more_than_what_follows(tmp_path: Path) -> None:
    images.write(tmp_path / "a.webp", Picture(np.zeros((2000, 3000, 3), np.uint8)))
    job = WorkItem(tmp_path / "a.webp", tmp_path / "b.png")
    # At the same size, 18 MB before, 18 after, some tens for encoding; 102 while it is decoded.
    outcomes = Pipeline(Nearest(), scale=1, available=95 << 20, shared=0, quality=95).run([job])
    assert isinstance(next(outcomes).error, OutOfMemoryError)


def test_an_output_that_the_format_cannot_hold_is_known_before(
    jobs: list[WorkItem], tmp_path: Path
) -> None:
    images.write(tmp_path / "wide.png", Picture(np.zeros((1, 8192), np.uint8)))
    job = WorkItem(tmp_path / "wide.png", tmp_path / "out" / "wide.webp")
    never = Nearest(lambda _: pytest.fail("was upscaled"))
    (outcome,) = _run([job], never)
    assert "16383" in str(outcome.error)


def test_a_full_disk_ends_it(jobs: list[WorkItem], monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Nearest()

    def write(path: Path, _: Picture, *, quality: int) -> None:
        raise ImageError(f"{path}: {quality}") from OSError(28, "No space left on device")

    monkeypatch.setattr(upscale_images, "images", _Images(write=write))
    with pytest.raises(ImageError, match=r"0.png: 95"):
        _run(jobs, upscaler)
    assert upscaler.count <= 2
