"""EB-NeRD imports: exact tables, events that come once, and malformed files."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.errors import DataError, UsageError
from hemix.lab.datasets import ImportOptions, import_logs
from hemix.preparation.pipeline import prepare
from hemix.schema import Schema
from tests.lab.datasets.test_kuairand import rows_of
from tests.refusals import raises

START = datetime(2023, 5, 18, 7)  # of the train file
START_MS = 1_684_393_200_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
VALIDATION = 7 * 24  # hours after START

IDS = pa.list_(pa.int32())
BEHAVIORS = pa.schema(
    {
        "impression_id": pa.uint32(),
        "article_id": pa.int32(),
        "impression_time": pa.timestamp("us"),
        "read_time": pa.float32(),
        "scroll_percentage": pa.float32(),
        "device_type": pa.int8(),
        "article_ids_inview": IDS,
        "article_ids_clicked": IDS,
        "user_id": pa.uint32(),
        "is_sso_user": pa.bool_(),
        "gender": pa.int8(),
        "postcode": pa.int8(),
        "age": pa.int8(),
        "is_subscriber": pa.bool_(),
        "session_id": pa.uint32(),
        "next_read_time": pa.float32(),
        "next_scroll_percentage": pa.float32(),
    }
)
HISTORY = pa.schema(
    {
        "user_id": pa.uint32(),
        "impression_time_fixed": pa.list_(pa.timestamp("us")),
        "scroll_percentage_fixed": pa.list_(pa.float32()),
        "article_id_fixed": IDS,
        "read_time_fixed": pa.list_(pa.float32()),
    }
)
ARTICLES = pa.schema(
    {
        "article_id": pa.int32(),
        "title": pa.string(),
        "premium": pa.bool_(),
        "published_time": pa.timestamp("us"),
        "article_type": pa.string(),
        "category": pa.int16(),
        "subcategory": pa.list_(pa.int16()),
        "total_inviews": pa.int32(),
        "sentiment_label": pa.string(),
    }
)


def shown(
    number: int, user: int, hours: float, in_view: list[int], clicked: list[int], **more: Any
) -> dict[str, Any]:
    row = {"impression_id": number, "user_id": user, "session_id": 1, "device_type": 2}
    row |= {"impression_time": START + timedelta(hours=hours), "read_time": 9.0}
    row |= {"article_ids_inview": in_view, "article_ids_clicked": clicked}
    return row | {"is_sso_user": True, "is_subscriber": False, "next_read_time": 5.0} | more


def history(user: int, *events: tuple[int, float, float | None]) -> dict[str, Any]:
    """Opened articles: article, hours after START, reading time (s)."""
    return {
        "user_id": user,
        "article_id_fixed": [article for article, _, _ in events],
        "impression_time_fixed": [START + timedelta(hours=hours) for _, hours, _ in events],
        "read_time_fixed": [read for _, _, read in events],
        "scroll_percentage_fixed": [50.0 for _ in events],
    }


def article(number: int, hours: float, **more: Any) -> dict[str, Any]:
    row = {"article_id": number, "title": "t", "premium": False, "article_type": "article_default"}
    row |= {"published_time": START + timedelta(hours=hours), "category": 118}
    return row | {"subcategory": [130, 131], "sentiment_label": "Neutral"} | more


TRAIN = [
    shown(1, 10, 0, [501, 502], [502]),
    shown(2, 10, 2, [503], [], article_id=502, scroll_percentage=80.0),  # 10 had opened 502
    shown(3, 11, 3, [502, 501], [501, 502], article_id=503, age=50),
    shown(4, 11, 150, [503], [503]),  # within the last day before validation
]
TEST = [shown(5, 10, VALIDATION, [504, 999], [], article_id=504)]
TRAIN_HISTORY = [history(10, (501, -48, 12.0), (502, -1, float("nan"))), history(12)]
TEST_HISTORY = [history(10, (502, 1.5, 7.0))]  # user 11 is not in it
ARTICLE_ROWS = [article(n, -10) for n in (503, 502, 501)] + [article(504, VALIDATION - 0.5)]


def write_ebnerd(folder: Path, **changes: list[dict[str, Any]]) -> Path:
    """Write all files; ``changes`` replaces the rows of TRAIN, TRAIN_HISTORY, TEST and so on."""
    files = {
        "train/behaviors": (BEHAVIORS, changes.get("train", TRAIN)),
        "train/history": (HISTORY, changes.get("train_history", TRAIN_HISTORY)),
        "validation/behaviors": (BEHAVIORS, changes.get("test", TEST)),
        "validation/history": (HISTORY, changes.get("test_history", TEST_HISTORY)),
        "articles": (ARTICLES, changes.get("articles", ARTICLE_ROWS)),
    }
    for name, (schema, rows) in files.items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return folder


def test_lists_in_view_become_impressions(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    counts = import_logs("ebnerd", write_ebnerd(tmp_path / "raw"), out)
    assert counts == {"events": 5, "impressions": 8, "items": 4}
    columns = ("impression_id", "user_id", "time_ms", "page", "article_id", "click")
    assert rows_of(out / "impressions.parquet", columns) == [
        (1, 10, START_MS, "front", 501, 0),
        (1, 10, START_MS, "front", 502, 1),
        (2, 10, START_MS + 2 * HOUR_MS, "article", 503, 0),
        (3, 11, START_MS + 3 * HOUR_MS, "article", 502, 1),
        (3, 11, START_MS + 3 * HOUR_MS, "article", 501, 1),
        (4, 11, START_MS + 150 * HOUR_MS, "front", 503, 1),
        (5, 10, START_MS + 7 * DAY_MS, "article", 504, 0),
        (5, 10, START_MS + 7 * DAY_MS, "article", 999, 0),
    ]
    more = rows_of(out / "impressions.parquet", ["article_age_hours", "age", "is_sso_user"])
    assert more[0] == (10.0, None, 1)
    assert more[3] == (13.0, 50, 1)
    assert [age for age, _, _ in more[6:]] == [0.5, None]  # 999 is no known article
    later = {"read_time", "scroll_percentage", "next_read_time", "next_scroll_percentage"}
    assert not later & set(pq.read_schema(out / "impressions.parquet").names)
    assert "total_inviews" not in pq.read_schema(out / "items.parquet").names


def test_opened_articles_become_events_once(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    import_logs("ebnerd", write_ebnerd(tmp_path / "raw"), out)
    events = rows_of(out / "events.parquet")
    assert [(u, a, (t - START_MS) / HOUR_MS, read, s) for u, a, t, read, s, _ in events] == [
        (10, 501, -48, 12, 50),
        (10, 502, -1, None, 50),
        (10, 502, 1.5, 7, 50),  # of the second history, and not again from impression 2
        (11, 503, 3, 9, None),
        (10, 504, VALIDATION, 9, None),
    ]
    assert {action for *_, action in events} == {"open"}


def test_the_day_before_validation_validates_and_the_logs_prepare(tmp_path: Path) -> None:
    import_logs("ebnerd", write_ebnerd(tmp_path / "raw"), tmp_path / "logs")
    schema = Schema.load(tmp_path / "logs" / "schema.yaml")
    test = START_MS + 7 * DAY_MS
    assert (schema.split.valid, schema.split.test) == (test - DAY_MS, test)
    prepare(tmp_path / "logs", tmp_path / "data")
    splits = Dataset(tmp_path / "data").manifest["splits"]
    assert {name: (split["requests"], split["rows"]) for name, split in splits.items()} == {
        "train": (3, 5),
        "valid": (1, 1),
        "test": (1, 2),
    }


@pytest.mark.parametrize(
    ("file", "changes", "field"),
    [
        (
            "train/history",
            {"train_history": [history(12), {**history(10, (501, -1, 1)), "read_time_fixed": []}]},
            "read_time_fixed",
        ),
        ("train/behaviors", {"train": [TRAIN[0], {**TRAIN[1], "user_id": None}]}, "user_id"),
        (
            "validation/behaviors",
            {"test": [TEST[0], {**TEST[0], "article_ids_inview": [None]}]},
            "article_ids_inview",
        ),
        (
            "articles",
            {"articles": [ARTICLE_ROWS[0], article(9, 0, published_time=None)]},
            "published_time",
        ),
    ],
)
def test_malformed_rows_are_refused(
    tmp_path: Path, file: str, changes: dict[str, Any], field: str
) -> None:
    raw_folder = write_ebnerd(tmp_path / "raw", **changes)
    with raises(DataError, raw_folder / f"{file}.parquet", "row 2", field=field):
        import_logs("ebnerd", raw_folder, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_missing_files_wrong_times_and_options_are_refused(tmp_path: Path) -> None:
    raw_folder = write_ebnerd(tmp_path / "raw", test=[shown(5, 10, 1, [501], [])])
    test = raw_folder / "validation" / "behaviors.parquet"
    with raises(DataError, test, code="wrong_times", field=test):
        import_logs("ebnerd", raw_folder, tmp_path / "logs")
    test.unlink()
    with raises(DataError, code="missing_file", field=test):
        import_logs("ebnerd", raw_folder, tmp_path / "logs")
    with raises(UsageError, field="--protocol"):
        import_logs("ebnerd", raw_folder, tmp_path / "logs", ImportOptions(protocol="techjam"))
