"""Decide the pixel values of a network: which reading of them restores photos best.

A reading is a hypothesis with a score. It is certain if it restores photos clearly better than no
network, and every other reading is clearly worse or gives the same picture. Otherwise it is
assumed, which the summary and the manifest say, with the runner-up and the options that choose it.
An image with the result of the user's own program proves a reading.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sr_export.models import restoration
from sr_export.models.ranges import BYTES, OPENCV, PILLOW, SIGNED, UNIT, Color, Ranges
from sr_export.models.restoration import (
    CLEAR_GAIN,
    MIN_GAIN,
    RESEMBLANCE,
    RIVAL,
    difference,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from sr_export.models.restoration import Expected, RestorationTask

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

IMAGENET = Ranges(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
_CENTERED = (-0.5, 0.5)
_ENLARGED = (1, 2, 3, 4)
# A known architecture that loses no more than this runs as it was trained. GANs lose up to this.
_PLAUSIBLE = -3.0
# So much better must other colors be than those that are usual for an architecture.
_OTHER_COLORS = 0.1
# Side of the test images, at the input of the network, if it enlarges nothing itself.
_SIDE = 64
# Distance from gray that the darkest and brightest outputs of a tanh reach.
_TANH_EXTREMES = 0.8
# Readings that are tried in other colors.
_FINALISTS = 3


@dataclass(frozen=True)
class PixelVerdict:
    """The pixel values of a network, and how certain they are."""

    ranges: Ranges
    assumed: tuple[str, ...] = ()
    """What was assumed, each with the runner-up and its options; empty: certain."""
    proven: str = ""
    """How they were proven by the user's own result; empty: they were not."""
    restores: bool = True
    """Whether the network restores photos, or reproduces the user's result."""
    best: str = ""
    """The best reading with its score, for messages."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Pixel values, their score, and the picture that they result in."""

    ranges: Ranges
    gain: float
    picture: NDArray[np.uint8]

    def differs(self, other: Reading) -> bool:
        """Whether the pictures differ by more than rounding."""
        if self.picture.shape != other.picture.shape:
            return True
        return difference(self.picture, other.picture).largest > restoration.SAME_LEVELS


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    """A network to try readings on.

    Args:
        run: The network on its own values, NCHW float32.
        channels: Its number of channels.
        scale: Its scale.
        size: A (height, width) that it accepts.
        grid: Sides that it accepts are multiples of this.
        fixed: Whether it accepts this size only.
        expected: The user's image and result; None: photos.
    """

    run: Run
    channels: Literal[1, 3]
    scale: int
    size: tuple[int, int]
    grid: int = 1
    fixed: bool = False
    expected: Expected | None = None
    _outputs: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def colored(self) -> bool:
        """Whether images have colors, even if the network has one channel."""
        return self.channels == 3 or (
            self.expected is not None and self.expected.given.shape[2] == 3
        )

    @property
    def colors(self) -> tuple[Color, ...]:
        """The colors that the network may use, RGB first."""
        return tuple(each for each in get_args(Color) if self.channels == 3 or each != "bgr")

    def read(self, ranges: Ranges) -> Reading | None:
        """Return the score of a reading, or None if it is impossible."""
        best: Reading | None = None
        for task in self._tasks(ranges):
            output = self._restored(ranges, task)
            gain = task.gain(output)
            needed = -np.inf if ranges.residual == "none" else CLEAR_GAIN
            if self.expected is None and gain < needed:
                # A residual must beat its base alone, which any network does that adds nothing.
                continue
            if best is None or gain > best.gain:
                levels = np.nan_to_num(output).clip(0, 1) * 255
                best = Reading(ranges, gain, levels.round().astype(np.uint8))
        return best

    def _tasks(self, ranges: Ranges) -> Sequence[RestorationTask]:
        channels = 3 if ranges.luma_only else self.channels
        scale = self.scale * ranges.enlarge
        if self.expected is not None:
            if scale != self.expected.scale:
                return ()
            channels = 3 if self.colored else channels
            low_grid = self.grid // np.gcd(self.grid, ranges.enlarge)
            return (self.expected.task(channels, int(low_grid)),)
        if ranges.enlarge == 1:
            return restoration.tasks(channels, self.scale, self.size)
        if self.fixed and any(side % ranges.enlarge for side in self.size):
            return ()
        step = int(np.lcm(self.grid, ranges.enlarge))
        sides = [max(side // step, 1) * step // ranges.enlarge for side in self.size]
        return restoration.tasks(channels, scale, (sides[0], sides[1]))

    def _restored(self, ranges: Ranges, task: RestorationTask) -> NDArray[np.float32]:
        run = ranges.around(self._remembered, self.channels)
        if self.channels == 1 and task.given.shape[1] == 3 and not ranges.luma_only:
            run = _each_channel(run)
        with np.errstate(all="ignore"):
            return np.concatenate([run(image[None]) for image in task.given])

    def _remembered(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        key = image.tobytes()
        if key not in self._outputs:
            self._outputs[key] = self.run(image)
        return self._outputs[key].copy()


def _each_channel(run: Run) -> Run:
    def separately(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([run(image[:, i : i + 1]) for i in range(3)], axis=1)

    return separately


def decide(
    probe: NetworkProbe, known: Ranges | None = None, *, settled: bool = False
) -> PixelVerdict:
    """Return the pixel values of a network.

    Args:
        probe: The network.
        known: The values that are usual for its architecture; None: unknown.
        settled: Whether all but the colors is decided already, in `known`.
    """
    if probe.expected is not None:
        return _proven(probe, known, settled=settled)
    found = _restoring(probe, known, settled=settled)
    if probe.channels == 3:
        return found
    options = options_text(replace(found.ranges, color="ycbcr"))
    gray = (
        "colors: the network is gray, so each channel of an RGB image is upscaled alone; to "
        f"upscale Y only and enlarge Cb and Cr by interpolation, as many programs do: {options}"
    )
    return replace(found, assumed=(*found.assumed, gray))


def _restoring(probe: NetworkProbe, known: Ranges | None, *, settled: bool) -> PixelVerdict:
    """Return the pixel values with which photos are restored best; see `decide`."""
    start = probe.read(known or Ranges())
    if known is not None and start is not None and (settled or start.gain > _PLAUSIBLE):
        return _check_colors(probe, start, settled=settled)
    readings = _readings(probe, [known] if known else [])
    best = max(readings, key=lambda each: each.gain)
    first = start or best
    # Other values than the usual ones of an architecture must restore photos, not just resemble.
    restoring = best.gain > max(CLEAR_GAIN, first.gain + RIVAL)
    if not (restoring if known else best.gain >= first.gain + MIN_GAIN):
        best = first
    if best.gain <= RESEMBLANCE:
        if known is None and _ends_in_tanh(probe):
            # A translator: it restores nothing, but its output shows the range.
            signed = Ranges(input=SIGNED, output=SIGNED)
            return PixelVerdict(signed, (f"pixel values {signed}, as the output fills this range",))
        return PixelVerdict(
            first.ranges,
            (f"pixel values {first.ranges}, since photos confirm none ({_score(first)})",),
            restores=known is not None,
            best=f"{best.ranges} ({_score(best)})",
        )
    return _weighed(best, readings)


def _weighed(best: Reading, readings: Iterable[Reading]) -> PixelVerdict:
    """Return the best reading, with the runner-up if it is not certain."""
    near = [
        each
        for each in readings
        if each.ranges != best.ranges and each.gain > best.gain - RIVAL and each.differs(best)
    ]
    shown = f"{best.ranges} ({_score(best)})"
    if not near and best.gain > CLEAR_GAIN:
        return PixelVerdict(best.ranges, best=shown)
    text = f"pixel values {shown}"
    if near:
        rival = max(near, key=lambda each: each.gain)
        text += f"; next best: {options_text(rival.ranges)} ({_score(rival)})"
    return PixelVerdict(best.ranges, (text,), best=shown)


def _score(reading: Reading) -> str:
    return f"{reading.gain:+.1f} dB on photos"


def _check_colors(probe: NetworkProbe, start: Reading, *, settled: bool) -> PixelVerdict:
    """Return known values, unless photos look better in other colors."""
    if probe.channels == 1:
        return PixelVerdict(start.ranges, best=f"{start.ranges} ({_score(start)})")
    colors: tuple[Color, ...] = ("bgr", "ycbcr", "ycbcr-video") if settled else ("bgr",)
    others = _present(probe.read(replace(start.ranges, color=each)) for each in colors)
    best = max([start, *others], key=lambda each: each.gain)
    if best.gain > start.gain + CLEAR_GAIN and settled:
        return _weighed(best, [start, *others])
    near = [
        each
        for each in others
        if each.differs(start) and (settled or each.gain > start.gain + _OTHER_COLORS)
    ]
    return _weighed(start, near) if near else PixelVerdict(start.ranges)


def _readings(probe: NetworkProbe, first: Sequence[Ranges]) -> list[Reading]:
    """Return all readings that are possible, with other colors for the best of them."""
    usual: Color = "ycbcr" if probe.colored and probe.channels == 1 else "rgb"
    pairs = list(itertools.product((UNIT, SIGNED, BYTES), repeat=2))
    pairs.append((_CENTERED, _CENTERED))
    spans = [Ranges(input=given, output=taken, color=usual) for given, taken in pairs]
    if probe.channels == 3:
        spans += [replace(IMAGENET, output=each) for each in (UNIT, SIGNED)]
        spans += [replace(IMAGENET, denormalize=True), Ranges(mean=DIV2K_MEAN, denormalize=True)]
    readings = _present(map(probe.read, [*first, *spans]))
    if probe.scale == 1:
        for factor in _ENLARGED:
            residuals: tuple[Literal["none", "add", "subtract"], ...] = ("none", "add", "subtract")
            varied = [
                replace(span, enlarge=factor, residual=residual)
                for span, residual in itertools.product(spans, residuals)
                if (factor, residual) != (1, "none")
                and (residual == "none" or span.input == span.output)
            ]
            readings += _present(map(probe.read, varied))
            done = max((each.gain for each in readings), default=-np.inf)
            if factor == 1 and probe.expected is None and done > CLEAR_GAIN:
                break  # a denoiser
    finalists = sorted(readings, key=lambda each: -each.gain)[:_FINALISTS]
    if not probe.colored:
        return readings
    cubics = (PILLOW, OPENCV) if probe.expected is not None else (PILLOW,)
    for each, other, cubic in itertools.product(finalists, probe.colors, cubics):
        if (other, cubic) != (usual, PILLOW):
            readings += _present([probe.read(replace(each.ranges, color=other, cubic=cubic))])
    return readings


def _present(readings: Iterable[Reading | None]) -> list[Reading]:
    return [each for each in readings if each is not None]


def _proven(probe: NetworkProbe, known: Ranges | None, *, settled: bool) -> PixelVerdict:
    """Return the reading that reproduces the user's result, or the closest one."""
    assert probe.expected is not None
    first = [known] if known else []
    if settled and known is not None:
        first = [
            replace(known, color=color, cubic=cubic)
            for color in (known.color, *probe.colors)
            for cubic in (PILLOW, OPENCV)
        ]
    readings = _present(map(probe.read, first))
    if not any(_difference(probe, each).same for each in readings):
        readings += _readings(probe, [])
    if not readings:
        given, result = probe.expected.given.shape[:2], probe.expected.result.shape[:2]
        return PixelVerdict(
            known or Ranges(),
            restores=False,
            best=f"its scale is {probe.scale}, but {given} became {result}",
        )
    best = max(readings, key=lambda each: each.gain)
    # The plainest of those that are as good.
    best = next(each for each in readings if each.gain > best.gain - MIN_GAIN)
    found = _difference(probe, best)
    text = f"{best.ranges}: {found}"
    if not found.same:
        return PixelVerdict(best.ranges, restores=False, best=text)
    return PixelVerdict(best.ranges, proven=f"the result given is reproduced: {found}", best=text)


def _difference(probe: NetworkProbe, reading: Reading) -> restoration.Difference:
    assert probe.expected is not None
    (task,) = probe._tasks(reading.ranges)
    height, width = (side - task.border for side in reading.picture.shape[2:])
    picture = reading.picture.transpose(0, 2, 3, 1)[:, :height, :width]
    return difference(picture, task.originals[:, :height, :width])


def _ends_in_tanh(probe: NetworkProbe) -> bool:
    """Return whether outputs nearly reach -1 and 1, and never exceed them."""
    (task, *_) = restoration.tasks(probe.channels, probe.scale, probe.size)
    outputs = [probe.run(2 * image[None] - 1) for image in task.given]
    low, high = min(map(np.min, outputs)), max(map(np.max, outputs))
    return bool(-1 <= low < -_TANH_EXTREMES and _TANH_EXTREMES < high <= 1)


def options_text(ranges: Ranges) -> str:
    """Return the options that choose these pixel values."""
    texts = []
    for name, low_high in (("--input-range", ranges.input), ("--output-range", ranges.output)):
        if low_high != UNIT:
            texts.append("{} {:g} {:g}".format(name, *low_high))
    if ranges.mean != (0.0,):
        texts.append("--mean " + " ".join(f"{each:g}" for each in ranges.mean))
    if ranges.std != (1.0,):
        texts.append("--std " + " ".join(f"{each:g}" for each in ranges.std))
    if ranges.denormalize:
        texts.append("--denormalize")
    if ranges.color != "rgb":
        texts.append(f"--color {ranges.color}")
    if ranges.residual != "none":
        texts.append(f"--residual {ranges.residual}")
    if ranges.enlarge > 1:
        texts.append(f"--enlarge {ranges.enlarge}")
    return " ".join(texts) or "--input-range 0 1"
