"""`hemix bench train`: a training step with each user's side once against once per impression."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any, Literal

from hemix.lab.benchmarks.common import agree, compare, exponents, figures
from hemix.lab.benchmarks.sides import Side, SideCase
from hemix.lab.benchmarks.workload import Workload
from hemix.measure import keep_freed_memory

__all__ = ["run"]

_USERS = 256
_CASES = ((8, 1_000), (8, 5_000), (1, 1_000))
_IMPRESSIONS = (1, 2, 4, 8, 16)
_CROSSOVER = (1, 2, 3, 4, 6, 8)
_SCOPES: tuple[Literal["core", "whole"], ...] = ("core", "whole")


def run(*, scale: float = 1.0, sweep: bool = False) -> dict[str, Any]:
    """256 users (times ``scale``) with 8 impressions each at 1,000 and 5,000 events, and with 1 at
    1,000, size base, per scope: forward and backward, and in scope whole the update of all weights.
    ``sweep`` adds numbers of impressions per user, and both ways of projecting for the queries that
    those make: where one overtakes the other.
    """
    keep_freed_memory()
    users = max(int(_USERS * scale), 2)

    def case(
        scope: Literal["core", "whole"], of_users: int, impressions: int, length: int
    ) -> SideCase:
        load = Workload(users=of_users, impressions_per_user=impressions, history_length=length)
        return SideCase(kind="train", scope=scope, load=load)

    cases = [compare("train", case(scope, users, *shape)) for scope in _SCOPES for shape in _CASES]
    if not sweep:
        return figures(cases)
    few = max(users // 8, 2)
    crossover = [_crossover(case("core", few, n, 1_000)) for n in _CROSSOVER]
    swept = [
        compare(
            "train sweep impressions",
            case("core", few, n, 1_000),
            repeats=3,
            absorbed=False,
            memory=False,
        )
        for n in _IMPRESSIONS
    ]
    return figures(
        cases + swept,
        growth={"impressions_per_user": exponents(swept, "impressions_per_user")},
        crossover=crossover,
    )


def _crossover(case: SideCase, repeats: int = 5) -> dict[str, float]:
    """The same step with projections absorbed and with keys and values projected, by how many
    queries read each history.
    """
    sides = {
        choice: Side(dataclasses.replace(case, absorb=choice), shared=True)
        for choice in ("always", "never")
    }
    outputs = {choice: side.step(check=True)[1] for choice, side in sides.items()}
    agree("train crossover", outputs["always"], outputs["never"], 5e-3)
    seconds: dict[str, list[float]] = {choice: [] for choice in sides}
    for _ in range(repeats):
        for choice, side in sides.items():
            seconds[choice].append(side.step()[0])
    config, load = sides["never"].model.config, case.load
    per_request = config.ns_tokens_global + config.fixed_queries_global
    return {
        "queries_per_history": per_request * load.impressions_per_user,
        "absorbed_seconds": statistics.median(seconds["always"]),
        "projected_seconds": statistics.median(seconds["never"]),
    }
