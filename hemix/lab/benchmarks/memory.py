"""Memory of a process under load: its peak, and whether it grows.

Memory varies with the work in progress. So a line is fitted to the mean of every minute, and one to
its minimum, which is the memory without work in progress. A leak raises both.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.measure import anonymous_bytes

__all__ = ["MemorySampler", "memory_trend"]

Floats = npt.NDArray[np.float64]

_SAMPLE_SECONDS = 0.1
_MINUTES_MIN = 5
_WARM_UP_FRACTION = 0.2
_MIB = 2**20


class MemorySampler:
    """Samples the anonymous memory of a process while its block runs."""

    def __init__(self, pid: int) -> None:
        self._pid, self._samples = pid, [(0.0, anonymous_bytes(pid))]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._start = time.perf_counter()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._samples.append((time.perf_counter() - self._start, anonymous_bytes(self._pid)))

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def figures(self) -> dict[str, Any]:
        """Return the peak and the trend."""
        seconds, memory = np.array(self._samples, dtype=np.float64).T
        return {"server_peak_bytes": int(memory.max()), **memory_trend(seconds, memory)}


def memory_trend(seconds: Floats, memory: Floats) -> dict[str, float]:
    """Fit lines to the mean and the minimum of every minute after the first fifth.

    Args:
        seconds: float64 [n], since the start.
        memory: float64 [n], bytes.

    Returns:
        ``slope_mib_per_minute`` of the means, ``least_slope_mib_per_minute`` of the minima, each
        with twice its standard error, and ``least_mib``, the last minimum. Empty with fewer than
        five whole minutes.
    """
    starts = np.arange(seconds[-1] * _WARM_UP_FRACTION, seconds[-1] - 59.9, 60)
    minutes = [memory[(seconds >= start) & (seconds < start + 60)] / _MIB for start in starts]
    if len(minutes) < _MINUTES_MIN:
        return {}
    means = np.array([minute.mean() for minute in minutes])
    minima = np.array([minute.min() for minute in minutes])
    slope, slope_error = _fit_line(means)
    least_slope, least_slope_error = _fit_line(minima)
    return {
        "least_mib": round(float(minima[-1]), 1),
        "slope_mib_per_minute": slope,
        "slope_error": slope_error,
        "least_slope_mib_per_minute": least_slope,
        "least_slope_error": least_slope_error,
    }


def _fit_line(y: Floats) -> tuple[float, float]:
    """Return the slope of values at x = 0, 1, ..., and twice its standard error."""
    x = np.arange(len(y))
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - slope * x - intercept
    error = np.sqrt((residuals**2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    return round(float(slope), 4), round(2 * float(error), 4)
