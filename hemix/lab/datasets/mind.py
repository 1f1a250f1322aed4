"""Import of MIND (Wu et al., ACL 2020): lists of news on a home page, with the users' past clicks.

The first file trains and validates, the second (dev) tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.lab.datasets.layouts import detect_layout
from hemix.lab.datasets.logs_writer import LogsWriter
from hemix.lab.datasets.options import ImportOptions
from hemix.lab.datasets.raw_files import TEXT, RawChunk, RawFile, TextFormat
from hemix.lab.datasets.time_split import FileTimes
from hemix.schema import Schema

__all__ = ["Mind", "open_mind"]

_TABS = TextFormat(delimiter="\t", header=False, quoted=False)
_BEHAVIORS = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = (
    "news_id",
    "category",
    "subcategory",
    "title",
    "abstract",
    "url",
    "title_entities",
    "abstract_entities",
)
_FOLDERS = {
    "mind": ("train", "dev"),
    "mind-small": ("MINDsmall_train", "MINDsmall_dev"),
    "mind-large": ("MINDlarge_train", "MINDlarge_dev"),
}
_DAY_S = 86_400

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Mind:
    """The files of one MIND layout.

    Table ``impressions`` has a row for each news of a list. ``impression_id`` names the list and
    its file. The order of a list was shuffled by the publishers, so there is no position.

    Table ``events`` has clicks. A row's history has no times. It becomes the timeless events of the
    user, once: that of their earliest row, because a later row's may hold clicks of the lists
    before it. Those clicks are events with the time of their list.

    Table ``items`` has the news of both files, with the Wikidata ids of the title's entities.
    """

    name: str
    behaviors: tuple[RawFile, RawFile]
    news: tuple[RawFile, RawFile]

    def check(self) -> None:
        """Raise DataError if a file cannot be opened."""
        for file in (*self.behaviors, *self.news):
            file.check()

    def write(self, logs: LogsWriter) -> None:
        """Write the tables and the schema. Raises DataError naming file, line and column."""
        earliest = _earliest_rows(self.behaviors)
        times = tuple(FileTimes(file.path) for file in self.behaviors)
        for number, file in enumerate(self.behaviors):
            prefix = ("train-", "dev-")[number]
            for chunk in file.chunks():
                rows = np.arange(len(chunk.table)) + chunk.first
                logs.write("events", history_events(chunk, np.isin(rows, earliest[number])))
                impressions = list_rows(chunk, prefix)
                logs.write("impressions", impressions)
                logs.write("events", click_events(impressions))
                times[number].add(np.asarray(impressions["time_s"]))
        split = times[0].boundaries(times[1], day=_DAY_S)
        known = set[str]()
        for chunk in (chunk for file in self.news for chunk in file.chunks()):
            logs.write("items", news(chunk, known))
        logs.write_schema(mind_schema(self.name, split))


def open_mind(raw: Path, options: ImportOptions) -> Mind:
    """Find and check the files in ``raw``.

    Args:
        raw: The folder with the folders ``train`` and ``dev``, also by their published names.
        options: None; MIND has no options.

    Raises:
        DataError: A file is missing or cannot be opened.
        UsageError: An option is given.
    """
    options.refuse_all("mind")
    names = ("behaviors.tsv", "news.tsv")
    layouts = {
        layout: lambda folder, parts=parts: [folder / part / n for part in parts for n in names]
        for layout, parts in _FOLDERS.items()
    }
    layout, folder = detect_layout("mind", (raw,), layouts)
    train, dev = (folder / part for part in _FOLDERS[layout])

    def file(path: Path, columns: tuple[str, ...]) -> RawFile:
        return RawFile(path=path, columns=dict.fromkeys(columns, TEXT), text=_TABS)

    dataset = Mind(
        name=layout,
        behaviors=(file(train / names[0], _BEHAVIORS), file(dev / names[0], _BEHAVIORS)),
        news=(file(train / names[1], _NEWS), file(dev / names[1], _NEWS)),
    )
    dataset.check()
    return dataset


def _earliest_rows(files: tuple[RawFile, RawFile]) -> tuple[Int64s, Int64s]:
    """The line numbers, by file, of every user's earliest row."""
    earliest: dict[str, tuple[int, int, int]] = {}
    for number, file in enumerate(files):
        for chunk in file.chunks(only=("user_id", "time")):
            chunk.require_values("user_id", "time")
            users, times = chunk.table["user_id"].to_pylist(), _seconds(chunk).tolist()
            for line, (user, time) in enumerate(zip(users, times, strict=True), chunk.first):
                row = (time, number, line)
                if user not in earliest or row < earliest[user]:
                    earliest[user] = row
    rows = np.array([row[1:] for row in earliest.values()], dtype=np.int64).reshape(-1, 2)
    return rows[rows[:, 0] == 0, 1], rows[rows[:, 0] == 1, 1]


def _seconds(chunk: RawChunk) -> Int64s:
    """Times of the rows in s since 1970, such as ``11/15/2019 8:55:22 AM``, in no named zone."""
    times = pc.strptime(
        chunk.table["time"].combine_chunks(),
        format="%m/%d/%Y %I:%M:%S %p",
        unit="s",
        error_is_null=True,
    )
    chunk.reject(np.asarray(times.is_null()), "time", "a time such as 11/15/2019 8:55:22 AM")
    return np.asarray(times.cast(pa.int64()))


def list_rows(chunk: RawChunk, prefix: str) -> pa.Table:
    """Convert lists such as ``N1-0 N2-1`` to a row for each news.

    Args:
        chunk: Rows of behaviors.tsv.
        prefix: Of the lists' ids, which begin with 1 in each file.
    """
    chunk.require_values("impression_id", "user_id", "time", "impressions")
    row, tokens = _words(chunk, "impressions")
    parsed = pc.extract_regex(tokens, r"^(?P<news>.+)-(?P<click>[01])$")
    invalid = np.zeros(len(chunk.table), dtype=bool)
    invalid[row[np.asarray(parsed.is_null())]] = True
    chunk.reject(invalid, "impressions", "a list such as N1-0 N2-1")
    table = pa.table(
        {
            "impression_id": pc.binary_join_element_wise(
                prefix, chunk.table["impression_id"].combine_chunks(), ""
            ),
            "user_id": chunk.table["user_id"].combine_chunks(),
            "time_s": pa.array(_seconds(chunk)),
        }
    ).take(pa.array(row))
    return table.append_column("news_id", pc.struct_field(parsed, "news")).append_column(
        "click", pc.struct_field(parsed, "click").cast(pa.int8())
    )


def history_events(chunk: RawChunk, selected: npt.NDArray[np.bool_]) -> pa.Table:
    """Convert the histories of some rows to events without a time, in their order.

    Args:
        chunk: Rows of behaviors.tsv.
        selected: bool [rows].
    """
    row, news_ids = _words(chunk, "history")
    kept = pa.array(np.flatnonzero(selected[row]))
    user = pc.take(chunk.table["user_id"].combine_chunks(), pa.array(row)).take(kept)
    return _events(user, news_ids.take(kept), pa.nulls(len(kept), pa.int64()))


def click_events(impressions: pa.Table) -> pa.Table:
    """Convert the clicked rows of the lists to events."""
    clicked = impressions.filter(pc.equal(impressions["click"], 1))
    return _events(clicked["user_id"], clicked["news_id"], clicked["time_s"])


def _events(user: Any, news_id: Any, time_s: Any) -> pa.Table:
    action = pa.array(["click"] * len(time_s), pa.string())
    return pa.table({"user_id": user, "news_id": news_id, "time_s": time_s, "action": action})


def _words(chunk: RawChunk, column: str) -> tuple[Int64s, pa.Array]:
    """Return the row and the text of every word of a column; a null row has none."""
    lists = pc.utf8_split_whitespace(chunk.table[column].combine_chunks())
    words = pc.list_flatten(lists)
    row = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    filled = pa.array(np.flatnonzero(np.asarray(pc.utf8_length(words)) > 0))
    return row[np.asarray(filled)], words.take(filled)


def news(chunk: RawChunk, known: set[str]) -> pa.Table:
    """Convert news to rows of the items table, each once over both files.

    Args:
        chunk: Rows of news.tsv.
        known: The ids so far, to which those of the chunk are added.
    """
    chunk.require_values("news_id")
    ids = chunk.table["news_id"].to_pylist()
    new = [i for i, news_id in enumerate(ids) if news_id not in known]
    known.update(ids)
    table = chunk.table.append_column("entities", pa.array(_entities(chunk), pa.list_(pa.string())))
    return table.take(pa.array(new, pa.int64())).select(
        ["news_id", "category", "subcategory", "title", "entities"]
    )


def _entities(chunk: RawChunk) -> list[list[str] | None]:
    """Wikidata ids of the title's entities, from JSON."""
    texts = chunk.table["title_entities"].to_pylist()
    entities: list[list[str] | None] = []
    invalid = np.zeros(len(texts), dtype=bool)
    for row, text in enumerate(texts):
        try:
            wikidata_ids = [str(entity["WikidataId"]) for entity in json.loads(text or "[]")]
        except (ValueError, KeyError, TypeError):
            wikidata_ids, invalid[row] = [], True
        entities.append(wikidata_ids or None)
    chunk.reject(invalid, "title_entities", "a JSON list of entities with a WikidataId")
    return entities


def mind_schema(name: str, split: dict[str, int]) -> Schema:
    """Make the schema of MIND logs.

    Args:
        name: Name of the data set.
        split: ``valid`` and ``test``, in s.
    """
    categorical: dict[str, Any] = {"type": "categorical"}
    hour, weekday = {"type": "clock", "part": "hour"}, {"type": "clock", "part": "weekday"}
    keys = {
        "news": ["item"],
        "subcategory": ["item.subcategory"],
        "user": ["user"],
        "user_category": ["user", "item.category"],
    }
    return Schema.model_validate(
        {
            "name": name,
            "tables": {"events": "events.parquet", "items": "items.parquet"},
            "user": "user_id",
            "item": "news_id",
            "clock": {"column": "time_s", "unit": "s", "timezone": "UTC"},
            "features": {
                "user": {"user_id": {**categorical, "vocabulary": {"min_count": 20}}},
                "context": {"hour": hour, "weekday": weekday},
                "item": {
                    "news_id": {**categorical, "vocabulary": {"min_count": 5}},
                    "category": categorical,
                    "subcategory": categorical,
                    "entities": {**categorical, "multi": True, "max_values": 10},
                },
            },
            "history": {
                "source": "events",
                "item_features": ["news_id", "category", "subcategory"],
                "action": {**categorical, "column": "action", "vocabulary": {"min_count": 1}},
                "global_length": 100,
                "realtime_length": 50,
            },
            "labels": {"click": {}},
            "roles": {"request_id": "impression_id"},
            "statistics": {f"click_{k}": {"label": "click", "by": by} for k, by in keys.items()},
            "split": split,
        }
    )
