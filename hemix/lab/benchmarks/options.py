"""Options of benchmarks, each of one or two of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["BenchOptions"]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of benchmarks; a benchmark refuses those that it does not have."""

    sweep: bool = False
    """score, train: measure several lengths and counts too"""
    size: str | None = None
    """mfu: size of the model"""
    run: str | Path | None = None
    """serve: run folder to serve; None: a new run"""
    seconds: float | None = None
    """serve: run only the mixed load, for so many seconds"""
    device: str | None = None
    """serve: device that scores"""
    processes: int | None = None
    """prepare: processes of this machine; None: one"""
    partitions: int | None = None
    """prepare: partitions of the users; None: by the number of rows, 8 to 64"""
