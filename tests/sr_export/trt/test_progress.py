from __future__ import annotations

import types

from sr_export.trt import progress


class _Base:
    pass


def test_nothing_is_attached_where_there_is_no_monitor() -> None:
    config = types.SimpleNamespace()
    assert progress.attach(types.SimpleNamespace(), config, print) is None
    assert vars(config) == {}


def test_the_outermost_phase_is_told_with_what_is_inside_counted() -> None:
    told: list[str] = []
    config = types.SimpleNamespace()
    monitor = progress.attach(types.SimpleNamespace(IProgressMonitor=_Base), config, told.append)

    assert config.progress_monitor is monitor
    assert isinstance(monitor, _Base)
    config.progress_monitor.phase_start("Building", None, 4)
    assert config.progress_monitor.step_complete("Building", 0) is True
    config.progress_monitor.phase_start("Tactics", "Building", 2)
    config.progress_monitor.step_complete("Tactics", 0)
    config.progress_monitor.phase_finish("Tactics")
    config.progress_monitor.step_complete("Building", 1)
    config.progress_monitor.phase_finish("Building")

    assert told == [
        "Building, 0%",
        "Building, 25%",
        "Building, 25%",
        "Building, 38%",
        "Building, 50%",
    ]


def test_phases_that_were_never_started_do_no_harm() -> None:
    told: list[str] = []
    phases = progress.Phases(told.append)
    phases.phase_finish("unknown")
    assert phases.step_complete("unknown", 0) is True
    assert told == ["unknown, 100%"]
