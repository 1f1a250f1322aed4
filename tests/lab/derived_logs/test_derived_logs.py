"""Derived logs: what each kind promises, and the frozen digests of the suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hemix import api
from hemix.api.types import DerivedLogName
from hemix.errors import UsageError
from hemix.lab.datasets import import_logs
from hemix.lab.derived_logs import DERIVATIONS, derive_logs, logs_digest
from hemix.lab.simulator import simulate
from hemix.schema import Schema
from tests.made_once import make_once
from tests.refusals import raises

DIGESTS: dict[str, dict[str, str]] = yaml.safe_load(
    Path(__file__).with_name("digests.yaml").read_text()
)
USERS, DAYS, MAX_ROWS = 60, 4, 2000
VALID_MS = 1_767_715_200_000  # 2026-01-07 in Shanghai


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(
        tmp_path_factory,
        "derived/city",
        lambda out: simulate(out, users=USERS, days=DAYS, seed=0),
    )


@pytest.fixture(scope="session")
def derived(city: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All kinds, made from the small city; read only."""

    def make(out: Path) -> None:
        for name in DERIVATIONS:
            derive_logs(name, city, out / name, max_rows=MAX_ROWS)

    folder = make_once(tmp_path_factory, "derived/logs", make)
    return {name: folder / name for name in DERIVATIONS}


def table(folder: Path, name: str = "impressions") -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")


def column(folder: Path, name: str, of: str = "impressions") -> np.ndarray:
    return np.array(table(folder, of)[name].to_pylist())


@pytest.mark.parametrize("name", DERIVATIONS)
def test_the_small_citys_logs_have_the_frozen_digests(name: str, derived: dict[str, Path]) -> None:
    assert logs_digest(derived[name]) == DIGESTS["small"][name]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["daily_items", "small_log", "unseen_items"])
def test_the_suites_kuairand_logs_have_the_frozen_digests(
    name: str, kuairand: Path, tmp_path: Path
) -> None:
    import_logs("kuairand", kuairand, tmp_path / "logs")
    derive_logs(name, tmp_path / "logs", tmp_path / name)
    assert logs_digest(tmp_path / name) == DIGESTS["suite"][name]


@pytest.mark.slow
def test_the_suites_city_logs_have_the_frozen_digests(tmp_path: Path) -> None:
    simulate(tmp_path / "logs", users=3230, days=8, seed=0)
    names = ("long_lists", "untimed_history", "anonymous_requests", "drawn_negatives")
    for name in names:
        derive_logs(name, tmp_path / "logs", tmp_path / name)
    assert {name: logs_digest(tmp_path / name) for name in names} == {
        name: DIGESTS["suite"][name] for name in names
    }


@pytest.mark.parametrize("name", DERIVATIONS)
def test_every_kind_can_be_prepared(name: str, derived: dict[str, Path], tmp_path: Path) -> None:
    manifest = api.prepare(derived[name], tmp_path / "data")
    rows = {split: entry["rows"] for split, entry in manifest["splits"].items()}
    assert sum(rows.values()) == table(derived[name]).num_rows
    assert min(rows.values()) > 100


def test_the_api_names_every_kind() -> None:
    assert get_args(DerivedLogName) == tuple(DERIVATIONS)


def test_users_are_drawn_whole(city: Path, derived: dict[str, Path]) -> None:
    users, counts = np.unique(column(derived["small_log"], "user_id"), return_counts=True)
    of_source = dict(zip(*np.unique(column(city, "user_id"), return_counts=True), strict=True))
    assert counts.tolist() == [of_source[user] for user in users]
    assert counts.sum() <= MAX_ROWS
    assert set(column(derived["small_log"], "user_id", "events")) <= set(users)
    assert set(column(derived["small_log"], "user_id", "users")) == set(users)


def test_known_probabilities_stay_with_their_impressions(
    city: Path, derived: dict[str, Path]
) -> None:
    def pairs(folder: Path, truth: str) -> set[tuple[Any, ...]]:
        shown = [column(folder, name) for name in ("request_id", "position")]
        return set(zip(*shown, column(folder, "p_click", truth), strict=True))

    assert pairs(derived["unseen_items"], "truth") < pairs(city, "truth/impressions")


def test_another_seed_draws_other_users(city: Path, tmp_path: Path) -> None:
    derive_logs("small_log", city, tmp_path / "a", max_rows=500, seed=1)
    derive_logs("small_log", city, tmp_path / "b", max_rows=500, seed=1)
    derive_logs("small_log", city, tmp_path / "c", max_rows=500, seed=2)
    digests = [logs_digest(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_daily_items_are_shown_on_one_day(derived: dict[str, Path]) -> None:
    logs = derived["daily_items"]
    items, time_ms = column(logs, "item_id"), column(logs, "time_ms")
    days = (time_ms + 8 * 3_600_000) // 86_400_000
    assert all(len(set(days[items == item])) == 1 for item in set(items))
    assert not set(items[time_ms < VALID_MS]) & set(items[time_ms >= VALID_MS])
    assert all(re.fullmatch(r"p\d{5}@2026-01-0[5-8]", item) for item in items)
    assert set(items) | set(column(logs, "item_id", "events")) == set(
        column(logs, "item_id", "items")
    )


def test_daily_items_have_the_features_of_their_item(city: Path, derived: dict[str, Path]) -> None:
    chain = dict(zip(column(city, "item_id", "items"), column(city, "price", "items"), strict=True))
    logs = derived["daily_items"]
    ids, prices = column(logs, "item_id", "items"), column(logs, "price", "items")
    assert prices.tolist() == [chain[item.partition("@")[0]] for item in ids]


def test_long_lists_have_25_positions(derived: dict[str, Path]) -> None:
    logs = derived["long_lists"]
    _, lengths = np.unique(column(logs, "request_id"), return_counts=True)
    assert np.median(lengths) == lengths.max() == 25
    bias = Schema.load(logs / "schema.yaml").roles.bias
    assert bias is not None and bias.max == 25
    truth, position = column(logs, "p_click", "truth"), column(logs, "position")
    log_odds = np.log(truth / (1 - truth))
    fall = log_odds[position == 20].mean() - log_odds[position == 0].mean()
    assert -4.6 < fall < -3.2  # -3.65, and what the ranking of the pages adds


def test_untimed_histories_hold_the_past_alone(city: Path, derived: dict[str, Path]) -> None:
    logs = derived["untimed_history"]
    events = table(logs, "events")
    assert events["time_ms"].null_count == events.num_rows
    first = column(logs, "time_ms").min()
    past = column(city, "time_ms", "events") < first
    of_users = np.isin(column(city, "user_id", "events"), column(logs, "user_id"))
    assert events.num_rows == (past & of_users).sum()
    assert "hour" not in Schema.load(logs / "schema.yaml").history.fields


def test_anonymous_requests_have_no_users(derived: dict[str, Path]) -> None:
    logs = derived["anonymous_requests"]
    assert "user_id" not in table(logs).column_names
    assert sorted(path.stem for path in logs.glob("*.parquet")) == ["impressions", "items", "truth"]
    schema = Schema.load(logs / "schema.yaml")
    assert schema.user == schema.roles.request_id == "request_id"
    assert list(schema.features.cross) == ["distance"]
    assert not schema.features.user
    assert [name for name, s in schema.statistics.items() if "user" in str(s.by)] == []


def test_anonymous_impressions_without_requests_get_ids(planted_logs: Path, tmp_path: Path) -> None:
    schema = Schema.load(planted_logs / "schema.yaml")
    derive_logs("anonymous_requests", planted_logs, tmp_path / "out", max_rows=500)
    own = Schema.load(tmp_path / "out" / "schema.yaml")
    assert own.user == (schema.roles.request_id or "request_id")
    assert api.prepare(tmp_path / "out", tmp_path / "data")["splits"]["train"]["rows"] > 0


def test_drawn_negatives_are_other_items_near_by(city: Path, derived: dict[str, Path]) -> None:
    logs = derived["drawn_negatives"]
    click = column(logs, "click").reshape(-1, 10)
    items = column(logs, "item_id").reshape(-1, 10)
    assert (click.sum(axis=1) == 1).all()
    assert all(len(set(row)) == 10 for row in items)
    assert len(set(click.argmax(axis=1))) == 10  # no slot tells the positive
    assert (column(logs, "order").reshape(-1, 10)[click == 0] == 0).all()
    assert "position" not in table(logs).column_names
    assert set(column(logs, "action", "events")) == {"click"}
    places = {
        row["item_id"]: np.array([row["latitude"], row["longitude"]])
        for row in table(city, "items").to_pylist()
    }

    def distance(a: str, b: str) -> float:
        return float(np.linalg.norm(places[a] - places[b]))

    pairs = zip(items[:, 0], items[::-1, 5], strict=True)
    ordinary = np.median([distance(a, b) for a, b in pairs])
    positives = items[click == 1]
    near = np.median(
        [distance(p, q) for p, row in zip(positives, items, strict=True) for q in row if p != q]
    )
    assert near < ordinary / 2


def test_half_of_the_candidates_are_unseen(derived: dict[str, Path]) -> None:
    logs = derived["unseen_items"]
    items, time_ms = column(logs, "item_id"), column(logs, "time_ms")
    known = set(items[time_ms < VALID_MS])
    unseen = np.mean([item not in known for item in items[time_ms >= VALID_MS]])
    assert 0.49 < unseen < 0.62  # some were never shown before anyway
    events, event_ms = column(logs, "item_id", "events"), column(logs, "time_ms", "events")
    new = set(items[time_ms >= VALID_MS]) - known
    assert new & set(events[event_ms >= VALID_MS])


@pytest.mark.parametrize(
    ("name", "max_rows", "code", "field"),
    [
        ("nothing", None, "unknown_name", "name"),
        ("small_log", 0, "invalid_argument", "--max-rows"),
        ("long_lists", None, "not_a_city", "LOGS"),
    ],
)
def test_what_cannot_be_derived_is_refused(
    name: str, max_rows: int | None, code: str, field: str, planted_logs: Path, tmp_path: Path
) -> None:
    with raises(UsageError, code=code, field=field):
        derive_logs(name, planted_logs, tmp_path / "out", max_rows=max_rows)
    assert not (tmp_path / "out").exists()
