"""The cost model: its fit by hand, and a small run of it."""

from __future__ import annotations

import pytest

from hemix.lab.benchmarks import costs, run_benchmark
from hemix.lab.benchmarks.workload import Workload


def test_a_law_that_holds_is_found() -> None:
    counts = [[1, 2, 10], [1, 4, 3], [1, 8, 7], [1, 1, 1]]
    assert costs.fit(counts, [2 + 3 * b + 0.5 * c for _, b, c in counts]) == pytest.approx(
        [2, 3, 0.5]
    )


def test_a_count_that_only_a_negative_price_would_fit_is_left_out() -> None:
    counts = [[1, 1], [1, 2], [1, 3]]
    assert costs.fit(counts, [3, 2, 1])[1] == 0


def test_errors_count_as_shares() -> None:
    """One price for 1 and for 1,000 of a thing that measured 2 and 1,000: between both, as far off
    in relation.
    """
    (price,) = costs.fit([[1], [1_000]], [2, 1_000])
    assert 1 < price < 2
    assert price == pytest.approx((1 / 2 + 1) / (1 / 4 + 1))


def test_points_left_out_are_predicted_and_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def point(name: str, users: int, *, held_out: bool = False, processes: int = 1) -> costs.Point:
        load = Workload(users=users, impressions_per_user=2, history_length=20)
        return costs.Point(
            name=name, load=load, item_rows=100_000, held_out=held_out, processes=processes
        )

    points = (
        point("few", 4),
        point("many", 64),
        point("left out", 16, held_out=True),
        point("shared", 64, processes=2),
    )
    monkeypatch.setattr(costs, "POINTS", points)
    found = run_benchmark("costs")
    few, many, left_out, shared = found["cases"]
    assert (shared["impressions"], shared["others"]) == (64, 1) and shared["table_rows"] == -(
        -many["table_rows"] // 2
    )
    assert many["flops"] / 2 < shared["flops"] < 0.9 * many["flops"], (
        "the optimiser's are not divided"
    )
    assert many["moved_bytes"] == 0 and shared["moved_bytes"] > shared["dense_parameters"] * 4
    assert (few["impressions"], many["impressions"], left_out["impressions"]) == (8, 128, 32)
    assert many["flops"] > left_out["flops"] > few["flops"]
    law = found["laws"]["seconds"]
    assert (
        set(law) == {"fixed", "flops", "vectors", "impressions", "moved_bytes", "others"}
        and min(law.values()) >= 0
    )
    expected = law["fixed"] + sum(
        law[name] * left_out[name] for name in ("flops", "vectors", "impressions")
    )  # of the others, none
    assert left_out["seconds_predicted"] == pytest.approx(expected)
    assert left_out["seconds_error"] == pytest.approx(expected / left_out["seconds"] - 1)
    assert many["peak_bytes"] > 0 and few["peak_bytes_predicted"] > 0
