"""Measure the memory of a process, and describe the machine for reports."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = [
    "PeakMemory",
    "anonymous_bytes",
    "give_freed_memory_back",
    "keep_freed_memory",
    "machine",
    "processors",
    "stolen_seconds",
]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 2**30
_STEAL_COLUMN = 8


def anonymous_bytes(pid: int | str = "self") -> int:
    """Return the anonymous memory of a process in bytes; 0 if the process has ended.

    This is RssAnon: heap and stacks, without memory-mapped files.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(
        (
            int(line.split()[1]) * 1024
            for line in status.splitlines()
            if line.startswith("RssAnon:")
        ),
        0,
    )


def _largest_bytes(pid: int | str) -> int:
    """Anonymous memory of the larger of a process and its children."""
    children = [pid for path in Path(f"/proc/{pid}/task").glob("*/children") for pid in _pids(path)]
    return max(anonymous_bytes(process) for process in (pid, *children))


def _pids(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the thread has ended
        return []


class PeakMemory:
    """Samples the anonymous memory of a process inside a ``with`` block; ``bytes`` is the peak."""

    def __init__(
        self, pid: int | str = "self", every_seconds: float = 0.05, *, children: bool = False
    ) -> None:
        """Describe what to sample.

        Args:
            pid: The process.
            every_seconds: Seconds between samples.
            children: Whether ``bytes`` is the peak of any one of the process and its children, not
                of the process alone.
        """
        self.bytes = 0
        self._pid = pid
        self._measure = _largest_bytes if children else anonymous_bytes
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hemix-memory", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.bytes = max(self.bytes, self._measure(self._pid))

    def __enter__(self) -> PeakMemory:
        self.bytes = self._measure(self._pid)
        self._thread.start()
        return self

    def so_far(self) -> int:
        """Take another sample and return the peak in bytes."""
        self.bytes = max(self.bytes, self._measure(self._pid))
        return self.bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.so_far()


def machine() -> dict[str, Any]:
    """Return processor, cores, memory and load for the key ``machine`` of a report."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    memory = next(
        (
            int(line.split()[1]) * 1024
            for line in _lines("/proc/meminfo")
            if line.startswith("MemTotal")
        ),
        0,
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.system(),
    }


def processors(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the number of processors that this process may use.

    It is limited by the CPU affinity and by the container's quota, rounded up.
    """
    cores = len(os.sched_getaffinity(0))
    quota, _, period = next(iter(_lines(str(limit))), "max 100000").partition(" ")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return cores
    return max(min(cores, -(-int(quota) // int(period))), 1)


def stolen_seconds() -> float:
    """Return the stolen processor seconds of all cores since boot; 0 if the system has no count.

    Stolen time is time in which a task was ready but the host ran another virtual machine.
    """
    total = next((line.split() for line in _lines("/proc/stat") if line.startswith("cpu ")), [])
    return (
        int(total[_STEAL_COLUMN]) / os.sysconf("SC_CLK_TCK") if len(total) > _STEAL_COLUMN else 0.0
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def keep_freed_memory(arenas: int | None = None) -> bool:
    """Ask glibc to reuse freed memory instead of returning it to the system.

    By default each allocation of a large tensor is a mapping of its own, and the system zeroes its
    pages every time.

    Args:
        arenas: Number of heaps that all threads share. By default each thread has its own heap and
            cannot use memory that another thread has freed.

    Returns:
        False without glibc.
    """
    mallopt = _libc("mallopt")
    if mallopt is None:
        return False
    if arenas is not None:
        mallopt(_M_ARENA_MAX, arenas)
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))


def give_freed_memory_back() -> bool:
    """Ask glibc to return freed memory to the system now, which takes milliseconds.

    Returns:
        False without glibc.
    """
    trim = _libc("malloc_trim")
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


def _libc(name: str) -> Any:
    """A function of the C library; None if it does not exist."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
