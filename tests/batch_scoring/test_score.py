"""``hemix score``: new rows in files, scored as the server and ``predict`` score them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hemix import ScoreOptions, score
from hemix.batch_scoring.ranked import best_rows
from hemix.data.dataset import Dataset
from hemix.errors import DataError, UsageError
from hemix.runs import Run
from tests.cli.run import Command
from tests.serving.parity import TOLERANCE, expected_scores

Logs = tuple[Path, Path, Path]


@pytest.fixture(params=["planted", "rich"])
def logs_data_run(request: pytest.FixtureRequest) -> Logs:
    logs, data, run = (
        request.getfixturevalue(f"{request.param}_{part}") for part in ("logs", "data", "run")
    )
    return logs, data, run


def of_the_test_split(logs: Path, data: Path, folder: Path, *, labels: bool) -> tuple[Path, Any]:
    """The test rows of the logs as a file of their own, and their rows in the log."""
    dataset = Dataset(data)
    schema = dataset.schema
    rows = np.sort(dataset.split("test").log_row.read())
    table = pq.read_table(logs / schema.tables.impressions).take(pa.array(rows))
    if not labels:
        columns = {label.column or name for name, label in schema.labels.items()}
        table = table.drop_columns([name for name in table.column_names if name in columns])
    path = folder / "new.parquet"
    pq.write_table(table.append_column("note", pa.array(rows)), path, row_group_size=100)
    return path, rows


def test_scores_are_those_of_predict(logs_data_run: Logs, tmp_path: Path) -> None:
    logs, data, run = logs_data_run
    schema = Run.load(run).schema
    assert schema.tables.events is not None
    new, log_rows = of_the_test_split(logs, data, tmp_path, labels=False)
    counts = score(run, new, tmp_path / "scores.parquet", events=logs / schema.tables.events)
    scores = pq.read_table(tmp_path / "scores.parquet")
    expected = expected_scores(Run.load(run), Dataset(data))
    assert scores["note"].to_pylist() == log_rows.tolist(), "rows keep their order and columns"
    for name in (*schema.outputs, "score"):
        of_predict = np.array([expected[row][name] for row in log_rows.tolist()])
        np.testing.assert_allclose(scores[name].to_numpy(), of_predict, atol=TOLERANCE)
    assert counts["rows"] == counts["written"] == len(log_rows)
    assert counts["cut_histories"] == 0


def test_two_processes_and_a_folder_of_files(
    rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    schema = Run.load(rich_run).schema
    assert schema.tables.events is not None and schema.tables.items is not None
    new, rows = of_the_test_split(rich_logs, rich_data, tmp_path, labels=True)
    table, half = pq.read_table(new), len(rows) // 2
    folder = tmp_path / "folder with spaces"
    folder.mkdir()
    pq.write_table(table.slice(0, half), folder / "a.parquet")
    pq.write_table(table.slice(half), folder / "b.parquet")
    events = rich_logs / schema.tables.events
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    score(rich_run, new, one, events=events)
    score(rich_run, folder, two, events=events, options=ScoreOptions(processes=2))
    of_one, of_two = pq.read_table(one), pq.read_table(two)
    assert of_one.column_names == of_two.column_names
    assert {f"predicted_{task}" for task in schema.tasks} <= set(of_one.column_names), (
        "labels of the rows keep their names"
    )
    np.testing.assert_allclose(
        of_one["score"].to_numpy(), of_two["score"].to_numpy(), atol=TOLERANCE
    )


def test_top_rows_of_every_request(
    rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    schema = Run.load(rich_run).schema
    assert schema.roles.request_id is not None
    new, _ = of_the_test_split(rich_logs, rich_data, tmp_path, labels=False)
    every, best = tmp_path / "every.parquet", tmp_path / "best.parquet"
    score(rich_run, new, every)
    counts = score(rich_run, new, best, options=ScoreOptions(top=2))
    by_request: dict[Any, list[float | None]] = {}
    for row in pq.read_table(every).to_pylist():
        by_request.setdefault(row[schema.roles.request_id], []).append(row["score"])

    def without_last(value: float | None) -> float:
        return math.inf if value is None else -value

    expected = [
        (request, rank, value)
        for request, scores in by_request.items()
        for rank, value in enumerate(sorted(scores, key=without_last)[:2], start=1)
    ]
    found = pq.read_table(best).select([schema.roles.request_id, "rank", "score"]).to_pylist()
    assert [tuple(row.values()) for row in found] == expected
    assert counts["written"] == len(expected) < counts["rows"]


def test_best_rows() -> None:
    """Requests in the order of their first rows, NaN last, equal scores in their order."""
    request = np.array([7, 3, 7, 7, 3], dtype=np.uint64)
    values = np.array([0.1, np.nan, 0.5, 0.5, 0.2])
    rows, rank = best_rows(request, values, 2)
    assert rows.tolist() == [2, 3, 4, 1]
    assert rank.tolist() == [1, 2, 1, 2]


def test_features_of_new_items_come_from_a_file(
    rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    """An unknown item with the features of a known one differs from it by its id alone; without
    features it is another one.
    """
    schema = Run.load(rich_run).schema
    assert schema.tables.events is not None and schema.tables.items is not None
    new, _ = of_the_test_split(rich_logs, rich_data, tmp_path, labels=False)
    rows = pq.read_table(new).slice(0, 20)
    items = pq.read_table(rich_logs / schema.tables.items)
    renamed = pc.binary_join_element_wise(
        pa.scalar("new "), rows[schema.item].cast(pa.string()), ""
    )
    position = rows.column_names.index(schema.item)
    pq.write_table(rows.set_column(position, schema.item, renamed), tmp_path / "renamed.parquet")
    at = items.column_names.index(schema.item)
    names = pc.binary_join_element_wise(pa.scalar("new "), items[schema.item].cast(pa.string()), "")
    pq.write_table(items.set_column(at, schema.item, names), tmp_path / "items.parquet")
    without = score(rich_run, tmp_path / "renamed.parquet", tmp_path / "a.parquet")
    given = score(
        rich_run,
        tmp_path / "renamed.parquet",
        tmp_path / "b.parquet",
        options=ScoreOptions(items=tmp_path / "items.parquet"),
    )
    assert (without["unknown_items"], given["unknown_items"]) == (20, 0)
    of_without, of_given = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    task = schema.tasks[0]
    assert of_without[task].to_pylist() != of_given[task].to_pylist()


@pytest.mark.parametrize("column", ["user", "item", "clock"])
def test_a_missing_column_is_named(
    rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path, column: str
) -> None:
    schema = Run.load(rich_run).schema
    name = schema.clock.column if column == "clock" else getattr(schema, column)
    new, _ = of_the_test_split(rich_logs, rich_data, tmp_path, labels=False)
    pq.write_table(pq.read_table(new).drop_columns([name]), tmp_path / "less.parquet")
    with pytest.raises(DataError) as caught:
        score(rich_run, tmp_path / "less.parquet", tmp_path / "out.parquet")
    assert (caught.value.code, caught.value.field) == ("missing_column", name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["less.parquet", "new.parquet"]


def test_a_file_without_rows_is_refused(
    rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    new, _ = of_the_test_split(rich_logs, rich_data, tmp_path, labels=False)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(new).slice(0, 0), empty)
    with pytest.raises(DataError) as caught:
        score(rich_run, empty, tmp_path / "out.parquet")
    assert (caught.value.code, caught.value.field) == ("no_rows", str(empty))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.parquet", "new.parquet"]


def test_a_wrong_value_leaves_nothing(
    rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    schema = Run.load(rich_run).schema
    new, _ = of_the_test_split(rich_logs, rich_data, tmp_path, labels=False)
    table = pq.read_table(new)
    users = table[schema.user].to_pylist()
    users[5] = None
    position = table.column_names.index(schema.user)
    kind = table.schema.field(schema.user).type
    pq.write_table(
        table.set_column(position, schema.user, pa.array(users, kind)), tmp_path / "null.parquet"
    )
    with pytest.raises(DataError) as caught:
        score(rich_run, tmp_path / "null.parquet", tmp_path / "out.parquet")
    assert "row 5" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.parquet", "null.parquet"]


def test_refusals(rich_run: Path, tmp_path: Path) -> None:
    def field(**options: Any) -> str | None:
        arguments = {"out": tmp_path / "out.parquet", **options}
        with pytest.raises(UsageError) as caught:
            score(rich_run, tmp_path / "new.parquet", **arguments)
        return caught.value.field

    assert field(out=tmp_path / "out.csv") == "--out"
    assert field(options=ScoreOptions(top=0)) == "--top"
    assert field(options=ScoreOptions(store="memory://"), events=tmp_path) == "--events"


def test_the_command(
    hemix: Command, rich_logs: Path, rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    new, rows = of_the_test_split(rich_logs, rich_data, tmp_path, labels=False)
    out = tmp_path / "out.parquet"
    code, printed, noted = hemix("score", rich_run, "--impressions", new, "--out", out, "--json")
    assert code == 0
    assert json.loads(printed)["written"] == len(rows) == pq.read_metadata(out).num_rows
    assert "--events" in noted, "a user is told that histories are empty"
    assert hemix("score", rich_run, "--impressions", new, "--out", out)[0] == 2
