"""Benchmarks: each a file with ``run(scale) -> figures`` in the shape that docs/performance.md explains."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hemix.errors import UsageError

__all__ = ["BENCHMARKS", "run_benchmark"]

BENCHMARKS = ("loader", "prepare", "tables")


def run_benchmark(name: str, *, scale: float = 1.0) -> dict[str, Any]:
    """Run one benchmark at ``scale`` of its full size. Raises UsageError for an unknown name."""
    if name not in BENCHMARKS:
        raise UsageError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    figures: dict[str, Any] = import_module(f"hemix.bench.{name}").run(scale=scale)
    return figures
