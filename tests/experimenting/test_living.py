"""Users who live with arms: the same days in every arm, kept cells, arms that are away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hemix import api
from hemix.errors import DataError, UsageError
from hemix.experimenting.analysis import analyse
from hemix.experimenting.arms import Event, Oracle, Popularity
from hemix.experimenting.living import MEASURES, live, past_lives
from hemix.experimenting.run import Plan, arm_of
from hemix.world.city import build_city


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
    found = api.experiment({"a": "popularity", "b": "popularity"}, tmp_path / "out", logs=logs, users=60, days=2)
    assert found["effects"] and all(e["relative"] == 0 and e["ci95"] == [0, 0] for e in found["effects"])
    assert json.loads((tmp_path / "out" / "experiment.json").read_text())["effects"] == found["effects"]
    assert "<h2>Effects</h2>" in (tmp_path / "out" / "report.html").read_text()


def test_the_oracle_is_above_popularity_and_both_are_the_ends(logs: Path, tmp_path: Path) -> None:
    arms = {"oracle": "oracle", "popularity": "popularity"}
    found = api.experiment(arms, tmp_path / "out", logs=logs, users=120, days=2)
    effect = next(e for e in found["effects"] if e["metric"] == "pv_ctr")
    assert effect["ci95"][0] > 0 and effect["users"] == 120
    assert found["between_floor_and_ceiling"] == {
        "oracle": {"pv_ctr": 1, "uv_cvr": 1, "gmv_per_user": 1}, "popularity": {"pv_ctr": 0, "uv_cvr": 0, "gmv_per_user": 0},
    }  # fmt: skip
    assert [e["day"] for e in found["looks"] if e["metric"] == "pv_ctr"] == [1, 2]


def test_a_user_s_days_do_not_depend_on_who_else_lives_and_the_past_stays_as_it_is() -> None:
    city = build_city(120, 3, 2)
    past, _ = past_lives(city, np.arange(40), 0)
    together, again = live(past, Oracle(), 2), live(past, Oracle(), 2)
    alone = live(past_lives(city, np.arange(10, 20), 0)[0], Oracle(), 2)
    for name in MEASURES:
        assert np.array_equal(together[name], again[name])
        assert np.array_equal(together[name][10:20], alone[name])
    assert together["clicks"].sum() > 0


def test_users_from_the_first_asked_for_on_live_as_they_do_among_all(logs: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for out, users, first in (("all", 120, 0), ("some", 10, 40)):
        api.experiment({"oracle": "oracle"}, tmp_path / out, logs=logs, users=users, first_user=first, days=1)
    everyone, some = (pq.read_table(tmp_path / out / "cells" / "oracle-0000.parquet") for out in ("all", "some"))
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
    assert kinds.count("click") == sums["clicks"].sum() and kinds.count("order") == sums["orders"].sum() and "view" in kinds
    assert len({event["id"] for event in arm.heard}) == len(arm.heard)
    click = next(event for event in arm.heard if event.get("type") == "click")
    assert click["ranking"] == f"r{int(click['user'][1:])}.{click['id'].split('.')[1]}" and click["item"].startswith("p")
    assert min(event["timestamp"] for event in arm.heard) >= city.day_start_ms(3)


def test_what_is_finished_is_kept(logs: Path, tmp_path: Path) -> None:
    def run(**more: int) -> dict[str, object]:
        return api.experiment({"a": "oracle", "b": "popularity"}, tmp_path / "out", logs=logs, **{"users": 30, "days": 1, **more})  # type: ignore[arg-type]

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
        ({"a": "nobody"}, {}, r"--arm NAME=nobody: expected http://HOST:PORT or one of oracle, popularity"),
        ({"a": "oracle"}, {"users": 500}, r"--users 500: expected 1 to 120"),
        ({"a": "oracle"}, {"first_user": 115}, r"--users 10: expected 1 to 5, the users of .* from --first-user 115 on"),
        ({"a": "oracle"}, {"first_user": 120}, r"--first-user 120: expected 0 to 119"),
        ({"before": "oracle"}, {}, r"--arm before: expected a name"),
        ({}, {}, r"--arm: expected at least one"),
        ({"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:1"}, {}, r"two arms of one server would share its histories"),
        ({"a": "http://127.0.0.1:1"}, {"patience_seconds": 0.0}, r"--arm a: does not answer"),
    ):
        with pytest.raises(UsageError, match=why):
            api.experiment(arms, tmp_path / "out", logs=logs, **{"users": 10, "days": 1, **more})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"city\.json: missing: --logs names a folder of hemix simulate"):
        api.experiment({"a": "oracle"}, tmp_path / "out", logs=tmp_path, users=10, days=1)


def test_one_policy_for_both_sides_100_divisions_of_users_and_the_intervals_hold_no_difference() -> None:
    """A/A, split design with CUPED: what users do does not depend on the side, so they live once and are divided 100 times."""
    users = np.arange(400)
    past, before = past_lives(build_city(400, 3, 4), users, 3)
    lived = live(past, Popularity(), 3)
    held = dict.fromkeys(("pv_ctr", "uv_cvr", "gmv_per_user"), 0)
    for seed in range(100):
        side = arm_of(users, Plan(arms={}, logs="", users=400, days=3, seed=seed), ["a", "b"])
        assert 150 < side.sum() < 250
        rows = {name: side == i for i, name in enumerate(("a", "b"))}
        arms = {name: (users[of], {m: values[of] for m, values in lived.items()}) for name, of in rows.items()}
        then = {name: {m: values[of] for m, values in before.items()} for name, of in rows.items()}
        for effect in analyse(arms, paired=False, before=then)["effects"]:
            if effect["metric"] in held:
                held[effect["metric"]] += effect["ci95"][0] <= 0 <= effect["ci95"][1]
    assert all(90 <= count <= 100 for count in held.values()), held
