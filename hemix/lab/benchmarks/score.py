"""``hemix bench score``: scoring of one user's candidates over a long history.

The model with deduplicated user work is compared with the same model without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hemix.lab.benchmarks.common import benchmark_json
from hemix.lab.benchmarks.comparison import compare_steps, growth_exponents
from hemix.lab.benchmarks.model_step import Precision, Scope, StepCase
from hemix.lab.benchmarks.workload import Workload
from hemix.measure import keep_freed_memory

__all__ = ["run"]

_CANDIDATES, _LENGTH = 500, 5_000
_LENGTHS = (100, 300, 1_000, 2_000, 5_000, 10_000)
_COUNTS = (1, 10, 100, 500, 2_000)
_SCOPES: tuple[Scope, ...] = ("core", "whole")
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def run(*, scale: float = 1.0, sweep: bool = False) -> dict[str, Any]:
    """Score 500 candidates over 5,000 events, size base, in fp32 and with bf16 blocks.

    Args:
        scale: Factor of candidates and events.
        sweep: Add several lengths and numbers of candidates in scope core, with the exponents by
            which the time grows.

    Returns:
        The figures.
    """
    keep_freed_memory()
    candidates, length = max(int(_CANDIDATES * scale), 2), max(int(_LENGTH * scale), 20)
    cases = [
        compare_steps("score", _case(scope, candidates, length, precision))
        for precision in _PRECISIONS
        for scope in _SCOPES
    ]
    if not sweep:
        return benchmark_json(cases)
    by_length = [
        _sweep_case("score sweep length", candidates, n) for n in _scaled(_LENGTHS, scale, 20)
    ]
    by_count = [
        _sweep_case("score sweep candidates", n, length) for n in _scaled(_COUNTS, scale, 1)
    ]
    growth = {
        "history_length": growth_exponents(by_length, "history_length"),
        "candidates": growth_exponents(by_count, "candidates"),
    }
    return benchmark_json(cases + by_length + by_count, growth=growth)


def _scaled(sizes: Sequence[int], scale: float, minimum: int) -> list[int]:
    """Scale ascending sizes; small ones that become equal are measured once."""
    return list(dict.fromkeys(max(int(size * scale), minimum) for size in sizes))


def _case(scope: Scope, candidates: int, length: int, precision: Precision = "fp32") -> StepCase:
    load = Workload(users=1, candidates=candidates, history_length=length)
    return StepCase(kind="score", scope=scope, load=load, precision=precision)


def _sweep_case(name: str, candidates: int, length: int) -> dict[str, Any]:
    case = _case("core", candidates, length)
    return compare_steps(name, case, repeats=3, absorbed=False, memory=False)
