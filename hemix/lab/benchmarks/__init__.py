"""Benchmarks: ``hemix bench NAME`` calls ``run(scale=...)`` of the module NAME.

docs/project/performance.md describes the figures.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from hemix.errors import UsageError

__all__ = ["BENCHMARKS", "Benchmark", "run_benchmark"]

Benchmark = Literal[
    "costs", "growth", "loader", "mfu", "prepare", "score", "serve", "tables", "train"
]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)


def run_benchmark(
    name: Benchmark,
    *,
    scale: float = 1.0,
    sweep: bool = False,
    size: str | None = None,
    run: Path | None = None,
    seconds: float | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Run one benchmark.

    Args:
        name: One of :data:`BENCHMARKS`.
        scale: Fraction of the full size.
        sweep: score, train: measure several lengths and counts too.
        size: mfu: the model's size.
        run: serve: the run to serve.
        seconds: serve: run only the mixed load, for so many seconds.
        device: serve: the device that scores.

    Returns:
        The figures, as written by ``--json``.

    Raises:
        UsageError: The name is unknown, or the benchmark lacks an option.
    """
    if name not in BENCHMARKS:
        raise UsageError(
            f"unknown benchmark {name!r}",
            code="unknown_name",
            field="name",
            hint=f"known: {', '.join(BENCHMARKS)}",
        )
    measure = import_module(f"hemix.lab.benchmarks.{name}").run
    optional = {
        "sweep": sweep or None,
        "size": size,
        "run": run,
        "seconds": seconds,
        "device": device,
    }
    options = {key: value for key, value in optional.items() if value is not None}
    for option in options:
        if option not in signature(measure).parameters:
            raise UsageError(
                f"--{option}: hemix bench {name} has no such option", field=f"--{option}"
            )
    figures: dict[str, Any] = measure(scale=scale, **options)
    return figures
