from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import machine
from sr_deploy.errors import InvalidInputError

MIB, GIB = 1 << 20, 1 << 30
CPU = """processor\t: {0}
model name\t: Some Processor
physical id\t: 0
core id\t\t: {1}
flags\t\t: fpu sse avx2 avx512f avx512_vnni amx_int8
"""


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process use eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
def test_without_any_limit_all_processors_count(tmp_path: Path) -> None:
    assert machine.cores(tmp_path) == 8


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1)],
)
def test_the_quota_of_version_2_limits_the_cores(tmp_path: Path, quota: Any, cores: int) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": quota})
    assert machine.cores(tmp_path) == cores


@pytest.mark.usefixtures("eight")
def test_an_outer_group_may_be_the_tighter(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "0::/a/b",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "sys/fs/cgroup/a/cpu.max": "400000 100000",
    }
    assert machine.cores(write(tmp_path, groups)) == 4


@pytest.mark.usefixtures("eight")
def test_a_container_that_does_not_see_its_own_path_reads_the_top(tmp_path: Path) -> None:
    groups = {"proc/self/cgroup": "0::/docker/4711", "sys/fs/cgroup/cpu.max": "300000 100000"}
    assert machine.cores(write(tmp_path, groups)) == 3


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (250000, 2)])
def test_the_quota_of_version_1_limits_the_cores(
    tmp_path: Path, mount: str, quota: Any, cores: int
) -> None:
    groups = {
        "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x",
        f"sys/fs/cgroup/{mount}/x/cpu.cfs_quota_us": quota,
        f"sys/fs/cgroup/{mount}/x/cpu.cfs_period_us": 100000,
    }
    assert machine.cores(write(tmp_path, groups)) == cores


@pytest.mark.usefixtures("eight")
def test_two_threads_of_one_core_count_once(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "\n".join(CPU.format(i, i // 2) for i in range(8))})
    assert machine.cores(tmp_path) == 4


def test_affinity_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    write(tmp_path, {"proc/cpuinfo": "\n".join(CPU.format(i, i) for i in range(8))})
    assert machine.cores(tmp_path) == 2


def test_systems_without_affinity_count_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores(tmp_path) == 1


def test_the_processor_is_described(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": CPU.format(0, 0)})
    assert machine.processor(tmp_path) == "Some Processor"
    assert machine.features(tmp_path) == ("avx2", "avx512f", "avx512_vnni", "amx_int8")


def test_an_arm_processor_is_described(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp bf16"})
    assert machine.features(tmp_path) == ("asimd", "asimddp", "bf16")


def test_other_systems_name_no_features(tmp_path: Path) -> None:
    assert machine.features(tmp_path) == ()
    assert isinstance(machine.processor(tmp_path), str)


MEMINFO = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nHugePages_Total: 0"


def test_free_memory_is_the_systems_available_memory(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": MEMINFO})
    assert machine.free_memory(tmp_path) == 8 * GIB


def test_a_containers_limit_of_version_2_counts_without_the_file_cache(tmp_path: Path) -> None:
    groups = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/a",
        "sys/fs/cgroup/a/memory.max": 4 * GIB,
        "sys/fs/cgroup/a/memory.current": 3 * GIB,
        "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file {GIB}",
    }
    assert machine.free_memory(write(tmp_path, groups)) == 3 * GIB


def test_a_containers_limit_of_version_1_counts_without_the_file_cache(tmp_path: Path) -> None:
    groups = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/a",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 9 * GIB,
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": 2 * GIB,
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": 2 * GIB,
        "sys/fs/cgroup/memory/a/memory.stat": f"total_inactive_file {GIB}\ninactive_file 7",
    }
    assert machine.free_memory(write(tmp_path, groups)) == GIB


def test_a_container_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/memory.max": GIB,
        "sys/fs/cgroup/memory.current": 2 * GIB,
    }
    assert machine.free_memory(write(tmp_path, groups)) == 0


def test_where_only_the_size_is_known_half_of_it_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert machine.free_memory(tmp_path) == 2_048_000


def test_where_nothing_is_known_a_small_machine_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert machine.free_memory(tmp_path) == machine.UNKNOWN_MEMORY


def test_this_machine_answers() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert machine.free_memory() > 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("2gib", 2 << 30),
        ("1.5GB", 1_500_000_000),
        ("10 kB", 10_000),
        (" 3K ", 3072),
        ("1T", 1 << 40),
        ("4096B", 4096),
        ("4194304", 4194304),
        (4096, 4096),
        ("9" * 5000, 1 << 60),
    ],
)
def test_sizes_are_parsed_in_common_notations(text: Any, size: int) -> None:
    assert machine.parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "much", "2X", "-1G", "1,5G", "G", "2GG", "1e9", True, 1.5e300]
)
def test_invalid_sizes_are_rejected_with_an_example(text: Any) -> None:
    with pytest.raises(InvalidInputError, match="2GiB"):
        machine.parse_bytes(text)


@pytest.mark.parametrize("text", ["2", "1.5", "1048575"])
def test_a_small_text_without_a_unit_is_rejected_with_a_guess(text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{text}GiB"):
        machine.parse_bytes(text)
    assert machine.parse_bytes(f"{text} B") == int(float(text))


@pytest.mark.parametrize("text", ["0", 0, "0.1"])
def test_a_size_below_one_byte_is_rejected(text: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\b1 byte"):
        machine.parse_bytes(text)


@pytest.mark.parametrize("size", [1, 1023, 1024, 5 << 20, 3 << 30, 1 << 42])
def test_formatted_sizes_can_be_parsed(size: int) -> None:
    assert machine.parse_bytes(machine.format_bytes(size)) == pytest.approx(size, rel=0.05)


def test_resident_memory_grows_with_allocations() -> None:
    before = machine.resident_memory()
    taken = np.ones(64 * MIB, np.uint8)
    # The allocator may return pages meanwhile, hence the tolerance of a quarter.
    assert machine.resident_memory() - before > 0.75 * taken.nbytes


def test_resident_memory_has_a_default_if_the_system_does_not_report_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_STATM", tmp_path / "statm")
    assert machine.resident_memory() == 256 * MIB
    (tmp_path / "statm").write_text("odd")
    assert machine.resident_memory() == 256 * MIB


def test_trimming_the_heap_keeps_memory_in_use() -> None:
    kept = [np.full(1000 + each, each % 256, np.uint8) for each in range(1000)]
    machine.trim_heap()
    assert all((each == number % 256).all() for number, each in enumerate(kept))
