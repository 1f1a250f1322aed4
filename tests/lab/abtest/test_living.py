"""Users who live with arms: the same days in every arm, kept cells, arms that are away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix import api
from hemix.display import experiment_table
from hemix.errors import DataError, UsageError
from hemix.lab.abtest import Plan, experiment
from hemix.lab.abtest.analysis import analyse, power
from hemix.lab.abtest.arms import Event, Oracle, Popularity
from hemix.lab.abtest.living import MEASURES, live, past_lives
from hemix.lab.abtest.plan import arm_of
from hemix.lab.simulator.city import build_city


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "logs"
    api.simulate(folder, users=120, days=3, seed=2)
    return folder


class Listening(Popularity):
    def __init__(self) -> None:
        self.heard: list[Event] = []

    def hear(self, events: Sequence[Event]) -> None:
        self.heard += events


def test_an_arm_against_itself_has_exactly_no_difference(logs: Path, tmp_path: Path) -> None:
    found = api.experiment(
        {"a": "popularity", "b": "popularity"}, tmp_path / "out", logs=logs, users=60, days=2
    )
    assert found["effects"] and all(
        e["relative_delta"] == 0 and e["ci95"] == [0, 0] for e in found["effects"]
    )
    assert (
        json.loads((tmp_path / "out" / "experiment.json").read_text())["effects"]
        == found["effects"]
    )
    assert "<h2>Effects</h2>" in (tmp_path / "out" / "report.html").read_text()


def test_the_keys_of_experiment_json(logs: Path, tmp_path: Path) -> None:
    """As docs and readers of docs/evidence know them."""
    api.experiment(
        {"oracle": "oracle", "popularity": "popularity"},
        tmp_path / "out",
        logs=logs,
        users=40,
        days=1,
    )
    found = json.loads((tmp_path / "out" / "experiment.json").read_text())
    metrics = {
        "pv_ctr",
        "uv_cvr",
        "gmv_per_user",
        "requests_per_session",
        "km_per_order",
        "new_place_share",
    }
    assert set(found) == {
        "schema_version",
        "format_version",
        "plan",
        "models",
        "arms",
        "effects",
        "looks",
        "between_floor_and_ceiling",
        "checks",
        "paused",
        "power",
        "rankings_per_second",
        "versions",
        "machine",
    }
    assert set(found["arms"]) == {"oracle", "popularity"}
    for arm in found["arms"].values():
        assert (
            set(arm) == {"users", "requests"} | metrics
            and arm["users"] == 40
            and arm["requests"] > 0
        )
    assert {e["metric"] for e in found["effects"]} >= {"pv_ctr", "uv_cvr", "gmv_per_user"}
    for effect in found["effects"]:
        assert set(effect) == {
            "arm",
            "against",
            "metric",
            "users",
            "relative_delta",
            "ci95",
            "always_valid_ci95",
            "p",
        }
    assert (
        set(found["checks"]) == {"sample_ratio", "aa"} and found["checks"]["sample_ratio"] is None
    )
    aa = found["checks"]["aa"]
    assert (
        set(aa) == {"of", "repetitions", "users", "covers_zero", "defined"} and aa["of"] == "oracle"
    )
    assert (
        aa["repetitions"] == 100
        and 80 <= aa["covers_zero"]["pv_ctr"] <= aa["defined"]["pv_ctr"] == 100
    )
    assert (
        set(found["versions"]) == {"hemix", "torch"}
        and found["machine"]["cores"]
        and found["machine"]["memory_bytes"] > 0
    )


def test_an_arm_may_have_no_users_in_a_block(logs: Path, tmp_path: Path) -> None:
    """41 users in blocks of 40: the last one lives in one arm only."""
    plan = Plan(
        arms={"a": "oracle", "b": "popularity"},
        logs=str(logs),
        users=41,
        days=1,
        design="split",
        block=40,
    )
    found = experiment(plan, tmp_path / "out")
    assert sum(arm["users"] for arm in found["arms"].values()) == 41
    assert experiment(plan, tmp_path / "out")["effects"] == found["effects"]
    assert (
        0 < found["checks"]["sample_ratio"]["p"] <= 1
        and found["checks"]["aa"]["of"] == "the days before"
    )


def test_an_arm_of_one_user_has_metrics_that_are_not_defined_and_a_report(
    logs: Path, tmp_path: Path
) -> None:
    plan = Plan(
        arms={"a": "oracle", "b": "popularity", "c": "popularity"},
        logs=str(logs),
        users=3,
        days=1,
        design="split",
    )
    found = experiment(plan, tmp_path / "out")
    assert any(value is None for arm in found["arms"].values() for value in arm.values())
    assert experiment_table(found) and (tmp_path / "out" / "report.html").is_file()


def some(shown: list[float], clicks: list[float], orders: list[float]) -> dict[str, Any]:
    """Users of one day by what they did."""
    sums = {m: np.ones((len(shown), 1)) for m in MEASURES}
    return sums | {
        m: np.array(v, float)[:, None]
        for m, v in (("shown", shown), ("clicks", clicks), ("orders", orders))
    }


def test_a_past_without_orders_leaves_cuped_out_where_it_has_nothing_to_say() -> None:
    users, now, then = (
        np.arange(4),
        some([9, 9, 9, 9], [2, 3, 1, 2], [1, 0, 1, 1]),
        some([9, 9, 9, 9], [2, 2, 1, 3], [0, 0, 0, 0]),
    )
    bought = some([9, 9, 9, 9], [2, 2, 1, 3], [1, 0, 1, 1])
    found = analyse(
        {"a": (users, now), "b": (users, now)}, paired=False, before={"a": then, "b": bought}
    )
    plain = analyse({"a": (users, now), "b": (users, now)}, paired=False)
    by = [{e["metric"]: e for e in content["effects"]} for content in (found, plain)]
    assert by[0]["km_per_order"] == by[1]["km_per_order"], "no kilometres an order without orders"
    assert all(np.isfinite(e["ci95"]).all() for e in found["effects"])


def test_an_arm_without_orders_is_100_percent_below_with_an_honest_interval() -> None:
    none, few = some([9] * 6, [2] * 6, [0] * 6), some([9] * 6, [2] * 6, [1, 0, 0, 0, 0, 0])
    for paired in (True, False):
        arms = {"a": (np.arange(6), none), "b": (np.arange(6), few)}
        found = {e["metric"]: e for e in analyse(arms, paired=paired)["effects"]}["uv_cvr"]
        assert found["relative_delta"] == -1
        assert found["ci95"][0] < -1 < 0 < found["ci95"][1] and found["p"] > 0.05, (
            "one order is no proof"
        )
    swapped = analyse({"a": (np.arange(6), few), "b": (np.arange(6), none)}, paired=True)
    assert "uv_cvr" not in {e["metric"] for e in swapped["effects"]}, (
        "nothing is relative to nothing"
    )


@pytest.mark.parametrize("paired", [True, False])
def test_one_user_has_no_effect_but_a_reason(paired: bool) -> None:
    """One user in an arm, or one of many who ordered: the interval would have no width."""
    one, other = some([9], [2], [1]), some([9], [3], [2])
    found = analyse({"a": (np.arange(1), one), "b": (np.arange(1), other)}, paired=paired)
    assert (found["effects"], found["looks"]) == ([], [])
    absent = {e["metric"]: e["reason"] for e in found["absent_effects"]}
    assert absent["pv_ctr"] == absent["km_per_order"] == "fewer than two users"
    orders = some([9] * 6, [2] * 6, [1, 0, 0, 0, 0, 0]), some([9] * 6, [3] * 6, [2, 1, 0, 0, 0, 0])
    found = analyse({"a": (np.arange(6), orders[0]), "b": (np.arange(6), orders[1])}, paired=paired)
    assert "pv_ctr" in {e["metric"] for e in found["effects"]}
    assert {e["metric"] for e in found["absent_effects"]} == {"km_per_order", "new_place_share"}
    two = some([9] * 6, [2] * 6, [1] * 6)
    assert "absent_effects" not in analyse(
        {"a": (np.arange(6), two), "b": (np.arange(6), two)}, paired=paired
    )
    assert power(one, other, 100, None if paired else 2)["pv_ctr"] is None


def test_floor_and_ceiling_are_of_the_users_that_all_arms_have() -> None:
    """The second half of the users click more; an arm that has only the first half is held against
    that half.
    """
    low, high = [1.0] * 4, [3.0] * 4
    floor = some([10] * 8, low + high, [0] * 8)
    ceiling = some([10] * 8, [3.0] * 4 + [5.0] * 4, [0] * 8)
    half = some([10] * 4, [2.0] * 4, [0] * 4)
    arms = {
        "half": (np.arange(4), half),
        "oracle": (np.arange(8), ceiling),
        "popularity": (np.arange(8), floor),
    }
    between = analyse(arms, paired=True)["between_floor_and_ceiling"]
    assert between["half"]["pv_ctr"] == pytest.approx(0.5)
    assert (between["popularity"]["pv_ctr"], between["oracle"]["pv_ctr"]) == (0, 1)


def test_the_oracle_is_above_popularity_and_both_are_the_ends(logs: Path, tmp_path: Path) -> None:
    arms = {"oracle": "oracle", "popularity": "popularity"}
    found = api.experiment(arms, tmp_path / "out", logs=logs, users=120, days=2)
    effect = next(e for e in found["effects"] if e["metric"] == "pv_ctr")
    assert effect["ci95"][0] > 0 and effect["users"] == 120
    assert found["between_floor_and_ceiling"] == {
        "oracle": {"pv_ctr": 1, "uv_cvr": 1, "gmv_per_user": 1},
        "popularity": {"pv_ctr": 0, "uv_cvr": 0, "gmv_per_user": 0},
    }
    assert [e["day"] for e in found["looks"] if e["metric"] == "pv_ctr"] == [1, 2]
    report = (tmp_path / "out" / "report.html").read_text()
    for metric in ("PV_CTR", "UV_CVR", "GMV per user"):
        look = report.split(f"{metric} of oracle against popularity by day.")[1].split("</svg>")[0]
        assert ">95 % interval<" in look and ">always valid<" in look
    assert all(
        column in report
        for column in ("session length", "distance travelled", "share of new places")
    )


def test_a_user_s_days_do_not_depend_on_who_else_lives_and_the_past_stays_as_it_is() -> None:
    city = build_city(120, 3, 2)
    past, _ = past_lives(city, np.arange(40), 0)
    together, again = live(past, Oracle(), 2), live(past, Oracle(), 2)
    alone = live(past_lives(city, np.arange(10, 20), 0)[0], Oracle(), 2)
    for name in MEASURES:
        assert np.array_equal(together[name], again[name])
        assert np.array_equal(together[name][10:20], alone[name])
    assert together["clicks"].sum() > 0


def test_users_from_the_first_asked_for_on_live_as_they_do_among_all(
    logs: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    for out, users, first in (("all", 120, 0), ("some", 10, 40)):
        api.experiment(
            {"oracle": "oracle"}, tmp_path / out, logs=logs, users=users, first_user=first, days=1
        )
    everyone, some = (
        pq.read_table(tmp_path / out / "cells" / "oracle-0000.parquet") for out in ("all", "some")
    )
    assert some["user"].to_pylist() == list(range(40, 50))
    assert some.to_pylist() == everyone.slice(40, 10).to_pylist()


def test_the_days_before_are_those_of_the_logs(logs: Path) -> None:
    import pyarrow.parquet as pq

    _, before = past_lives(build_city(120, 3, 2), np.arange(120), 3)
    rows = pq.read_table(logs / "impressions.parquet")
    assert before["shown"].sum() == rows.num_rows
    assert before["clicks"].sum() == sum(rows["click"].to_pylist())
    assert before["gmv"].sum() == pytest.approx(sum(a or 0 for a in rows["amount"].to_pylist()))


def test_events_are_told_once_each_in_the_words_of_the_server() -> None:
    city, arm = build_city(120, 3, 2), Listening()
    sums = live(past_lives(city, np.arange(40), 0)[0], arm, 2)
    kinds = [event.get("type", event["event"]) for event in arm.heard]
    assert kinds.count("impression") == sums["shown"].sum()
    assert (
        kinds.count("click") == sums["clicks"].sum()
        and kinds.count("order") == sums["orders"].sum()
        and "view" in kinds
    )
    assert len({event["id"] for event in arm.heard}) == len(arm.heard)
    click = next(event for event in arm.heard if event.get("type") == "click")
    assert click["ranking"] == f"r{int(click['user'][1:])}.{click['id'].split('.')[1]}" and click[
        "item"
    ].startswith("p")
    assert min(event["timestamp"] for event in arm.heard) >= city.day_start_ms(3)


def test_what_is_finished_is_kept(logs: Path, tmp_path: Path) -> None:
    def run(**more: int) -> dict[str, object]:
        return api.experiment(
            {"a": "oracle", "b": "popularity"},
            tmp_path / "out",
            logs=logs,
            **{"users": 30, "days": 1, **more},
        )  # type: ignore[arg-type]

    first = run()
    cell = tmp_path / "out" / "cells" / "a-0000.parquet"
    before = cell.stat().st_mtime_ns
    (tmp_path / "out" / "cells" / "b-0000.parquet").unlink()
    again = run()
    assert cell.stat().st_mtime_ns == before and again["effects"] == first["effects"]
    with pytest.raises(UsageError, match=r"holds an experiment with days 1, not 2"):
        run(days=2)
    cell.write_bytes(b"x")
    with pytest.raises(DataError, match=r"a-0000\.parquet: damaged"):
        run()


def test_wrong_plans_are_refused(logs: Path, tmp_path: Path) -> None:
    for arms, more, why in (
        (
            {"a": "nobody"},
            {},
            r"--arm NAME=nobody: expected http://HOST:PORT or one of oracle, popularity",
        ),
        ({"a": "oracle"}, {"users": 500}, r"--users 500: expected 1 to 120"),
        (
            {"a": "oracle"},
            {"first_user": 115},
            r"--users 10: expected 1 to 5, the users of .* from --first-user 115 on",
        ),
        ({"a": "oracle"}, {"first_user": 120}, r"--first-user 120: expected 0 to 119"),
        ({"before": "oracle"}, {}, r"--arm before: expected a name"),
        ({}, {}, r"--arm: expected at least one"),
        (
            {"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:1"},
            {},
            r"two arms of one server would share its histories",
        ),
        ({"a": "http://127.0.0.1:1"}, {"patience_seconds": 0.0}, r"--arm a: does not answer"),
    ):
        with pytest.raises(UsageError, match=why):
            api.experiment(arms, tmp_path / "out", logs=logs, **{"users": 10, "days": 1, **more})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        DataError, match=r"city\.json: missing: --logs names a folder of hemix simulate"
    ):
        api.experiment({"a": "oracle"}, tmp_path / "out", logs=tmp_path, users=10, days=1)


def test_of_one_policy_for_both_sides_100_divisions_of_users_show_no_difference() -> None:
    """A/A, split design with CUPED: what users do does not depend on the side, so they live once
    and are divided 100 times.
    """
    users = np.arange(400)
    past, before = past_lives(build_city(400, 3, 4), users, 3)
    lived = live(past, Popularity(), 3)
    held = dict.fromkeys(("pv_ctr", "uv_cvr", "gmv_per_user"), 0)
    for seed in range(100):
        side = arm_of(users, seed, 2)
        assert 150 < side.sum() < 250
        rows = {name: side == i for i, name in enumerate(("a", "b"))}
        arms = {
            name: (users[of], {m: values[of] for m, values in lived.items()})
            for name, of in rows.items()
        }
        then = {name: {m: values[of] for m, values in before.items()} for name, of in rows.items()}
        for effect in analyse(arms, paired=False, before=then)["effects"]:
            if effect["metric"] in held:
                held[effect["metric"]] += effect["ci95"][0] <= 0 <= effect["ci95"][1]
    assert all(90 <= count <= 100 for count in held.values()), held
