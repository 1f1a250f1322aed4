"""Benchmarks: each a file with ``run(scale=...) -> figures`` in the shape that docs/performance.md
explains.

Some take ``sweep``, ``size``, ``run``, ``seconds`` or ``device`` as well, by the names of the
command's flags.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from hemix.errors import UsageError

__all__ = ["BENCHMARKS", "run_benchmark"]

BENCHMARKS = ("costs", "growth", "loader", "mfu", "prepare", "score", "serve", "tables", "train")


def run_benchmark(
    name: str,
    *,
    scale: float = 1.0,
    sweep: bool = False,
    size: str | None = None,
    run: Path | None = None,
    seconds: float | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Run one benchmark at ``scale`` of its full size.

    Raises UsageError for an unknown name, or an option it does not have.
    """
    if name not in BENCHMARKS:
        raise UsageError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    measure = import_module(f"hemix.lab.benchmarks.{name}").run
    asked = {"sweep": sweep or None, "size": size, "run": run, "seconds": seconds, "device": device}
    options = {key: value for key, value in asked.items() if value is not None}
    for option in options:
        if option not in signature(measure).parameters:
            raise UsageError(f"--{option}: hemix bench {name} has no such option")
    figures: dict[str, Any] = measure(scale=scale, **options)
    return figures
