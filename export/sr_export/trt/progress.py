"""How far TensorRT is, where it tells: since 10, through its progress monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def attach(trt: Any, config: Any, report: Callable[[str], None]) -> Any:
    """Have TensorRT report while it builds; does nothing where it cannot.

    Args:
        trt: The module; of any version, so that a type checker cannot know it.
        config: The builder's configuration.
        report: Called with the phase and how much of it is done.

    Returns:
        What must be kept until the plan is built.
    """
    base = getattr(trt, "IProgressMonitor", None)
    if base is None:
        return None
    phases = Phases(report)
    methods = {name: _method(getattr(phases, name)) for name in _METHODS}
    monitor = type("Monitor", (base,), methods)()
    config.progress_monitor = monitor
    return monitor


_METHODS = ("phase_start", "step_complete", "phase_finish")


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is called with the instance first, which it leaves out."""
    return lambda _, *arguments: function(*arguments)


class Phases:
    """The phases that TensorRT is in, which lie in one another; it calls from several threads."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._open: dict[str, tuple[str | None, int, int]] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Note that a phase begins."""
        self._open[phase_name] = (parent_phase, num_steps, 0)
        self._tell()

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Note that a step is done; go on."""
        parent, steps, _ = self._open.get(phase_name, (None, 1, 0))
        self._open[phase_name] = (parent, steps, step + 1)
        self._tell()
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Note that a phase ends."""
        self._open.pop(phase_name, None)

    def _tell(self) -> None:
        phases = dict(self._open)
        outermost = [name for name, (parent, _, _) in phases.items() if parent not in phases]
        if outermost:
            name = outermost[0]
            self._report(f"{name}, {_done(name, phases):.0%}")


def _done(name: str, phases: dict[str, tuple[str | None, int, int]]) -> float:
    """Return which share of a phase is done, counting in what is inside its running step."""
    _, steps, done = phases[name]
    inner = [_done(each, phases) for each, (parent, _, _) in phases.items() if parent == name]
    return min(1.0, (done + max(inner, default=0.0)) / max(1, steps))
