"""Processors and memory of this machine, within the container's limits, and sizes as text.

Linux reports them in files, which are read below `root` (tests bring their own). Other systems
report less; missing values are estimated low.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/")
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
)
UNKNOWN_MEMORY = 4 << 30
"""Assumed free memory where the system does not report it."""
_STATM = Path("/proc/self/statm")
_UNKNOWN_RESIDENT = 256 << 20
"""Assumed resident memory where the system does not report it: Python with a backend and a network
of a few megabytes."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?B)?|B)?", re.IGNORECASE)
_UNITS = "KMGT"
_LARGEST_SIZE = 1 << 60
_SMALLEST_WITHOUT_UNIT = 1 << 20
# malloc_trim exists in glibc only.
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def cores(root: Path = ROOT) -> int:
    """Return the number of compute threads that this process can run in parallel.

    The minimum of the processors in the affinity mask, their physical cores (two threads of a core
    share its arithmetic units), and the container's CPU quota, but at least 1.
    """
    allowed = _allowed()
    counts = [len(allowed), _physical(allowed, root), _cpu_quota(root)]
    return max(1, min(count for count in counts if count is not None))


def _allowed() -> set[int]:
    """Return the processors in the affinity mask of this process."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical(allowed: set[int], root: Path) -> int | None:
    """Return the number of physical cores of the given processors; None if unknown."""
    found = set()
    for entry in _cpuinfo(root):
        if "core id" in entry and int(entry.get("processor", -1)) in allowed:
            found.add((entry.get("physical id"), entry["core id"]))
    return len(found) or None


def _cpu_quota(root: Path) -> int | None:
    """Return the container's CPU quota in processors, rounded down; None without a quota.

    Rounded up, the last thread would be throttled and the others would wait for it.
    """
    quotas = []
    for folder in _groups(root, ""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for folder in _groups(root, "cpu"):
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():  # "no limit" is -1
            quotas.append(int(quota) / int(period))
    return max(1, int(min(quotas))) if quotas else None


def processor(root: Path = ROOT) -> str:
    """Return the processor's name."""
    for entry in _cpuinfo(root):
        if "model name" in entry:
            return entry["model name"]
    return platform.processor() or platform.machine()


def features(root: Path = ROOT) -> tuple[str, ...]:
    """Return the instruction sets of the processor that speed up networks."""
    for entry in _cpuinfo(root):
        flags = entry.get("flags", entry.get("Features", "")).split()
        return tuple(name for name in _FEATURES if name in flags)
    return ()


def free_memory(root: Path = ROOT) -> int:
    """Return the free memory of the machine or the container, in bytes."""
    limits = [available] if (available := _meminfo(root).get("MemAvailable")) else []
    limits += _group_memory(root)
    if limits:
        return max(0, min(limits))
    try:  # macOS reports the total memory only: assume that half of it is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY


def resident_memory() -> int:
    """Return the resident memory of this process in bytes."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return _UNKNOWN_RESIDENT
    return pages * os.sysconf("SC_PAGE_SIZE")


def trim_heap() -> None:
    """Return freed memory that the allocator still caches to the system.

    After large allocations glibc caches up to half the size of a decoded photo. Other C libraries
    have no such call; those of macOS and Windows return large blocks by themselves.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


def parse_bytes(size: str | int) -> int:
    """Return a size in bytes.

    Args:
        size: Bytes, or text like "512MiB", "2G" (both powers of 1024) or "1.5GB" (powers of 1000).
            Text without a unit means bytes, at least a mebibyte: "2" is meant for "2GiB".

    Raises:
        InvalidInputError: `size` is not a size, or too small.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or isinstance(size, bool):
        raise InvalidInputError(
            f"{size!r} is not a memory size; write bytes, or a number with K, M, G or T "
            '(powers of 1024; also KiB, MiB, ...) or KB, MB, GB, TB (powers of 1000): "2GiB"'
        )
    number, unit, ending = match.groups()
    base = 1000 if ending and len(ending) == 1 else 1024
    factor = base ** (1 + _UNITS.index(unit.upper())) if unit else 1
    value = int(min(float(number) * factor, _LARGEST_SIZE))
    if value < 1:
        raise InvalidInputError(f"a memory size must be at least 1 byte, found {size!r}")
    if isinstance(size, str) and size.strip() == number and value < _SMALLEST_WITHOUT_UNIT:
        raise InvalidInputError(f'{size!r} is {value} bytes of memory; did you mean "{number}GiB"?')
    return value


def format_bytes(size: int) -> str:
    """Return a size for people, which `parse_bytes` reads back: "1.2 GiB"."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _group_memory(root: Path) -> Iterator[int]:
    """Yield the free memory of each enclosing control group, counting its file cache as free."""
    for folder in _groups(root, ""):
        limit, used = _text(folder / "memory.max"), _text(folder / "memory.current")
        if limit.isdigit() and used.isdigit():
            cache = _stat(folder, "inactive_file", "active_file")
            yield int(limit) - int(used) + cache
    for folder in _groups(root, "memory"):
        limit = _text(folder / "memory.limit_in_bytes")
        used = _text(folder / "memory.usage_in_bytes")
        # "No limit" is a number near 2**63.
        if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:
            cache = _stat(folder, "total_inactive_file", "total_active_file")
            yield int(limit) - int(used) + cache


def _stat(folder: Path, *names: str) -> int:
    """Return the sum of some entries of a control group's `memory.stat`."""
    entries = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return sum(int(entry[1]) for entry in entries if len(entry) == 2 and entry[0] in names)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control group of this process and all enclosing ones, each of which can set limits.

    Args:
        root: Root of the file system.
        controller: "" for cgroup version 2, else the name of a version 1 controller.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        for mount in {controller, controllers} if controller else ("", "unified"):
            top = root / "sys/fs/cgroup" / mount
            # Inside a container the path may be the host's; then only the top folder exists.
            inner = top / path.lstrip("/")
            yield from (
                folder
                for folder in (inner, *inner.parents)
                if folder.is_relative_to(top) and folder.is_dir()
            )


def _cpuinfo(root: Path) -> Iterator[dict[str, str]]:
    """Yield the entries of each processor in /proc/cpuinfo."""
    for block in _text(root / "proc/cpuinfo").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        if entry := {key.strip(): value.strip() for key, _, value in pairs}:
            yield entry


def _meminfo(root: Path) -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    entries = (line.split() for line in _text(root / "proc/meminfo").splitlines())
    return {entry[0].rstrip(":"): int(entry[1]) << 10 for entry in entries if len(entry) == 3}


def _text(path: Path) -> str:
    """Return the text of a system file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
