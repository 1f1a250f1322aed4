"""Import of EB-NeRD (Kruse et al., RecSys 2024): lists of news in view, with timed histories.

The folder ``train`` trains and validates, ``validation`` tests. The schema leaves out what is known
only later: reading times of the list, and an article's totals of its first seven days.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.errors import DataError
from hemix.lab.datasets.layouts import detect_layout
from hemix.lab.datasets.logs_writer import LogsWriter
from hemix.lab.datasets.options import ImportOptions
from hemix.lab.datasets.raw_files import (
    IDS,
    INTEGER,
    INTEGRAL_FLOAT,
    NUMBER,
    NUMBERS,
    TEXT,
    TIME,
    TIMES,
    ColumnType,
    RawChunk,
    RawFile,
)
from hemix.lab.datasets.time_split import FileTimes
from hemix.schema import Schema

__all__ = ["EbNerd", "open_ebnerd"]

_READER: dict[str, ColumnType] = {
    "device_type": INTEGER,
    "is_sso_user": INTEGER,
    "is_subscriber": INTEGER,
    "gender": INTEGRAL_FLOAT,
    "postcode": INTEGRAL_FLOAT,
    "age": INTEGRAL_FLOAT,
}
_BEHAVIORS: dict[str, ColumnType] = {
    "impression_id": INTEGER,
    "user_id": INTEGER,
    "session_id": INTEGER,
    "impression_time": TIME,
    "article_id": INTEGRAL_FLOAT,
    "read_time": NUMBER,
    "scroll_percentage": NUMBER,
    "article_ids_inview": IDS,
    "article_ids_clicked": IDS,
    **_READER,
}
_HISTORY: dict[str, ColumnType] = {
    "user_id": INTEGER,
    "article_id_fixed": IDS,
    "impression_time_fixed": TIMES,
    "read_time_fixed": NUMBERS,
    "scroll_percentage_fixed": NUMBERS,
}
_ARTICLES: dict[str, ColumnType] = {
    "article_id": INTEGER,
    "title": TEXT,
    "published_time": TIME,
    "premium": INTEGER,
    "article_type": TEXT,
    "category": INTEGER,
    "subcategory": IDS,
    "sentiment_label": TEXT,
}
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EbNerd:
    """The files of EB-NeRD.

    Table ``impressions`` has a row for each article in view, ``click`` is 1 for the clicked ones.
    ``page`` tells whether the list was below an article or on the front page, ``article_age_hours``
    how old the article was. The publishers shuffled the lists, so there is no position.

    Table ``events`` has the articles that a user opened, with reading time (s) and scrolled
    percentage: both history files, and after them the opened pages among the impressions. So an
    event comes once, where the second history holds the days of the first impressions.

    Table ``items`` has the articles.
    """

    behaviors: tuple[RawFile, RawFile]
    histories: tuple[RawFile, RawFile]
    articles: RawFile

    def check(self) -> None:
        """Raise DataError if a file cannot be opened or lacks a column."""
        for file in (*self.behaviors, *self.histories, self.articles):
            file.check()

    def write(self, logs: LogsWriter) -> None:
        """Write the tables and the schema. Raises DataError naming file, row and column."""
        published = self._write_articles(logs)
        covered = np.zeros(0, dtype=np.int64)
        for file in self.histories:
            users = []
            for chunk in file.chunks():
                logs.write("events", history_events(chunk))
                users.append(np.asarray(chunk.table["user_id"]))
            covered = np.unique(np.concatenate(users)) if users else covered[:0]
        times = tuple(FileTimes(file.path) for file in self.behaviors)
        for number, file in enumerate(self.behaviors):
            for chunk in file.chunks():
                # the second history holds what its users opened in the days of the first file
                skipped = covered if number == 0 else covered[:0]
                logs.write("events", page_events(chunk, skipped))
                logs.write("impressions", list_rows(chunk, published))
                times[number].add(_milliseconds(chunk.table["impression_time"]))
        logs.write_schema(ebnerd_schema(times[0].boundaries(times[1], day=_DAY_MS)))

    def _write_articles(self, logs: LogsWriter) -> tuple[Int64s, Int64s]:
        """Write the items and return their ids, ascending, and times of publication (ms)."""
        ids, times = list[Int64s](), list[Int64s]()
        for chunk in self.articles.chunks():
            chunk.require_values("article_id", "published_time")
            logs.write("items", chunk.table.drop_columns(["published_time"]))
            ids.append(np.asarray(chunk.table["article_id"]))
            times.append(_milliseconds(chunk.table["published_time"]))
        if not ids:
            path = self.articles.path
            raise DataError(
                f"{path}: expected articles, found no row", code="no_rows", field=str(path)
            )
        order = np.argsort(np.concatenate(ids), kind="stable")
        return np.concatenate(ids)[order], np.concatenate(times)[order]


def open_ebnerd(raw: Path, options: ImportOptions) -> EbNerd:
    """Find and check the files in ``raw``.

    Args:
        raw: The folder with articles.parquet and the folders train and validation.
        options: None; EB-NeRD has no options.

    Raises:
        DataError: A file is missing, cannot be opened or lacks a column.
        UsageError: An option is given.
    """
    options.refuse_all("ebnerd")
    _, folder = detect_layout("ebnerd", (raw,), {"ebnerd": _files})
    articles, *behaviors_and_histories = _files(folder)
    train, train_history, test, test_history = behaviors_and_histories
    dataset = EbNerd(
        behaviors=(
            RawFile(path=train, columns=_BEHAVIORS),
            RawFile(path=test, columns=_BEHAVIORS),
        ),
        histories=(
            RawFile(path=train_history, columns=_HISTORY),
            RawFile(path=test_history, columns=_HISTORY),
        ),
        articles=RawFile(path=articles, columns=_ARTICLES),
    )
    dataset.check()
    return dataset


def _files(folder: Path) -> list[Path]:
    names = ("behaviors.parquet", "history.parquet")
    return [folder / "articles.parquet"] + [
        folder / part / name for part in ("train", "validation") for name in names
    ]


def list_rows(chunk: RawChunk, published: tuple[Int64s, Int64s]) -> pa.Table:
    """Convert lists of articles in view to a row for each article.

    Args:
        chunk: Rows of behaviors.parquet.
        published: Ids of the articles, ascending, and their times of publication (ms).
    """
    chunk.require_values("impression_id", "user_id", "impression_time", "article_ids_inview")
    row, articles = _flatten(chunk, "article_ids_inview")
    clicked_row, clicked = _flatten(chunk, "article_ids_clicked")
    everything = np.concatenate([articles, clicked])
    span = int(np.ptp(everything)) + 1 if everything.size else 1
    # a (row, article) pair is one number, because no two ids are a span apart
    click = np.isin(row * span + articles, clicked_row * span + clicked)
    times_ms = _milliseconds(chunk.table["impression_time"])
    on_article = ~np.asarray(chunk.table["article_id"].is_null())
    per_list = pa.table(
        {
            **{name: chunk.table[name] for name in ("impression_id", "user_id", "session_id")},
            "time_ms": times_ms,
            "page": pa.array(np.where(on_article, "article", "front")),
            **{name: chunk.table[name] for name in _READER},
        }
    )
    ids, published_ms = published
    position = np.minimum(np.searchsorted(ids, articles), ids.size - 1)
    age_hours = (times_ms[row] - published_ms[position]) / _HOUR_MS
    return (
        per_list.take(pa.array(row))
        .append_column("article_id", pa.array(articles))
        .append_column(
            "article_age_hours", pa.array(age_hours, pa.float64(), mask=ids[position] != articles)
        )
        .append_column("click", pa.array(click.astype(np.int8)))
    )


def history_events(chunk: RawChunk) -> pa.Table:
    """Convert lists of opened articles to events, oldest first.

    Raises DataError where the lists of a row differ in length.
    """
    chunk.require_values("user_id")
    row, articles = _flatten(chunk, "article_id_fixed")
    lengths = pc.list_value_length(chunk.table["article_id_fixed"])
    columns = {}
    for name in ("impression_time_fixed", "read_time_fixed", "scroll_percentage_fixed"):
        differs = pc.fill_null(
            pc.not_equal(pc.list_value_length(chunk.table[name]), lengths), len(articles) > 0
        )
        chunk.reject(np.asarray(differs), name, "a list as long as article_id_fixed")
        columns[name] = pc.list_flatten(chunk.table[name].combine_chunks())
    return _events(
        pc.take(chunk.table["user_id"].combine_chunks(), pa.array(row)),
        pa.array(articles),
        pa.array(_milliseconds(columns["impression_time_fixed"])),
        columns["read_time_fixed"],
        columns["scroll_percentage_fixed"],
    )


def page_events(chunk: RawChunk, skipped_users: Int64s) -> pa.Table:
    """Convert the impressions below an article to events: the user had opened that article.

    Args:
        chunk: Rows of behaviors.parquet.
        skipped_users: Users whose events of these days are in a history.
    """
    table = chunk.table
    opened = ~np.asarray(table["article_id"].is_null())
    opened &= ~np.isin(np.asarray(table["user_id"]), skipped_users)
    table = table.take(pa.array(np.flatnonzero(opened)))
    return _events(
        table["user_id"].combine_chunks(),
        table["article_id"].combine_chunks(),
        pa.array(_milliseconds(table["impression_time"])),
        table["read_time"].combine_chunks(),
        table["scroll_percentage"].combine_chunks(),
    )


def _events(
    user: pa.Array, article: pa.Array, time_ms: pa.Array, read_s: pa.Array, scrolled: pa.Array
) -> pa.Table:
    columns = {"user_id": user, "article_id": article, "time_ms": time_ms}
    for name, values in {"read_time": read_s, "scroll_percentage": scrolled}.items():
        missing = np.isnan(values.to_numpy(zero_copy_only=False).astype(np.float64))
        columns[name] = pc.if_else(pa.array(missing), pa.scalar(None, pa.float64()), values)
    return pa.table({**columns, "action": pa.array(["open"] * len(user), pa.string())})


def _flatten(chunk: RawChunk, column: str) -> tuple[Int64s, Int64s]:
    """Return the row and the value of every entry of a list column; a null list has none."""
    lists = chunk.table[column].combine_chunks()
    values = pc.list_flatten(lists)
    row = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    missing = np.zeros(len(chunk.table), dtype=bool)
    missing[row[np.asarray(values.is_null())]] = True
    chunk.reject(missing, column, "article ids without a missing value")
    return row, values.to_numpy(zero_copy_only=False).astype(np.int64)


def _milliseconds(times: pa.Array | pa.ChunkedArray) -> Int64s:
    """Times in ms since 1970, int64."""
    return np.asarray(times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()))


def ebnerd_schema(split: dict[str, int]) -> Schema:
    """Make the schema of EB-NeRD logs.

    Args:
        split: ``valid`` and ``test``, in ms.
    """
    categorical: dict[str, Any] = {"type": "categorical"}
    numeric = {"type": "numeric", "buckets": 16}
    hour, weekday = {"type": "clock", "part": "hour"}, {"type": "clock", "part": "weekday"}
    statistics = {
        "article": ["item"],
        "category": ["item.category"],
        "user": ["user"],
        "user_category": ["user", "item.category"],
    }
    return Schema.model_validate(
        {
            "name": "ebnerd",
            "tables": {"events": "events.parquet", "items": "items.parquet"},
            "user": "user_id",
            "item": "article_id",
            "clock": {"column": "time_ms", "unit": "ms", "timezone": "UTC"},
            "features": {
                "user": {"user_id": {**categorical, "vocabulary": {"min_count": 20}}},
                "context": {
                    "page": categorical,
                    **dict.fromkeys(_READER, categorical),
                    "hour": hour,
                    "weekday": weekday,
                },
                "item": {
                    "article_id": {**categorical, "vocabulary": {"min_count": 5}},
                    "category": categorical,
                    "subcategory": {**categorical, "multi": True, "max_values": 5},
                    "article_type": categorical,
                    "premium": categorical,
                    "sentiment_label": categorical,
                },
                "cross": {"article_age_hours": {**numeric, "buckets": 32}},
            },
            "history": {
                "source": "events",
                "item_features": ["article_id", "category", "article_type", "sentiment_label"],
                "action": {**categorical, "column": "action", "vocabulary": {"min_count": 1}},
                "fields": {"read_time": numeric, "scroll_percentage": numeric},
                "global_length": 200,
                "realtime_length": 50,
            },
            "labels": {"click": {}},
            "roles": {"request_id": "impression_id"},
            "statistics": {
                f"click_{name}": {"label": "click", "by": by} for name, by in statistics.items()
            },
            "split": split,
        }
    )
