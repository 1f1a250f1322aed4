"""`hemix bench score`: one user's candidates over a long history, scored with the user's side once
against once per candidate.
"""

from __future__ import annotations

from typing import Any, Literal

from hemix.lab.benchmarks.common import compare, exponents, figures
from hemix.lab.benchmarks.sides import SideCase
from hemix.lab.benchmarks.workload import Workload
from hemix.measure import keep_freed_memory

__all__ = ["run"]

_CANDIDATES, _LENGTH = 500, 5_000
_LENGTHS = (100, 300, 1_000, 2_000, 5_000, 10_000)
_COUNTS = (1, 10, 100, 500, 2_000)
_SCOPES: tuple[Literal["core", "whole"], ...] = ("core", "whole")


def run(*, scale: float = 1.0, sweep: bool = False) -> dict[str, Any]:
    """500 candidates and 5,000 events (both times ``scale``), size base, in fp32 and with bf16
    blocks; ``sweep`` adds lengths and numbers of candidates in scope core, with the exponents by
    which time grows with them.
    """
    keep_freed_memory()
    candidates, length = max(int(_CANDIDATES * scale), 2), max(int(_LENGTH * scale), 20)

    def case(
        scope: Literal["core", "whole"],
        n: int,
        history: int,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> SideCase:
        load = Workload(users=1, candidates=n, history_length=history)
        return SideCase(kind="score", scope=scope, load=load, precision=precision)

    cases = [compare("score", case(scope, candidates, length)) for scope in _SCOPES]
    cases += [compare("score", case(scope, candidates, length, "bf16")) for scope in _SCOPES]
    if not sweep:
        return figures(cases)
    by_length = [
        compare(
            "score sweep length",
            case("core", candidates, max(int(n * scale), 20)),
            repeats=3,
            absorbed=False,
            memory=False,
        )
        for n in _LENGTHS
    ]
    by_count = [
        compare(
            "score sweep candidates",
            case("core", max(int(n * scale), 1), length),
            repeats=3,
            absorbed=False,
            memory=False,
        )
        for n in _COUNTS
    ]
    growth = {
        "history_length": exponents(by_length, "history_length"),
        "candidates": exponents([c for c in by_count if c["candidates"]], "candidates"),
    }
    return figures(cases + by_length + by_count, growth=growth)
