"""What a process costs and what it runs on: anonymous memory, and the machine's facts for a
report.
"""

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
    """Anonymous memory of a process (RssAnon: heap and stacks; memory-mapped files do not count),
    in bytes; 0 if it is gone.
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


class PeakMemory:
    """Samples the anonymous memory of a process while the block runs; ``bytes`` is the highest
    seen.
    """

    def __init__(self, pid: int | str = "self", every_seconds: float = 0.05) -> None:
        self.bytes = 0
        self._pid = pid
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hemix-memory", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.bytes = max(self.bytes, anonymous_bytes(self._pid))

    def __enter__(self) -> PeakMemory:
        self.bytes = anonymous_bytes(self._pid)
        self._thread.start()
        return self

    def so_far(self) -> int:
        """The highest seen, this moment included."""
        self.bytes = max(self.bytes, anonymous_bytes(self._pid))
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
    """Processor, cores, memory and load, for the `machine` key of a benchmark or a report."""
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
    """Processors that this process may use: those it is bound to, and no more than its container's
    share, rounded up.
    """
    cores = len(os.sched_getaffinity(0))
    quota, _, period = next(iter(_lines(str(limit))), "max 100000").partition(" ")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return cores
    return max(min(cores, -(-int(quota) // int(period))), 1)


def stolen_seconds() -> float:
    """Processor seconds of all cores, since the machine began, in which something was ready to run
    here and the virtual machine's host ran others; 0 where nobody tells.
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
    """Ask glibc to reuse freed memory instead of returning it to the system after every large
    tensor; False elsewhere.

    By default an allocation over 128 KiB to 32 MiB is a mapping of its own, whose pages are zeroed
    afresh each time. ``arenas``: how many heaps the threads of the process share (by default each
    has one of its own, and none can use what another has freed).
    """
    mallopt = _libc("mallopt")
    if mallopt is None:
        return False
    if arenas is not None:
        mallopt(_M_ARENA_MAX, arenas)
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))


def give_freed_memory_back() -> bool:
    """Ask glibc to return to the system now what :func:`keep_freed_memory` has kept; False
    elsewhere. Milliseconds, and the next that needs the memory has its pages zeroed anew.
    """
    trim = _libc("malloc_trim")
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


def _libc(name: str) -> Any:
    """A function of the C library; None where it has no such."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
