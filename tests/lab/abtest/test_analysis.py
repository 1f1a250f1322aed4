"""Effects by metric, bounds and A/A splits of arm results."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.lab.abtest.analysis import analyse_arms, analyse_power
from hemix.lab.abtest.arm_simulation import simulate_arm, simulate_past
from hemix.lab.abtest.arms import Popularity
from hemix.lab.abtest.measures import MEASURES, ArmResult, DailyMeasures
from hemix.lab.abtest.plan import assign_arms
from hemix.lab.simulator.city import build_city


def one_day(shown: list[float], clicks: list[float], orders: list[float]) -> DailyMeasures:
    """Measures of one day by user; those not given are 1."""
    measures = {name: np.ones((len(shown), 1)) for name in MEASURES}
    for name, values in (("shown", shown), ("clicks", clicks), ("orders", orders)):
        measures[name] = np.array(values, float)[:, None]
    return measures


def arm_result(measures: DailyMeasures) -> ArmResult:
    """A result of users 0, 1, ..."""
    return ArmResult(users=np.arange(len(measures["shown"])), measures=measures)


def test_cuped_is_not_used_for_a_metric_that_the_pre_period_does_not_define() -> None:
    result = arm_result(one_day([9, 9, 9, 9], [2, 3, 1, 2], [1, 0, 1, 1]))
    arms = {"a": result, "b": result}
    without_orders = one_day([9, 9, 9, 9], [2, 2, 1, 3], [0, 0, 0, 0])
    with_orders = one_day([9, 9, 9, 9], [2, 2, 1, 3], [1, 0, 1, 1])
    pre_period = {"a": without_orders, "b": with_orders}
    cuped = analyse_arms(arms, paired=False, pre_period=pre_period)["effects"]
    plain = analyse_arms(arms, paired=False)["effects"]
    cuped_distance, plain_distance = (
        next(effect for effect in effects if effect["metric"] == "km_per_order")
        for effects in (cuped, plain)
    )
    assert cuped_distance == plain_distance
    assert all(np.isfinite(effect["ci95"]).all() for effect in cuped)


@pytest.mark.parametrize("paired", [True, False])
def test_an_arm_without_orders_is_100_percent_lower_with_a_wide_interval(paired: bool) -> None:
    without_orders = arm_result(one_day([9] * 6, [2] * 6, [0] * 6))
    one_order = arm_result(one_day([9] * 6, [2] * 6, [1, 0, 0, 0, 0, 0]))
    effects = analyse_arms({"a": without_orders, "b": one_order}, paired=paired)["effects"]
    effect = next(effect for effect in effects if effect["metric"] == "uv_cvr")
    assert effect["relative_delta"] == -1
    assert effect["ci95"][0] < -1 < 0 < effect["ci95"][1] and effect["p"] > 0.05


def test_no_effect_is_relative_to_a_metric_of_0() -> None:
    without_orders = arm_result(one_day([9] * 6, [2] * 6, [0] * 6))
    one_order = arm_result(one_day([9] * 6, [2] * 6, [1, 0, 0, 0, 0, 0]))
    effects = analyse_arms({"a": one_order, "b": without_orders}, paired=True)["effects"]
    assert "uv_cvr" not in {effect["metric"] for effect in effects}


@pytest.mark.parametrize("paired", [True, False])
def test_arms_of_one_user_have_no_effects_but_a_reason(paired: bool) -> None:
    first, second = one_day([9], [2], [1]), one_day([9], [3], [2])
    analysis = analyse_arms({"a": arm_result(first), "b": arm_result(second)}, paired=paired)
    assert (analysis["effects"], analysis["looks"]) == ([], [])
    reasons = {entry["metric"]: entry["reason"] for entry in analysis["absent_effects"]}
    assert reasons["pv_ctr"] == reasons["km_per_order"] == "fewer than two users"
    assert analyse_power(first, second, 100, None if paired else 2)["pv_ctr"] is None


@pytest.mark.parametrize("paired", [True, False])
def test_a_metric_that_one_of_several_users_has_is_absent(paired: bool) -> None:
    first = arm_result(one_day([9] * 6, [2] * 6, [1, 0, 0, 0, 0, 0]))
    second = arm_result(one_day([9] * 6, [3] * 6, [2, 1, 0, 0, 0, 0]))
    analysis = analyse_arms({"a": first, "b": second}, paired=paired)
    assert "pv_ctr" in {effect["metric"] for effect in analysis["effects"]}
    absent = {entry["metric"] for entry in analysis["absent_effects"]}
    assert absent == {"km_per_order", "new_place_share"}
    complete = arm_result(one_day([9] * 6, [2] * 6, [1] * 6))
    assert "absent_effects" not in analyse_arms({"a": complete, "b": complete}, paired=paired)


def test_bounds_are_of_the_users_that_all_arms_have() -> None:
    """Later users click more, but the arm "half" has only the first four users."""
    floor = one_day([10] * 8, [1.0] * 4 + [3.0] * 4, [0] * 8)
    ceiling = one_day([10] * 8, [3.0] * 4 + [5.0] * 4, [0] * 8)
    half = one_day([10] * 4, [2.0] * 4, [0] * 4)
    arms = {
        "half": arm_result(half),
        "oracle": arm_result(ceiling),
        "popularity": arm_result(floor),
    }
    positions = analyse_arms(arms, paired=True)["between_floor_and_ceiling"]
    assert positions["half"]["pv_ctr"] == pytest.approx(0.5)
    assert (positions["popularity"]["pv_ctr"], positions["oracle"]["pv_ctr"]) == (0, 1)


@pytest.mark.usefixtures("short_past")
def test_intervals_of_100_aa_splits_cover_0() -> None:
    """Users with one ranker are split 100 times, by the split design with CUPED."""
    users = np.arange(400)
    past, pre_period = simulate_past(build_city(400, 3, 4), users, 3)
    measures = simulate_arm(past, Popularity(), 3)
    covers_zero = dict.fromkeys(("pv_ctr", "uv_cvr", "gmv_per_user"), 0)
    for seed in range(100):
        side = assign_arms(users, seed, 2)
        assert 150 < side.sum() < 250
        rows = {name: side == index for index, name in enumerate(("a", "b"))}
        arms = {
            name: ArmResult(
                users=users[selected],
                measures={measure: values[selected] for measure, values in measures.items()},
            )
            for name, selected in rows.items()
        }
        before = {
            name: {measure: values[selected] for measure, values in pre_period.items()}
            for name, selected in rows.items()
        }
        for effect in analyse_arms(arms, paired=False, pre_period=before)["effects"]:
            if effect["metric"] in covers_zero:
                covers_zero[effect["metric"]] += effect["ci95"][0] <= 0 <= effect["ci95"][1]
    assert all(90 <= count <= 100 for count in covers_zero.values()), covers_zero
