"""Measure the overlap of reading, network and writing: a whole video against its stages.

    python benchmarks/overlap.py BUNDLE VIDEO --output benchmarks/results/video/overlap.json

Each round runs every stage alone and then the whole pipeline, in one process: reading (decoding and
conversion to arrays), the network, writing (conversion to frames and encoding). There are two
thread configurations:

shared    every stage may use all cores. The processors are the limit: the pipeline takes at least
          the total processor time divided by the number of cores.
apart     the network uses all cores but one; reading and writing use the remaining core. The
          slowest stage is the limit.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_deploy import Engine, machine
from sr_deploy.files import atomic_file
from sr_deploy.video import encode
from sr_deploy.video.convert import ArrayToFrame, FrameToArray
from sr_deploy.video.source import VideoSource
from sr_deploy.video.transcode import ColorSpec, StageMeter, upscaled

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = ("reading", "network", "writing")


@dataclass(frozen=True)
class ThreadSplit:
    """The number of threads of each stage."""

    name: str
    network: int
    others: int


def main() -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=100, help="frames to process (default: 100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    cores = machine.cores()
    settings = (ThreadSplit("shared", cores, cores), ThreadSplit("apart", max(1, cores - 1), 1))
    results = {each.name: _measured(arguments, each, cores) for each in settings}
    for name, found in results.items():
        print(name, json.dumps(found["medians"]))
    if arguments.output:
        text = json.dumps(_record(arguments, cores, results), indent=1)
        with atomic_file(arguments.output) as path:
            path.write_text(text + "\n", encoding="utf-8")
    return 0


def _measured(arguments: argparse.Namespace, setting: ThreadSplit, cores: int) -> dict[str, Any]:
    with Engine(arguments.bundle, threads=setting.network) as engine:
        work = _VideoStages(engine, arguments.video, arguments.frames, setting)
        work.whole()  # warm-up: compiles the network for this size
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append({name: _timed(getattr(work, name)) for name in (*STAGES, "whole")})
    return {"setting": asdict(setting), "rounds": rounds, "medians": _medians(rounds, cores)}


class _VideoStages:
    """The stages of one video, and the whole pipeline."""

    def __init__(self, engine: Engine, video: Path, frames: int, setting: ThreadSplit) -> None:
        self._engine, self._video = engine, video
        self._count, self._threads = frames, setting.others
        with self._opened() as source:
            self._info = source.info
        scale = engine.spec.scale
        size = scale * self._info.width, scale * self._info.height
        self._settings = encode.choose(self._info, size, ".mkv", threads=setting.others)
        self._pixels: list[Any] = []
        self._results: list[Any] = []

    def reading(self) -> None:
        """Decode all frames and convert them to arrays."""
        take = FrameToArray(self._info.color)
        with self._opened() as source:
            self._pixels = [
                (take(frame), frame.pts, frame.duration)
                for _, frame in zip(range(self._count), source.frames(), strict=False)
            ]

    def network(self) -> None:
        """Upscale the arrays."""
        self._results = [(self._engine.upscale(pixels), *when) for pixels, *when in self._pixels]

    def writing(self) -> None:
        """Convert the results to frames and encode them."""
        finish = ArrayToFrame(self._settings.pixel_format, self._settings.color)
        encoder = encode.Encoder(self._settings)
        for result, pts, duration in self._results:
            frame = finish(result)
            frame.pts, frame.duration, frame.time_base = pts, duration, self._info.time_base
            for _ in encoder.encode(frame):
                pass
        for _ in encoder.encode(None):
            pass
        self._results.clear()

    def whole(self) -> None:
        """Run the whole pipeline as `sr-upscale` does."""
        look = ColorSpec(self._info.color, self._settings.color, self._settings.pixel_format)
        encoder = encode.Encoder(self._settings)
        with self._opened() as source:
            frames = (frame for _, frame in zip(range(self._count), source.frames(), strict=False))
            for frame in upscaled(self._engine, frames, look, StageMeter()):
                for _ in encoder.encode(frame):
                    pass
        for _ in encoder.encode(None):
            pass

    def _opened(self) -> VideoSource:
        return VideoSource(self._video, threads=self._threads)


def _timed(stage: Callable[[], None]) -> dict[str, float]:
    wall, processor = time.perf_counter(), time.process_time()
    stage()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def _medians(rounds: list[dict[str, dict[str, float]]], cores: int) -> dict[str, float]:
    """Return medians over the rounds; ratios are taken within each round."""
    found = {
        name: statistics.median(each[name]["wall"] for each in rounds)
        for name in (*STAGES, "whole")
    }
    slowest = [max(each[name]["wall"] for name in STAGES) for each in rounds]
    bound = [sum(each[name]["processor"] for name in STAGES) / cores for each in rounds]
    whole = [each["whole"]["wall"] for each in rounds]
    found["whole_over_slowest"] = statistics.median(
        a / b for a, b in zip(whole, slowest, strict=True)
    )
    found["whole_over_processor_bound"] = statistics.median(
        a / b for a, b in zip(whole, bound, strict=True)
    )
    return {name: round(value, 4) for name, value in found.items()}


def _record(arguments: argparse.Namespace, cores: int, results: dict[str, Any]) -> dict[str, Any]:
    packages = ("sr-deploy", "av", "numpy", "openvino")
    return {
        "made": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "bundle": arguments.bundle.name,
        "video": arguments.video.name,
        "frames": arguments.frames,
        "processor": machine.processor(),
        "cores": cores,
        "features": machine.features(),
        "load_before": os.getloadavg()[0],
        "versions": {name: metadata.version(name) for name in packages},
        "results": results,
    }


if __name__ == "__main__":
    raise SystemExit(main())
