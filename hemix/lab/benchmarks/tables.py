"""``hemix bench tables``: look-up, backward pass and update of large embedding tables.

It compares FBGEMM and the tables of :mod:`hemix.nn.embedding` with PyTorch's embedding bags, whose
gradients are sparse or dense. All get the same weights, ids and gradients.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemix.errors import HemixError
from hemix.lab.benchmarks.common import run_module
from hemix.lab.benchmarks.table_step import Implementation, TableWorkload
from hemix.measure import machine
from hemix.training import fbgemm

__all__ = ["TOLERANCE", "run"]

TOLERANCE = 1e-4
"""Maximum difference of the vectors, which are about 1, that counts as rounding"""

_FIELDS, _ROWS, _WIDTH, _IMPRESSIONS, _IDS_PER_FIELD = 26, 200_000, 64, 2048, 4


@dataclass(frozen=True)
class _Comparison:
    """An implementation against a baseline, with the same optimiser."""

    name: str
    optimizer: str
    ours: Implementation
    plain: Implementation


_COMPARISONS = (
    _Comparison("fbgemm against our tables", "rowwise_adagrad", "fbgemm", "tables"),
    _Comparison("fbgemm against embedding bags", "rowwise_adagrad", "fbgemm", "sparse_bags"),
    _Comparison("fbgemm against dense gradients", "rowwise_adagrad", "fbgemm", "dense_bags"),
    _Comparison("our tables against embedding bags", "rowwise_adagrad", "tables", "sparse_bags"),
    _Comparison("our tables against embedding bags, adam", "adam", "tables", "sparse_bags"),
)


@dataclass(kw_only=True)
class _Measurement:
    """The steps of one implementation over all of its processes."""

    vectors: Path
    """File of the vectors after the warm-up, to check that implementations agree"""
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """Sum over all threads, which varies less on a shared machine"""
    peak_bytes: int = 0

    def add(self, result: Mapping[str, Any]) -> None:
        """Add the result of a process."""
        self.seconds += result["seconds"]
        self.cpu_seconds += result["cpu_seconds"]
        self.peak_bytes = max(self.peak_bytes, result["peak_bytes"])


def run(*, scale: float = 1.0, steps: int = 7, rounds: int = 2, threads: int = 0) -> dict[str, Any]:
    """Measure 26 fields of 200,000 rows of width 64, and 2,048 impressions with 4 ids per field.

    Args:
        scale: Factor of rows and, below 1, of impressions.
        steps: Measured steps of a process.
        rounds: Processes of each implementation; they alternate.
        threads: PyTorch threads; 0: its default.

    Returns:
        The figures, medians over all steps. Without FBGEMM its comparisons are left out.

    Raises:
        HemixError: A process failed, or the vectors of two implementations differ by more than
            :data:`TOLERANCE`.
    """
    workload = TableWorkload(
        fields=_FIELDS,
        rows=max(int(_ROWS * scale), 100),
        width=_WIDTH,
        impressions=max(int(_IMPRESSIONS * min(scale, 1)), 16),
        ids_per_field=_IDS_PER_FIELD,
        steps=steps,
        threads=threads or torch.get_num_threads(),
    )
    comparisons = [each for each in _COMPARISONS if each.ours != "fbgemm" or fbgemm.installed()]
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as folder:
        measurements = {
            (implementation, each.optimizer): _Measurement(
                vectors=Path(folder) / f"{implementation}-{each.optimizer}.npy"
            )
            for each in comparisons
            for implementation in (each.ours, each.plain)
        }
        for _ in range(rounds):
            for (implementation, optimizer), measurement in measurements.items():
                content = json.dumps(asdict(workload))
                arguments = (implementation, optimizer, content, str(measurement.vectors))
                name = f"bench tables: {implementation}"
                line = run_module("hemix.lab.benchmarks.table_step", *arguments, name=name)
                measurement.add(json.loads(line))
        cases = [
            _case(
                each,
                measurements[each.ours, each.optimizer],
                measurements[each.plain, each.optimizer],
                workload,
            )
            for each in comparisons
        ]
    return {"cases": cases, "machine": machine()}


def _case(
    comparison: _Comparison, ours: _Measurement, plain: _Measurement, workload: TableWorkload
) -> dict[str, Any]:
    """Check that the vectors agree and make the case of the benchmark's JSON."""
    difference = float(np.abs(np.load(ours.vectors) - np.load(plain.vectors)).max())
    if not difference <= TOLERANCE:
        raise HemixError(
            f"bench tables: {comparison.name}: vectors differ by {difference:.2e}, more than "
            f"rounding ({TOLERANCE:.0e})",
            code="disagreement",
            field=comparison.name,
        )
    ours_seconds, plain_seconds, ours_cpu_seconds, plain_cpu_seconds = (
        float(np.median(values))
        for values in (ours.seconds, plain.seconds, ours.cpu_seconds, plain.cpu_seconds)
    )
    return {
        "name": comparison.name,
        "optimizer": comparison.optimizer,
        "ours_seconds": round(ours_seconds, 5),
        "plain_seconds": round(plain_seconds, 5),
        "speedup": round(plain_seconds / ours_seconds, 2),
        "ours_cpu_seconds": round(ours_cpu_seconds, 5),
        "plain_cpu_seconds": round(plain_cpu_seconds, 5),
        "ours_peak_bytes": ours.peak_bytes,
        "plain_peak_bytes": plain.peak_bytes,
        "max_abs_difference": difference,
        **asdict(workload),
        "steps": len(ours.seconds),
    }
