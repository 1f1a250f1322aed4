"""A process's memory while it is under load: its peak, and whether it grows.

What is held swings with what happens to be in work, so two things are fitted over whole minutes:
the mean, and the least, which is what stays when nothing is in work. A leak lifts both.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.measure import anonymous_bytes

__all__ = ["Memory", "trend"]

_EVERY_SECONDS = 0.1
_MINUTES_MIN = 5
"""Fewer fit any line"""


class Memory:
    """Samples a process's anonymous memory while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid, self._samples = pid, [(0.0, anonymous_bytes(pid))]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.perf_counter()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY_SECONDS):
            self._samples.append((time.perf_counter() - self._began, anonymous_bytes(self._pid)))

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def figures(self) -> dict[str, Any]:
        """Peak, and the trend after the first fifth."""
        seconds, held = np.array(self._samples, dtype=np.float64).T
        return {"server_peak_bytes": int(held.max()), **trend(seconds, held)}


def trend(seconds: npt.NDArray[np.float64], held: npt.NDArray[np.float64]) -> dict[str, float]:
    """Slopes after the first fifth, each with twice its standard error, in MiB a minute:
    ``slope_mib_per_minute`` of the minutes' means, ``least_slope_mib_per_minute`` of the least that
    was held in each; and ``least_mib``, the last minute's. ``seconds`` [n] from the beginning,
    ``held`` bytes [n]. Empty where fewer than five whole minutes follow the first fifth.
    """
    begins = np.arange(seconds[-1] / 5, seconds[-1] - 59.9, 60)
    minutes = [held[(seconds >= begin) & (seconds < begin + 60)] / 2**20 for begin in begins]
    if len(minutes) < _MINUTES_MIN:
        return {}
    least = np.array([minute.min() for minute in minutes])
    found = {"least_mib": round(float(least[-1]), 1)}
    for name, values in (
        ("slope", np.array([minute.mean() for minute in minutes])),
        ("least_slope", least),
    ):
        found[f"{name}_mib_per_minute"], found[f"{name}_error"] = _line(values)
    return found


def _line(y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(slope of values at equal steps, twice its standard error)"""
    x = np.arange(len(y))
    slope, base = np.polyfit(x, y, 1)
    error = np.sqrt(
        ((y - slope * x - base) ** 2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum()
    )
    return round(float(slope), 4), round(2 * float(error), 4)
