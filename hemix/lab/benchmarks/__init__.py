"""Benchmarks: ``hemix bench NAME`` calls ``run(scale=...)`` of the module NAME.

docs/project/performance.md describes the figures.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from hemix.errors import UsageError
from hemix.lab.benchmarks.options import BenchOptions
from hemix.validation import unknown_name

__all__ = ["BENCHMARKS", "BenchOptions", "Benchmark", "run_benchmark"]

Benchmark = Literal[
    "costs", "growth", "loader", "mfu", "prepare", "score", "serve", "tables", "train"
]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)


def run_benchmark(
    name: Benchmark, *, scale: float = 1.0, options: BenchOptions | None = None
) -> dict[str, Any]:
    """Run one benchmark.

    Args:
        name: One of :data:`BENCHMARKS`.
        scale: Fraction of the full size.
        options: Options of this benchmark; None: the defaults.

    Returns:
        The figures, as written by ``--json``.

    Raises:
        UsageError: The name is unknown, or the benchmark lacks an option.
    """
    if name not in BENCHMARKS:
        raise unknown_name(f"unknown benchmark {name!r}", BENCHMARKS)
    measure = import_module(f"hemix.lab.benchmarks.{name}").run
    every = vars(options or BenchOptions()).items()
    given = {key: value for key, value in every if value is not None and value is not False}
    for option in given:
        if option not in signature(measure).parameters:
            raise UsageError(
                f"--{option}: hemix bench {name} has no such option", field=f"--{option}"
            )
    if "run" in given:
        given["run"] = Path(given["run"])
    figures: dict[str, Any] = measure(scale=scale, **given)
    return figures
