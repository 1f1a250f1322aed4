"""KuaiRand imports: exact tables of both layouts, the real slice, and malformed files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError, UsageError
from hemix.features import Categorical, Numeric
from hemix.lab.datasets import import_logs, raw_files
from hemix.schema import Schema

SLICE = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "kuairand_pure"

LOG = [
    "user_id",
    "video_id",
    "date",
    "hourmin",
    "time_ms",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "play_time_ms",
    "duration_ms",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
    "is_rand",
    "tab",
]
USER = [
    "user_id",
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num",
    "follow_user_num_range",
    "fans_user_num",
    "fans_user_num_range",
    "friend_user_num",
    "friend_user_num_range",
    "register_days",
    "register_days_range",
    *(f"onehot_feat{i}" for i in range(18)),
]
VIDEO = [
    "video_id",
    "author_id",
    "video_type",
    "upload_dt",
    "upload_type",
    "visible_status",
    "video_duration",
    "server_width",
    "server_height",
    "music_id",
    "music_type",
    "tag",
]


def log_row(user: int, video: int, time_ms: int, **more: Any) -> dict[str, Any]:
    """Make a row of the log without any action, changed by ``more``."""
    row = dict.fromkeys(LOG, 0) | {
        "user_id": user,
        "video_id": video,
        "time_ms": time_ms,
        "date": 20220425,
        "tab": 1,
    }
    return row | {"duration_ms": 10_000} | more


USERS = [
    {
        **dict.fromkeys(USER, 3),
        "user_id": user,
        "user_active_degree": "full_active",
        "follow_user_num_range": "500+",
        "fans_user_num_range": "[100,1k)",
        "friend_user_num_range": "[1,5)",
        "register_days_range": "730+",
        "onehot_feat4": None,
    }
    for user in (7, 8)
]
VIDEOS = [
    dict(
        zip(
            VIDEO,
            (
                1,
                70,
                "NORMAL",
                date(1970, 1, 11),
                "Web",
                0.0,
                9000.0,
                720.0,
                1280.0,
                9155697141,
                9.0,
                "20,43",
            ),
            strict=True,
        )
    ),
    dict(
        zip(
            VIDEO,
            (2, 71, "AD", date(2022, 4, 10), "Kmovie", 0.0, None, 720.0, 1280.0, 5, None, None),
            strict=True,
        )
    ),
]
ROWS = [
    log_row(7, 1, 1000),
    log_row(7, 2, 2000, is_click=1, play_time_ms=2500, tab=0),
    log_row(7, 1, 3000, is_click=1, long_view=1, play_time_ms=15_000, date=20220505),
    log_row(8, 2, 4000, is_click=1, long_view=1, is_like=1, duration_ms=0, play_time_ms=5),
    log_row(8, 1, 5000, long_view=1, duration_ms=-1, date=20220507),
    log_row(8, 1, 5000, is_like=1, hourmin=1800, is_rand=1),
]
EVENTS = [  # user, video, time, action, tab, play_share, position
    (7, 1, 1000, "impression", 1, 0.0, None),
    (7, 2, 2000, "click", 0, 0.25, None),
    (7, 1, 3000, "long", 1, 1.5, None),
    (8, 2, 4000, "like", 1, None, None),
    (8, 1, 5000, "impression", 1, None, None),
    (8, 1, 5000, "like", 1, 0.0, None),
]


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_official(
    folder: Path, size: str, logs: dict[str, list[dict[str, Any]]], data: bool = True
) -> Path:
    """Write the official layout; ``logs`` maps ``NAME`` or ``NAME:SUFFIX`` of a log to its rows."""
    inside = folder / "data" if data else folder
    inside.mkdir(parents=True, exist_ok=True)
    for name, rows in logs.items():
        stem, _, suffix = name.partition(":")
        write_csv(inside / f"{stem}_{size}{suffix}.csv", LOG, rows)
    write_csv(inside / f"user_features_{size}.csv", USER, USERS)
    write_csv(inside / f"video_features_basic_{size}.csv", VIDEO, VIDEOS)
    return folder


def write_pure(folder: Path, rows: list[dict[str, Any]] = ROWS, **more: Any) -> Path:
    return write_official(
        folder,
        "pure",
        {"log_standard_4_08_to_4_21": rows[:2], "log_standard_4_22_to_5_08": rows[2:]},
        **more,
    )


def write_slice(folder: Path) -> Path:
    folder.mkdir()
    log = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "is_rand"} for row in ROWS])
    log = log.set_column(1, "video_id", log["video_id"].cast(pa.int16()))
    pq.write_table(log, folder / "log_standard_20220425_20220508.parquet")
    pq.write_table(pa.Table.from_pylist(USERS), folder / "user_features.parquet")
    pq.write_table(pa.Table.from_pylist(VIDEOS), folder / "video_features_basic.parquet")
    ids = pa.list_(pa.int16())
    history = pa.table(
        {
            "user_id": pa.array([7, 9, 8], pa.int32()),
            "history_len": pa.array([90, 0, 1], pa.int32()),
            "last_time_ms": pa.array([900, 0, 900], pa.int64()),
            # user 7: 1 twice; 5 is liked but was not watched; user 8: only 2 was watched, 1 is in
            # another user's lists
            "watch_seq": pa.array([[1, 2, 1, 4], [], [2]], ids),
            "like_seq": pa.array([[2, 5], [], []], ids),
            "long_watch_seq": pa.array([[4, 2], [], [1]], ids),
        }
    )
    pq.write_table(history, folder / "user_history_to_20220424.parquet")
    return folder


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
        import_logs("kuairand", raw_folder, tmp_path / "with", random_log=True)["impressions"] == 3
    )
    assert rows_of(tmp_path / "with" / "impressions.parquet", ["time_ms", "is_rand"]) == [
        (1000, 0),
        (2000, 0),
        (9000, 1),
    ]
    with pytest.raises(DataError, match=r"log_random_4_22_to_5_08_pure\.csv.*random exposure"):
        import_logs("kuairand", write_pure(tmp_path / "pure"), tmp_path / "none", random_log=True)


def test_import_is_deterministic(tmp_path: Path) -> None:
    raw_folder = write_slice(tmp_path / "raw")
    for name in ("a", "b"):
        import_logs("kuairand", raw_folder, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


# -- malformed files -------------------------------------------------------------------------------


def assert_rejected(raw_folder: Path, tmp_path: Path, message: str, **more: Any) -> None:
    """The import fails with a message of one line, and leaves no folder."""
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError, match=message) as caught:
        import_logs("kuairand", raw_folder, tmp_path / "new" / "logs", **more)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_missing_or_empty_folder_is_rejected(tmp_path: Path) -> None:
    assert_rejected(tmp_path / "absent", tmp_path, "absent: expected a folder .*does not exist")
    (tmp_path / "empty").mkdir()
    assert_rejected(
        tmp_path / "empty",
        tmp_path,
        "no files of kuairand; expected one of slice: .*log_standard_4_22_to_5_08_27k_part2.csv",
    )


def test_incomplete_or_ambiguous_layout_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    log = raw_folder / "data" / "log_standard_4_22_to_5_08_pure.csv"
    log.rename(tmp_path / "moved")
    assert_rejected(
        raw_folder,
        tmp_path,
        "data: layout pure of kuairand lacks log_standard_4_22_to_5_08_pure.csv$",
    )
    (tmp_path / "moved").rename(log)
    write_official(
        raw_folder,
        "1k",
        {"log_standard_4_08_to_4_21": ROWS, "log_standard_4_22_to_5_08": ROWS},
        data=False,
    )
    assert_rejected(
        raw_folder, tmp_path, "expected one layout of kuairand, found 1k in .*raw, pure in .*data"
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "7,1,20220505",
            "7,one,20220505",
            r"_5_08_pure.csv: line 2, video_id: expected a whole number, found 'one'",
        ),
        (
            "8,2,20220425,0,4000,1",
            "8,2,20220425,0,4000,2",
            r"_5_08_pure.csv: line 3, is_click: expected 0 or 1, found 2",
        ),
        (
            "8,2,20220425,0,4000,1",
            "8,2,20220425,0,4000,NaN",
            r"line 3, is_click: expected 0 or 1, found nothing",
        ),
        (
            "8,2,20220425,0,4000",
            "8,2,20220425,0,",
            r"line 3, time_ms: expected a value, found nothing",
        ),
        ("8,1,20220507", "8,1", r"line 4: expected 19 columns, found 18: '8,1,0,5000"),
        (
            "time_ms",
            "time",
            r"_5_08_pure.csv: no column time_ms; found user_id, video_id, date, hourmin, time,",
        ),
    ],
)
def test_malformed_log_line_is_rejected_with_its_position(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    edit(raw_folder / "data" / "log_standard_4_22_to_5_08_pure.csv", old, new)
    assert_rejected(raw_folder, tmp_path, message)


def test_malformed_feature_file_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    videos = raw_folder / "data" / "video_features_basic_pure.csv"
    edit(videos, "9000.0", "9000.5")
    assert_rejected(
        raw_folder,
        tmp_path,
        "video_features_basic_pure.csv: line 2, video_duration: expected a whole number, found "
        "9000.5",
    )
    edit(videos, "9000.5,720.0", "9000.0,wide")
    assert_rejected(
        raw_folder, tmp_path, "line 2, server_width: expected a whole number, found 'wide'"
    )
    videos.write_text("")
    assert_rejected(raw_folder, tmp_path, "video_features_basic_pure.csv: no column video_id")
    videos.write_text(",".join(VIDEO) + "\n")
    assert_rejected(
        raw_folder, tmp_path, "video_features_basic_pure.csv: expected items, found no row"
    )


def test_log_without_rows_is_rejected(tmp_path: Path) -> None:
    assert_rejected(
        write_pure(tmp_path / "raw", rows=[]),
        tmp_path,
        "log_standard_4_08_to_4_21_pure.csv: expected impressions, found no row",
    )


def test_malformed_parquet_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_slice(tmp_path / "raw")
    log = raw_folder / "log_standard_20220425_20220508.parquet"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert_rejected(
        raw_folder,
        tmp_path,
        "log_standard_20220425_20220508.parquet: not a Parquet file, or truncated",
    )
    log.write_bytes(whole)
    assert_rejected(
        raw_folder, tmp_path, "the slice has no log of random exposure", random_log=True
    )
    table = pq.read_table(log)
    pq.write_table(table.set_column(0, "user_id", pa.array(list("abcdef"))), log)
    assert_rejected(
        raw_folder, tmp_path, "user_id: expected a whole number in every row, found string"
    )
    pq.write_table(table.set_column(0, "user_id", pa.array([7, 7, None, 8, 8, 8])), log)
    assert_rejected(raw_folder, tmp_path, "row 3, user_id: expected a value, found nothing")


def test_unknown_name_and_existing_output_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="import netflix: unknown data set; known: kuairand, movielens"
    ):
        import_logs("netflix", tmp_path, tmp_path / "logs")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="full: exists already and is not empty"):
        import_logs("kuairand", tmp_path / "absent", tmp_path / "full")
    with pytest.raises(UsageError, match=r"mine.txt: exists already"):
        import_logs("kuairand", tmp_path / "absent", tmp_path / "full" / "mine.txt")
    (tmp_path / "empty").mkdir()
    import_logs("kuairand", write_slice(tmp_path / "raw"), tmp_path / "empty")
    assert (tmp_path / "empty" / "schema.yaml").exists()


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
