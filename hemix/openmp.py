"""Choose how idle OpenMP threads wait, before PyTorch loads its OpenMP runtime.

Between two parallel regions the threads of PyTorch spin for milliseconds. On idle cores that is
best: to wake a sleeping thread costs more than most regions take. Next to another busy process it
is the worst choice: threads that spin take the time that the others need. No fixed length of
spinning is good at both (docs/project/performance.md), so the processors are looked at when a
command begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, MutableMapping
from pathlib import Path

__all__ = ["busy_processors", "choose_wait_policy", "idle_ticks"]

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
_SAMPLE_SECONDS = 0.1
_BUSY_PROCESSORS = 0.4
"""Threads sleep where other processes use at least so many of this process's processors"""
_IDLE_COLUMNS = (3, 4)
"""Columns ``idle`` and ``iowait`` of a processor in /proc/stat"""


def choose_wait_policy(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP threads sleep where other processes are busy; leave what the user has set.

    It has an effect only before torch is imported. Child processes inherit the choice.

    Args:
        environment: Receives ``OMP_WAIT_POLICY=PASSIVE`` if others are busy.
    """
    if any(name in environment for name in _SETTINGS) or environment.get("OMP_NUM_THREADS") == "1":
        return
    if busy_processors(_SAMPLE_SECONDS) >= _BUSY_PROCESSORS:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def busy_processors(seconds: float) -> float:
    """Measure how many of this process's processors are busy for others; takes ``seconds``.

    Returns:
        Processors, such as 0.97 next to one busy loop; 0 where the system does not tell.
    """
    own = os.sched_getaffinity(0)
    try:
        began, used, idle = time.monotonic(), time.process_time(), _idle_seconds(own)
        time.sleep(seconds)
        elapsed, idle = time.monotonic() - began, _idle_seconds(own) - idle
    except OSError:
        return 0.0
    return max(len(own) - (idle + time.process_time() - used) / elapsed, 0.0)


def _idle_seconds(processors: Collection[int]) -> float:
    stat = Path("/proc/stat").read_text()
    return idle_ticks(stat, processors) / os.sysconf("SC_CLK_TCK")


def idle_ticks(stat: str, processors: Collection[int]) -> int:
    """Add up the idle time of some processors.

    Args:
        stat: Content of /proc/stat.
        processors: Their numbers.

    Returns:
        Clock ticks since the machine began.
    """
    names = {f"cpu{number}" for number in processors}
    ticks = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        if name in names:
            ticks += sum(int(columns[i]) for i in _IDLE_COLUMNS)
    return ticks
