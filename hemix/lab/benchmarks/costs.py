"""``hemix bench costs``: the cost of a training step, as laws fitted to measured points.

A point is a shape of batch, table, model and processes. Held-out points check the laws. A law is a
sum of counts per process with coefficients >= 0; docs/project/scale.md shows what follows from it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.optimize import nnls

from hemix.errors import HemixError
from hemix.lab.benchmarks.common import benchmark_json, last_line
from hemix.lab.benchmarks.cost_point import Point
from hemix.lab.benchmarks.workload import Workload
from hemix.training.launch import free_port

__all__ = ["LAWS", "POINTS", "fit_nonnegative", "run"]

LAWS: dict[str, tuple[str, ...]] = {
    "seconds": ("fixed", "flops", "vectors", "impressions", "moved_bytes", "others"),
    "peak_bytes": (
        "fixed",
        "table_rows",
        "dense_parameters",
        "event_vectors",
        "impressions",
        "moved_bytes",
        "others",
    ),
}
"""Predicted figure -> the counts of which it is a weighted sum; ``fixed`` is 1"""

_POLL_SECONDS = 0.02

_BASE = Workload(users=64, impressions_per_user=4, history_length=500)

POINTS = (
    Point(name="base", load=_BASE),
    Point(name="impressions x 1/4", load=dataclasses.replace(_BASE, impressions_per_user=1)),
    Point(name="impressions x 4", load=dataclasses.replace(_BASE, impressions_per_user=16)),
    Point(name="users x 1/4", load=dataclasses.replace(_BASE, users=16)),
    Point(name="users x 4", load=dataclasses.replace(_BASE, users=256)),
    Point(name="history 100", load=dataclasses.replace(_BASE, history_length=100)),
    Point(name="history 4,000", load=dataclasses.replace(_BASE, history_length=4_000)),
    Point(name="1 M rows", load=_BASE, item_rows=1_000_000),
    Point(name="4 M rows", load=_BASE, item_rows=4_000_000),
    Point(name="size base", load=_BASE, size="base"),
    Point(
        name="size base, long",
        load=dataclasses.replace(_BASE, users=32, history_length=2_000),
        size="base",
    ),
    Point(name="2 processes", load=_BASE, processes=2),
    Point(name="2 processes, users x 4", load=dataclasses.replace(_BASE, users=256), processes=2),
    Point(name="2 processes, 4 M rows", load=_BASE, item_rows=4_000_000, processes=2),
    Point(name="2 processes, size base", load=_BASE, size="base", processes=2),
    Point(
        name="left out: twice of each",
        load=Workload(users=128, impressions_per_user=8, history_length=1_000),
        item_rows=2_000_000,
        held_out=True,
    ),
    Point(
        name="left out: size base",
        load=Workload(users=128, impressions_per_user=4, history_length=1_000),
        size="base",
        held_out=True,
    ),
    Point(
        name="left out: 2 processes",
        load=Workload(users=128, impressions_per_user=8, history_length=1_000),
        item_rows=2_000_000,
        processes=2,
        held_out=True,
    ),
)


def run(*, scale: float = 1.0) -> dict[str, Any]:
    """Measure all points and fit the laws.

    Args:
        scale: Factor of the points' users.

    Returns:
        The figures: every point with its counts, costs and predicted costs, and the laws'
        coefficients.

    Raises:
        HemixError: A process failed.
    """
    cases = [_measure_in_processes(_scaled(point, scale)) for point in POINTS]
    laws = {figure: _fit_law(cases, figure, names) for figure, names in LAWS.items()}
    return benchmark_json(cases, laws=laws)


def _scaled(point: Point, scale: float) -> Point:
    users = max(1, int(point.load.users * scale))
    return dataclasses.replace(point, load=dataclasses.replace(point.load, users=users))


def _fit_law(
    cases: Sequence[dict[str, Any]], figure: str, names: Sequence[str]
) -> dict[str, float]:
    """Fit one law; adds its predictions and relative errors to the cases."""
    fitted = [case for case in cases if not case["held_out"]]
    coefficients = fit_nonnegative(
        [_counts(case, names) for case in fitted], [case[figure] for case in fitted]
    )
    for case in cases:
        predicted = float(np.dot(_counts(case, names), coefficients))
        case[f"{figure}_predicted"] = predicted
        case[f"{figure}_error"] = predicted / case[figure] - 1
    return dict(zip(names, coefficients, strict=True))


def fit_nonnegative(counts: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Fit counts @ coefficients to the measured values, by least squares of relative errors.

    Args:
        counts: [K points, M counts].
        measured: [K], above 0.

    Returns:
        [M] coefficients >= 0.
    """
    y = np.asarray(measured, dtype=np.float64)
    relative = np.asarray(counts, dtype=np.float64) / y[:, None]
    scale = np.abs(relative).max(0)
    scale[scale == 0] = 1
    solution, _ = nnls(relative / scale, np.ones(len(y)))
    return [float(value) for value in solution / scale]


def _counts(case: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    return [1.0 if name == "fixed" else float(case[name]) for name in names]


def _measure_in_processes(point: Point) -> dict[str, Any]:
    """Start the processes of a point, and return the figures that the first one prints."""
    command = [sys.executable, "-m", "hemix.lab.benchmarks.cost_point", json.dumps(asdict(point))]
    environment = {
        **os.environ,
        "WORLD_SIZE": str(point.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "RANK": str(rank)},
        )
        for rank in range(point.processes)
    ]
    try:
        _wait_for_first(processes)
        for process in processes:
            # the first failure is the cause; the other processes fail because of it
            if process.poll() not in (None, 0):
                _, errors = process.communicate()
                cause = last_line(errors, process.returncode)
                raise HemixError(f"bench costs: {point.name}: {cause}", code="process_failed")
        figures: dict[str, Any] = json.loads(processes[0].communicate()[0].splitlines()[-1])
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return figures


def _wait_for_first(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until the first process ends or any process fails."""
    while processes[0].poll() is None and all(process.poll() in (None, 0) for process in processes):
        time.sleep(_POLL_SECONDS)
