"""KuaiRand imports: exact tables of both layouts, and of the real slice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError
from hemix.features import Categorical, Numeric
from hemix.lab.datasets import ImportOptions, import_logs, raw_files
from hemix.schema import Schema
from tests.lab.datasets.kuairand_files import ROWS, log_row, write_official, write_pure, write_slice
from tests.refusals import raises

SLICE = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "kuairand_pure"

EVENTS = [  # user, video, time, action, tab, play_share, position
    (7, 1, 1000, "impression", 1, 0.0, None),
    (7, 2, 2000, "click", 0, 0.25, None),
    (7, 1, 3000, "long", 1, 1.5, None),
    (8, 2, 4000, "like", 1, None, None),
    (8, 1, 5000, "impression", 1, None, None),
    (8, 1, 5000, "like", 1, 0.0, None),
]
TIMELESS = [
    (7, 1, None, "watch", None, None, 0),
    (7, 2, None, "like", None, None, 1),
    (7, 1, None, "watch", None, None, 2),
    (7, 4, None, "long", None, None, 3),
    (8, 2, None, "watch", None, None, 0),
]


def rows_of(path: Path, columns: Iterable[str] | None = None) -> list[tuple[Any, ...]]:
    table = pq.read_table(path, columns=list(columns) if columns else None)
    return [tuple(row.values()) for row in table.to_pylist()]


def assert_tables(out: Path) -> None:
    columns = ("user_id", "video_id", "date", "hourmin", "time_ms", "tab", "click", "long_view")
    assert rows_of(out / "impressions.parquet", columns) == [
        (7, 1, 20220425, 0, 1000, 1, 0, 0),
        (7, 2, 20220425, 0, 2000, 0, 1, 0),
        (7, 1, 20220505, 0, 3000, 1, 1, 1),
        (8, 2, 20220425, 0, 4000, 1, 1, 1),
        (8, 1, 20220507, 0, 5000, 1, 0, 0),  # a long view without a click is none
        (8, 1, 20220425, 1800, 5000, 1, 0, 0),
    ]
    columns = (
        "video_id",
        "author_id",
        "upload_day",
        "video_duration",
        "music_id",
        "music_type",
        "tag",
        "tag_first",
    )
    assert rows_of(out / "items.parquet", columns) == [
        (1, 70, 10, 9000, 9155697141, 9, ["20", "43"], "20"),
        (2, 71, 19092, None, 5, None, None, None),
    ]
    columns = (
        "user_id",
        "user_active_degree",
        "fans_user_num_range",
        "register_days",
        "onehot_feat4",
        "onehot_feat17",
    )
    assert rows_of(out / "users.parquet", columns) == [
        (7, "full_active", "[100,1k)", 3, None, 3),
        (8, "full_active", "[100,1k)", 3, None, 3),
    ]


def assert_schema_fits(out: Path) -> Schema:
    """Every column that the schema names is in its table."""
    schema = Schema.load(out / "schema.yaml")
    names = {
        table: set(pq.read_schema(out / file).names)
        for table in ("impressions", "events", "items", "users")
        if (file := getattr(schema.tables, table)) is not None
    }
    table_of = {"user": "users", "context": "impressions", "item": "items", "cross": "impressions"}
    for level, name, feature in schema.features:
        if isinstance(feature, Categorical | Numeric):
            assert (feature.column or name) in names[table_of[level]]
    for name, field in schema.event_fields.items():
        if isinstance(field, Categorical | Numeric):
            assert (field.column or name) in names["events"]
    for name, label in schema.labels.items():
        assert (label.column or name) in names["impressions"]
    assert {schema.user, schema.item, schema.clock.column} <= names["impressions"] & names["events"]
    assert schema.item in names["items"]
    assert schema.user in names["users"]
    assert schema.split.column in names["impressions"]
    return schema


def test_import_of_the_official_layout(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    assert import_logs("kuairand", write_pure(tmp_path / "raw"), out) == {
        "impressions": 6,
        "events": 6,
        "items": 2,
        "users": 2,
    }
    assert_tables(out)
    assert rows_of(out / "events.parquet") == EVENTS
    schema = assert_schema_fits(out)
    assert (schema.name, schema.history.global_length, schema.history.realtime_length) == (
        "kuairand-pure",
        1000,
        100,
    )
    assert sorted(p.name for p in out.iterdir()) == [
        "events.parquet",
        "impressions.parquet",
        "items.parquet",
        "schema.yaml",
        "users.parquet",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs", "raw"]


def test_slice_has_timeless_events_first(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    summary = import_logs("kuairand", write_slice(tmp_path / "raw"), out)
    assert summary == {"impressions": 6, "events": 11, "items": 2, "users": 2}
    assert_tables(out)
    assert rows_of(out / "events.parquet") == TIMELESS + EVENTS
    schema = assert_schema_fits(out)
    assert (schema.split.column, schema.split.valid, schema.split.test) == (
        "date",
        20220505,
        20220507,
    )
    assert (schema.history.global_length, schema.history.realtime_length) == (200, 50)
    assert schema.labels["long_view"].given == "click"


def test_27k_reads_both_files_of_both_logs_in_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_files, "BLOCK_BYTES", 512)  # less than three rows
    logs = {
        "log_standard_4_08_to_4_21:_part1": [log_row(7, 1, t) for t in range(1, 31)],
        "log_standard_4_08_to_4_21:_part2": [log_row(8, 1, t) for t in range(31, 33)],
        "log_standard_4_22_to_5_08:_part1": [log_row(7, 2, 33)],
        "log_standard_4_22_to_5_08:_part2": [log_row(8, 2, 34)],
    }
    out = tmp_path / "logs"
    import_logs("kuairand", write_official(tmp_path / "raw", "27k", logs, data=False), out)
    assert rows_of(out / "impressions.parquet", ["time_ms"]) == [(t,) for t in range(1, 35)]
    assert pq.ParquetFile(out / "impressions.parquet").num_row_groups > 5


def test_random_log_is_read_only_on_request(tmp_path: Path) -> None:
    logs = {
        "log_standard_4_08_to_4_21": ROWS[:1],
        "log_standard_4_22_to_5_08": ROWS[1:2],
        "log_random_4_22_to_5_08": [log_row(7, 2, 9000, is_rand=1)],
    }
    raw_folder = write_official(tmp_path / "raw", "1k", logs)
    assert import_logs("kuairand", raw_folder, tmp_path / "without")["impressions"] == 2
    assert (
        import_logs("kuairand", raw_folder, tmp_path / "with", ImportOptions(random_log=True))[
            "impressions"
        ]
        == 3
    )
    assert rows_of(tmp_path / "with" / "impressions.parquet", ["time_ms", "is_rand"]) == [
        (1000, 0),
        (2000, 0),
        (9000, 1),
    ]
    pure = write_pure(tmp_path / "pure")
    missing = pure / "data" / "log_random_4_22_to_5_08_pure.csv"
    with raises(DataError, code="missing_file", field=missing):
        import_logs("kuairand", pure, tmp_path / "none", ImportOptions(random_log=True))


def test_import_is_deterministic(tmp_path: Path) -> None:
    raw_folder = write_slice(tmp_path / "raw")
    for name in ("a", "b"):
        import_logs("kuairand", raw_folder, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


# -- the real slice --------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.skipif(
    not SLICE.is_dir(), reason="the KuaiRand slice is not in ../shared/data/kuairand_pure"
)
def test_import_of_the_real_slice(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    summary = import_logs("kuairand", SLICE, out)
    history = pq.read_table(SLICE / "user_history_to_20220424.parquet", columns=["watch_seq"])[
        "watch_seq"
    ]
    watched = sum(map(len, history.to_pylist()))
    assert summary == {
        "impressions": 222_869,
        "events": watched + 222_869,
        "items": 7583,
        "users": 27_285,
    }
    assert_schema_fits(out)
    log = pq.read_table(out / "impressions.parquet")
    assert log["click"].to_numpy().mean() == pytest.approx(0.449, abs=5e-4)
    assert log["long_view"].to_numpy().mean() == pytest.approx(0.316, abs=1e-3)
    assert (
        log.group_by(log.column_names).aggregate([]).num_rows == 222_869
    )  # no two rows are equal in every column
    days = log["date"].to_numpy()
    assert [(days < 20220505).sum(), (days >= 20220507).sum()] == [167_281, 28_905]
    events = pq.read_table(out / "events.parquet")
    assert events["time_ms"].null_count == events["tab"].null_count == watched
    assert events["play_share"].null_count == watched + 3568
