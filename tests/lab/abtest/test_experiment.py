"""Experiments with the arms that need no server: results, files, refusals and analysis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hemix import api
from hemix.display import experiment_table
from hemix.errors import DataError, UsageError
from hemix.lab.abtest import ExperimentPlan, experiment
from hemix.lab.abtest.arm_simulation import simulate_arm, simulate_past
from hemix.lab.abtest.arms import Oracle, Popularity
from hemix.lab.abtest.events import Event
from hemix.lab.abtest.measures import MEASURES
from hemix.lab.simulator.city import build_city
from tests.refusals import Refused, raises

pytestmark = pytest.mark.usefixtures("short_past")

BUILT_IN_ARMS = {"oracle": "oracle", "popularity": "popularity"}
METRICS = {
    "pv_ctr",
    "uv_cvr",
    "gmv_per_user",
    "requests_per_session",
    "km_per_order",
    "new_place_share",
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "logs"
    api.simulate(folder, users=120, days=3, seed=2)
    return folder


class RecordingArm(Popularity):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def record_events(self, events: Sequence[Event]) -> None:
        self.events += events


def test_an_arm_against_itself_has_no_difference(logs: Path, tmp_path: Path) -> None:
    arms = {"a": "popularity", "b": "popularity"}
    content = api.experiment(
        ExperimentPlan(arms=arms, logs=logs, users=60, days=2), tmp_path / "out"
    )
    assert {effect["metric"] for effect in content["effects"]} >= {"pv_ctr", "uv_cvr"}
    assert {effect["relative_delta"] for effect in content["effects"]} == {0}
    assert all(effect["ci95"] == [0, 0] for effect in content["effects"])
    saved = json.loads((tmp_path / "out" / "experiment.json").read_text())
    assert saved["effects"] == content["effects"]
    assert "<h2>Effects</h2>" in (tmp_path / "out" / "report.html").read_text()


def test_experiment_json_has_the_documented_keys(logs: Path, tmp_path: Path) -> None:
    api.experiment(
        ExperimentPlan(arms=BUILT_IN_ARMS, logs=logs, users=100, days=1), tmp_path / "out"
    )
    content = json.loads((tmp_path / "out" / "experiment.json").read_text())
    assert set(content) == {
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
    assert set(content["arms"]) == {"oracle", "popularity"}
    for arm in content["arms"].values():
        assert set(arm) == {"users", "requests"} | METRICS
        assert arm["users"] == 100 and arm["requests"] > 0
    assert {effect["metric"] for effect in content["effects"]} >= {
        "pv_ctr",
        "uv_cvr",
        "gmv_per_user",
    }
    for effect in content["effects"]:
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
    assert set(content["versions"]) == {"hemix", "torch"}
    assert content["machine"]["cores"] and content["machine"]["memory_bytes"] > 0


def test_the_aa_check_covers_0_in_most_splits(logs: Path, tmp_path: Path) -> None:
    content = api.experiment(
        ExperimentPlan(arms=BUILT_IN_ARMS, logs=logs, users=40, days=1), tmp_path / "out"
    )
    checks = content["checks"]
    assert set(checks) == {"sample_ratio", "aa"} and checks["sample_ratio"] is None
    aa = checks["aa"]
    assert set(aa) == {"of", "repetitions", "users", "covers_zero", "defined"}
    assert aa["of"] == "oracle" and aa["repetitions"] == 100
    assert 80 <= aa["covers_zero"]["pv_ctr"] <= aa["defined"]["pv_ctr"] == 100


def test_an_arm_may_have_no_users_in_a_block(logs: Path, tmp_path: Path) -> None:
    """41 users in blocks of 40: the last one is in one arm only."""
    plan = ExperimentPlan(
        arms={"a": "oracle", "b": "popularity"},
        logs=str(logs),
        users=41,
        days=1,
        design="split",
        block=40,
    )
    content = experiment(plan, tmp_path / "out")
    assert sum(arm["users"] for arm in content["arms"].values()) == 41
    assert experiment(plan, tmp_path / "out")["effects"] == content["effects"]
    assert 0 < content["checks"]["sample_ratio"]["p"] <= 1
    assert content["checks"]["aa"]["of"] == "the days before"


def test_an_arm_of_one_user_has_undefined_metrics_and_a_report(logs: Path, tmp_path: Path) -> None:
    plan = ExperimentPlan(
        arms={"a": "oracle", "b": "popularity", "c": "popularity"},
        logs=str(logs),
        users=3,
        days=1,
        design="split",
    )
    content = experiment(plan, tmp_path / "out")
    assert any(value is None for arm in content["arms"].values() for value in arm.values())
    assert experiment_table(content) and (tmp_path / "out" / "report.html").is_file()


def test_the_oracle_has_a_higher_click_rate_than_popularity(logs: Path, tmp_path: Path) -> None:
    content = api.experiment(
        ExperimentPlan(arms=BUILT_IN_ARMS, logs=logs, users=120, days=2), tmp_path / "out"
    )
    effect = next(effect for effect in content["effects"] if effect["metric"] == "pv_ctr")
    assert effect["ci95"][0] > 0 and effect["users"] == 120
    assert content["between_floor_and_ceiling"] == {
        "oracle": {"pv_ctr": 1, "uv_cvr": 1, "gmv_per_user": 1},
        "popularity": {"pv_ctr": 0, "uv_cvr": 0, "gmv_per_user": 0},
    }
    assert [look["day"] for look in content["looks"] if look["metric"] == "pv_ctr"] == [1, 2]
    report = (tmp_path / "out" / "report.html").read_text()
    for metric in ("PV_CTR", "UV_CVR", "GMV per user"):
        chart = report.split(f"{metric} of oracle against popularity by day.")[1]
        chart = chart.split("</svg>")[0]
        assert ">95 % interval<" in chart and ">always valid<" in chart
    for column in ("requests per session", "distance per order, km", "orders at new venues"):
        assert column in report


def test_a_user_s_days_do_not_depend_on_other_users_and_leave_the_past_unchanged() -> None:
    city = build_city(120, 3, 2)
    past, _ = simulate_past(city, np.arange(40), 0)
    first, second = simulate_arm(past, Oracle(), 2), simulate_arm(past, Oracle(), 2)
    few = simulate_arm(simulate_past(city, np.arange(10, 20), 0)[0], Oracle(), 2)
    for name in MEASURES:
        assert np.array_equal(first[name], second[name])
        assert np.array_equal(first[name][10:20], few[name])
    assert first["clicks"].sum() > 0


def test_users_from_first_user_on_have_the_results_that_they_have_among_all_users(
    logs: Path, tmp_path: Path
) -> None:
    tables = []
    for out, users, first_user in (("all", 120, 0), ("ten", 10, 40)):
        api.experiment(
            ExperimentPlan(
                arms={"oracle": "oracle"}, logs=logs, users=users, first_user=first_user, days=1
            ),
            tmp_path / out,
        )
        tables.append(pq.read_table(tmp_path / out / "arm_results" / "oracle-0000.parquet"))
    all_users, ten_users = tables
    assert ten_users["user"].to_pylist() == list(range(40, 50))
    assert ten_users.to_pylist() == all_users.slice(40, 10).to_pylist()


def test_the_pre_period_equals_the_logs(logs: Path) -> None:
    _, pre_period = simulate_past(build_city(120, 3, 2), np.arange(120), 3)
    impressions = pq.read_table(logs / "impressions.parquet")
    assert pre_period["shown"].sum() == impressions.num_rows
    assert pre_period["clicks"].sum() == sum(impressions["click"].to_pylist())
    amounts = [amount or 0 for amount in impressions["amount"].to_pylist()]
    assert pre_period["gmv"].sum() == pytest.approx(sum(amounts))


def test_an_arm_receives_every_event_once() -> None:
    city, arm = build_city(120, 3, 2), RecordingArm()
    sums = simulate_arm(simulate_past(city, np.arange(40), 0)[0], arm, 2)
    types = [event.get("type", event["event"]) for event in arm.events]
    assert types.count("impression") == sums["shown"].sum()
    assert types.count("click") == sums["clicks"].sum()
    assert types.count("order") == sums["orders"].sum()
    assert "view" in types
    assert len({event["id"] for event in arm.events}) == len(arm.events)
    click = next(event for event in arm.events if event.get("type") == "click")
    request_number = click["id"].split(".")[1]
    assert click["ranking"] == f"r{int(click['user'][1:])}.{request_number}"
    assert click["item"].startswith("p")
    assert min(event["timestamp"] for event in arm.events) >= city.day_start_ms(3)


def test_the_views_of_a_session_have_consecutive_numbers() -> None:
    arm = RecordingArm()
    simulate_arm(simulate_past(build_city(120, 3, 2), np.arange(40), 0)[0], arm, 1)
    numbers: dict[str, list[int]] = {}
    for event in arm.events:
        if event.get("type") == "view":
            session, number = event["id"].rsplit(".", 1)
            numbers.setdefault(session, []).append(int(number))
    assert max(len(views) for views in numbers.values()) > 1
    assert all(views == list(range(len(views))) for views in numbers.values())


def run_two_arms(logs: Path, out: Path, **options: int) -> dict[str, Any]:
    arms = {"a": "oracle", "b": "popularity"}
    settings: dict[str, Any] = {"users": 30, "days": 1, **options}
    return api.experiment(ExperimentPlan(arms=arms, logs=logs, **settings), out)


def test_a_finished_block_is_not_simulated_again(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_two_arms(logs, out)
    finished = out / "arm_results" / "a-0000.parquet"
    written_ns = finished.stat().st_mtime_ns
    (out / "arm_results" / "b-0000.parquet").unlink()
    continued = run_two_arms(logs, out)
    assert finished.stat().st_mtime_ns == written_ns
    assert continued["effects"] == first["effects"]


def test_another_plan_and_a_damaged_result_are_refused(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_two_arms(logs, out)
    with raises(UsageError, "days", 1, 2, code="out_exists", field="--out"):
        run_two_arms(logs, out, days=2)
    result = out / "arm_results" / "a-0000.parquet"
    result.write_bytes(b"x")
    with raises(DataError, code="damaged_file", field=result):
        run_two_arms(logs, out)


CLOSED = "http://127.0.0.1:1"
"""No server listens there."""
wrong_arm = partial(raises, UsageError, field="--arm")


@pytest.mark.parametrize(
    ("arms", "options", "refused"),
    [
        ({"a": "nobody"}, {}, partial(wrong_arm, "nobody", "oracle", "popularity")),
        ({"a": "oracle"}, {"users": 500}, partial(raises, UsageError, 1, 120, field="--users")),
        (
            {"a": "oracle"},
            {"first_user": 115},
            partial(raises, UsageError, 10, 1, 5, 115, field="--users"),
        ),
        (
            {"a": "oracle"},
            {"first_user": 120},
            partial(raises, UsageError, 120, 0, 119, field="--first-user"),
        ),
        ({"before": "oracle"}, {}, partial(wrong_arm, "before")),
        ({}, {}, wrong_arm),
        ({"a": CLOSED, "b": CLOSED}, {}, partial(wrong_arm, code="repeated_argument")),
        ({"a": CLOSED}, {}, partial(wrong_arm, "--arm a", code="no_answer")),
    ],
)
def test_an_invalid_plan_is_refused(
    arms: dict[str, str], options: dict[str, Any], refused: Refused, logs: Path, tmp_path: Path
) -> None:
    with refused():
        plan = ExperimentPlan(arms=arms, logs=logs, **{"users": 10, "days": 1, **options})
        api.experiment(plan, tmp_path / "out", arm_timeout=0.0)
    assert not (tmp_path / "out").exists()


def test_logs_that_are_not_simulated_are_refused(tmp_path: Path) -> None:
    with raises(DataError, code="missing_file", field=tmp_path / "truth" / "city.json"):
        plan = ExperimentPlan(arms={"a": "oracle"}, logs=tmp_path, users=10, days=1)
        api.experiment(plan, tmp_path / "out")
