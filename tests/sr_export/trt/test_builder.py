from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from sr_export.trt import builder
from tests.sr_export.trt.conftest import Workshop

Open = Callable[[str], Workshop]


def monitored(workshop: Open, version: str) -> tuple[Any, list[str]]:
    """Return what a version's builder attaches to its configuration, and its reports."""
    trt = workshop(version).tensorrt
    reports: list[str] = []
    config = types.SimpleNamespace()
    assert builder.monitor_progress(trt, config, reports.append) is vars(config).get(
        "progress_monitor"
    )
    return config, reports


def test_a_version_without_a_monitor_gets_none(workshop: Open) -> None:
    config, _ = monitored(workshop, "8.6.0")
    assert vars(config) == {}


def test_progress_is_that_of_the_outermost_phase(workshop: Open) -> None:
    config, reports = monitored(workshop, "10.3.0")

    config.progress_monitor.phase_start("Building", None, 4)
    assert config.progress_monitor.step_complete("Building", 0) is True
    config.progress_monitor.phase_start("Tactics", "Building", 2)
    config.progress_monitor.step_complete("Tactics", 0)
    config.progress_monitor.phase_finish("Tactics")
    config.progress_monitor.step_complete("Building", 1)
    config.progress_monitor.phase_finish("Building")

    assert reports == [
        "Building, 0%",
        "Building, 25%",
        "Building, 25%",
        "Building, 38%",
        "Building, 50%",
    ]


def test_phases_that_never_started_are_ignored(workshop: Open) -> None:
    config, reports = monitored(workshop, "10.3.0")
    config.progress_monitor.phase_finish("unknown")
    assert config.progress_monitor.step_complete("unknown", 0) is True
    assert reports == ["unknown, 100%"]
