"""The logs folder that `hemix simulate` writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hemix.errors import UsageError
from hemix.features import CalendarField, Categorical, Coordinates, Distance
from hemix.lab.simulator import simulate, writer
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.schema import Schema
from tests.lab.simulator.conftest import USERS, LogsFolder
from tests.refusals import raises

FILES = [
    "events.parquet",
    "impressions.parquet",
    "items.parquet",
    "schema.yaml",
    "truth/city.json",
    "truth/impressions.parquet",
    "users.parquet",
]


def file_hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def test_the_same_seed_gives_the_same_bytes(logs: LogsFolder, tmp_path: Path) -> None:
    assert list(file_hashes(logs.folder)) == FILES
    for name, seed in (("first", 1), ("repeated", 1), ("other", 2)):
        simulate(tmp_path / name, users=20, days=3, seed=seed)
    first, other = file_hashes(tmp_path / "first"), file_hashes(tmp_path / "other")
    assert file_hashes(tmp_path / "repeated") == first
    different = {name for name in FILES if other[name] != first[name]}
    assert different == set(FILES) - {"schema.yaml"}


def test_rows_do_not_depend_on_the_chunk_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simulate(tmp_path / "whole", users=40, days=3, seed=0)
    monkeypatch.setattr(writer, "_CHUNK_USERS", 20)
    assert simulate(tmp_path / "chunked", users=40, days=3, seed=0) == whole
    for name in FILES:
        if name.endswith(".parquet"):
            assert pq.read_table(tmp_path / "chunked" / name).equals(
                pq.read_table(tmp_path / "whole" / name)
            ), name
    assert pq.ParquetFile(tmp_path / "chunked" / "events.parquet").num_row_groups == 2


def test_the_schema_names_existing_columns(logs: LogsFolder) -> None:
    schema = Schema.load(logs.folder / "schema.yaml")
    assert schema.tables.truth == "truth/impressions.parquet"
    assert (schema.split.valid, schema.split.test) == ("2026-01-07", "2026-01-08")
    assert schema.clock.timezone == PARAMETERS.timezone
    columns = {
        name: set(pq.read_schema(logs.folder / f"{name}.parquet").names)
        for name in ("impressions", "events", "items", "users")
    }
    assert {
        schema.user,
        schema.item,
        schema.clock.column,
        "click",
        "order",
        "order_time_ms",
    } <= columns["impressions"]
    assert schema.roles.bias is not None
    assert {schema.roles.request_id, schema.roles.bias.column} <= columns["impressions"]
    assert {schema.user, schema.item, schema.clock.column, "action"} <= columns["events"]
    assert isinstance(tags := schema.features.item["tags"], Categorical) and tags.multi
    table_of_level = {
        "user": "users",
        "item": "items",
        "context": "impressions",
        "cross": "impressions",
    }
    for level, name, feature in schema.features:
        if isinstance(feature, CalendarField | Distance):
            continue
        used_columns = (
            {feature.latitude, feature.longitude}
            if isinstance(feature, Coordinates)
            else {feature.column or name}
        )
        assert used_columns <= columns[table_of_level[level]], f"{level}.{name}"


def test_the_score_adds_the_root_of_the_price_for_an_order(logs: LogsFolder) -> None:
    score = Schema.load(logs.folder / "schema.yaml").score_expression
    assert set(score.names) == {"click", "order", "price"}
    assert score.evaluate({"click": 0.1, "order": 0.02, "price": 100.0}) == pytest.approx(
        0.1 + 0.02 * 10
    )


def test_the_truth_has_one_row_per_impression_in_the_same_order(logs: LogsFolder) -> None:
    shown = pq.read_table(logs.folder / "impressions.parquet")
    truth = pq.read_table(logs.folder / "truth" / "impressions.parquet")
    assert truth.num_rows == shown.num_rows == logs.counts["impressions"]
    p, q = truth["p_click"].to_numpy(), truth["p_order_given_click"].to_numpy()
    np.testing.assert_allclose(truth["p_order"].to_numpy(), p * q)
    click = shown["click"].to_numpy()
    # shifted by one row, clicked impressions would have about the mean probability of all
    assert p[click == 1].mean() > 2 * p.mean()
    assert np.roll(p, 1)[click == 1].mean() < 1.5 * p.mean()
    assert not {"p_click", "p_order", "intent"} & set(shown.column_names)


def test_logged_ids_occur_in_the_tables_of_users_and_items(logs: LogsFolder) -> None:
    items = pq.read_table(logs.folder / "items.parquet")["item_id"].to_pylist()
    users = pq.read_table(logs.folder / "users.parquet")["user_id"].to_pylist()
    assert users == [f"u{n:06d}" for n in range(USERS)] and items == [
        f"p{n:05d}" for n in range(logs.counts["items"])
    ]
    for name in ("impressions", "events"):
        table = pq.read_table(logs.folder / f"{name}.parquet")
        assert set(table["user_id"].to_pylist()) <= set(users) and set(
            table["item_id"].to_pylist()
        ) <= set(items)


def test_only_orders_have_a_time_and_an_amount(logs: LogsFolder) -> None:
    shown = pq.read_table(logs.folder / "impressions.parquet")
    price = dict(
        zip(
            *(
                pq.read_table(logs.folder / "items.parquet")[c].to_pylist()
                for c in ("item_id", "price")
            ),
            strict=True,
        )
    )
    orders = 0
    for row in shown.select(["item_id", "time_ms", "order", "order_time_ms", "amount"]).to_pylist():
        if row["order"]:
            orders += 1
            assert (
                row["order_time_ms"] > row["time_ms"] and row["amount"] % price[row["item_id"]] == 0
            )
        else:
            assert row["order_time_ms"] is None and row["amount"] is None
    assert orders == logs.counts["orders"] > 0


def test_a_request_has_one_page_and_one_context(logs: LogsFolder) -> None:
    shown = pq.read_table(logs.folder / "impressions.parquet").to_pydict()
    pages: dict[int, list[int]] = {}
    contexts: dict[int, set[tuple[object, ...]]] = {}
    for i, request in enumerate(shown["request_id"]):
        pages.setdefault(request, []).append(shown["position"][i])
        contexts.setdefault(request, set()).add(
            (shown["user_id"][i], shown["time_ms"][i], shown["latitude"][i])
        )
    assert all(
        positions == list(range(len(positions))) and len(positions) <= 10
        for positions in pages.values()
    )
    assert all(len(distinct) == 1 for distinct in contexts.values())
    assert len(pages) == logs.counts["requests"]


@pytest.mark.parametrize(
    ("users", "days", "field", "numbers"),
    [
        (0, 4, "--users", [1, 0]),
        (-3, 4, "--users", [1, -3]),
        (10, 0, "--days", [3, 0]),
        (10, 2, "--days", [3, 2]),
    ],
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, users: int, days: int, field: str, numbers: list[int]
) -> None:
    with raises(UsageError, *numbers, field=field):
        simulate(tmp_path / "parent" / "logs", users=users, days=days, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with raises(UsageError, tmp_path, code="out_exists", field="--out"):
        simulate(tmp_path, users=10, days=3, seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interruption_leaves_no_files(tmp_path: Path) -> None:
    def interrupt(_stage: str, fraction: float) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "logs", users=10, days=3, seed=0, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_city_of_one_user_has_logs_and_progress_that_ascends_to_1(tmp_path: Path) -> None:
    progress: list[float] = []
    counts = simulate(
        tmp_path / "logs",
        users=1,
        days=3,
        seed=0,
        on_progress=lambda _stage, fraction: progress.append(fraction),
    )
    assert counts["users"] == 1 and progress == sorted(progress) and progress[-1] == 1.0
    assert (
        pq.read_table(tmp_path / "logs" / "impressions.parquet").num_rows == counts["impressions"]
    )
