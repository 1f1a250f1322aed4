"""``hemix bench costs``: fits with known coefficients, and a small run."""

from __future__ import annotations

from typing import Any

import pytest

from hemix.lab.benchmarks import costs, run_benchmark
from hemix.lab.benchmarks.cost_point import Point, measure_point
from hemix.lab.benchmarks.workload import Workload
from tests.lab.benchmarks.figures import assert_figures

KEYS = {
    "name",
    "size",
    "processes",
    "others",
    "held_out",
    "users",
    "history_length",
    "dense_parameters",
    "impressions",
    "table_rows",
    "event_vectors",
    "vectors",
    "moved_bytes",
    "flops",
    "seconds",
    "peak_bytes",
    "seconds_predicted",
    "seconds_error",
    "peak_bytes_predicted",
    "peak_bytes_error",
}


def test_fit_recovers_known_coefficients() -> None:
    counts = [[1, 2, 10], [1, 4, 3], [1, 8, 7], [1, 1, 1]]
    measured = [2 + 3 * b + 0.5 * c for _, b, c in counts]
    assert costs.fit_nonnegative(counts, measured) == pytest.approx([2, 3, 0.5])


def test_fit_has_no_negative_coefficient() -> None:
    counts = [[1, 1], [1, 2], [1, 3]]
    assert costs.fit_nonnegative(counts, [3, 2, 1])[1] == 0


def test_fit_minimises_relative_errors() -> None:
    """The coefficient lies between the ratios 2 / 1 and 1,000 / 1,000."""
    (coefficient,) = costs.fit_nonnegative([[1], [1_000]], [2, 1_000])
    assert 1 < coefficient < 2
    assert coefficient == pytest.approx((1 / 2 + 1) / (1 / 4 + 1))


def test_held_out_points_are_predicted_but_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def point(name: str, users: int, *, held_out: bool = False, processes: int = 1) -> Point:
        load = Workload(users=users, impressions_per_user=2, history_length=20)
        return Point(name=name, load=load, held_out=held_out, processes=processes)

    in_processes = costs._measure_in_processes

    def measure(point: Point) -> dict[str, Any]:
        """Start processes only for the point of two, because each starts slowly."""
        return in_processes(point) if point.processes > 1 else measure_point(point, None)

    points = (
        point("few", 4),
        point("many", 64),
        point("held out", 16, held_out=True),
        point("two processes", 64, processes=2),
    )
    monkeypatch.setattr(costs, "POINTS", points)
    monkeypatch.setattr(costs, "_measure_in_processes", measure)
    figures = run_benchmark("costs")
    few, many, held_out, two = figures["cases"]
    for case in figures["cases"]:
        assert_figures(case, KEYS)
    assert (two["impressions"], two["others"]) == (64, 1)
    assert two["table_rows"] == -(-many["table_rows"] // 2)
    # the optimisers' operations on the dense parameters are not divided
    assert many["flops"] / 2 < two["flops"] < 0.9 * many["flops"]
    assert many["moved_bytes"] == 0 and two["moved_bytes"] > two["dense_parameters"] * 4
    assert (few["impressions"], many["impressions"], held_out["impressions"]) == (8, 128, 32)
    assert many["flops"] > held_out["flops"] > few["flops"]
    for figure, names in costs.LAWS.items():
        assert tuple(figures["laws"][figure]) == names
        assert min(figures["laws"][figure].values()) >= 0
    law = figures["laws"]["seconds"]
    counted = ("flops", "vectors", "impressions", "moved_bytes", "others")
    expected = law["fixed"] + sum(law[name] * held_out[name] for name in counted)
    assert held_out["seconds_predicted"] == pytest.approx(expected)
    assert held_out["seconds_error"] == pytest.approx(expected / held_out["seconds"] - 1)


def test_scale_multiplies_the_users() -> None:
    base = costs.POINTS[0]
    assert costs._scaled(base, 0.5).load.users == base.load.users // 2
    assert costs._scaled(base, 0).load.users == 1
