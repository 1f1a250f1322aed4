"""Import of KuaiRand (Gao et al., CIKM 2022): impressions of a short-video app.

Layouts: the official CSV files of KuaiRand-Pure, -1K and -27K, in RAW or RAW/data, and a two-week
slice in Parquet. The slice adds the videos that each user watched before it, without timestamps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.errors import DataError
from hemix.lab.datasets.kuairand_protocol import KuaiRandProtocol, distinct_days, find_protocol
from hemix.lab.datasets.kuairand_schema import kuairand_schema
from hemix.lab.datasets.layouts import detect_layout
from hemix.lab.datasets.logs_writer import LogsWriter
from hemix.lab.datasets.options import ImportOptions
from hemix.lab.datasets.raw_files import (
    DATE,
    IDS,
    INTEGER,
    INTEGRAL_FLOAT,
    TEXT,
    ColumnType,
    RawChunk,
    RawFile,
    TextFormat,
)
from hemix.schema import Schema

__all__ = ["KuaiRand", "open_kuairand"]

_STANDARD_LOGS = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08")
_RANDOM_LOG = "log_random_4_22_to_5_08"

_LOG_COLUMNS: dict[str, ColumnType] = dict.fromkeys(
    (
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
    ),
    INTEGER,
)
_HISTORY_COLUMNS: dict[str, ColumnType] = {
    "user_id": INTEGER,
    "watch_seq": IDS,
    "like_seq": IDS,
    "long_watch_seq": IDS,
}
_USER_COLUMNS: dict[str, ColumnType] = {
    "user_id": INTEGER,
    "user_active_degree": TEXT,
    "is_lowactive_period": INTEGRAL_FLOAT,
    "is_live_streamer": INTEGRAL_FLOAT,
    "is_video_author": INTEGRAL_FLOAT,
    "follow_user_num": INTEGRAL_FLOAT,
    "follow_user_num_range": TEXT,
    "fans_user_num": INTEGRAL_FLOAT,
    "fans_user_num_range": TEXT,
    "friend_user_num": INTEGRAL_FLOAT,
    "friend_user_num_range": TEXT,
    "register_days": INTEGRAL_FLOAT,
    "register_days_range": TEXT,
    **{f"onehot_feat{i}": INTEGRAL_FLOAT for i in range(18)},
}
_ITEM_COLUMNS: dict[str, ColumnType] = {
    "video_id": INTEGER,
    "author_id": INTEGRAL_FLOAT,
    "video_type": TEXT,
    "upload_dt": DATE,
    "upload_type": TEXT,
    "video_duration": INTEGRAL_FLOAT,
    "server_width": INTEGRAL_FLOAT,
    "server_height": INTEGRAL_FLOAT,
    "music_id": INTEGRAL_FLOAT,
    "music_type": INTEGRAL_FLOAT,
    "tag": TEXT,
}

_IMPRESSION_ACTIONS = ("impression", "click", "long", "like")
_TIMELESS_ACTIONS = ("watch", "long", "like")

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class KuaiRand:
    """The files of one KuaiRand layout.

    Table ``impressions`` has every column of the log, so that equal rows are true duplicates.
    ``is_click`` becomes ``click``; ``long_view`` is 1 where a video was clicked and viewed long.
    With a protocol ``long_view`` is the log's own, and with ``random_test`` the test split holds
    the randomly exposed impressions. The events stay those of the standard logs.

    Table ``events`` has the timeless watched videos, oldest first within a user (``position``
    counts them), then one event per impression. ``action`` is the strongest of like, long (click
    and long view), click and impression; a timeless event that is neither liked nor long is a
    ``watch``. ``play_share`` is play time over duration, null where the duration is not positive.

    Tables ``items`` and ``users`` have the official columns. ``upload_day`` is in days since 1970,
    ``tag`` is a list and ``tag_first`` its first value.
    """

    logs: tuple[RawFile, ...]
    items: RawFile
    users: RawFile
    history: RawFile | None = None
    schema: Schema
    protocol: KuaiRandProtocol | None = None
    random_test: RawFile | None = None
    """With a protocol: the log whose impressions are the test split"""

    def check(self) -> None:
        """Raise DataError if a file cannot be opened or lacks a column."""
        for file in (*self.logs, self.items, self.users, self.history, self.random_test):
            if file is not None:
                file.check()

    def write(self, logs: LogsWriter) -> None:
        """Write the four tables and the schema, chunk by chunk.

        Raises DataError naming file, line and column.
        """
        for chunk in self.history.chunks() if self.history else ():
            logs.write("events", timeless_events(chunk))
        self._write_impressions(logs)
        for chunk in self.items.chunks():
            logs.write("items", items(chunk))
        for chunk in self.users.chunks():
            chunk.require_values("user_id")
            logs.write("users", chunk.table)
        for table, file in {
            "impressions": self.logs[0],
            "items": self.items,
            "users": self.users,
        }.items():
            if table not in logs.rows:
                raise DataError(
                    f"{file.path}: expected {table}, found no row",
                    code="no_rows",
                    field=str(file.path),
                )
        logs.write_schema(self.schema)

    def _write_impressions(self, logs: LogsWriter) -> None:
        """Write the impressions with one event for each."""
        days = set[int]()
        clicked_alone = self.protocol is None
        for chunk in itertools.chain.from_iterable(log.chunks() for log in self.logs):
            impressions, events = impressions_and_events(chunk, clicked_alone=clicked_alone)
            if self.protocol is not None and self.random_test is not None:
                impressions = self.protocol.without_test(impressions)
            logs.write("impressions", impressions)
            logs.write("events", events)
            days |= distinct_days(impressions)
        if self.protocol is None:
            return
        for chunk in self.random_test.chunks() if self.random_test else ():
            impressions, _ = impressions_and_events(chunk, clicked_alone=clicked_alone)
            impressions = self.protocol.only_test(impressions)
            logs.write("impressions", impressions)
            days |= distinct_days(impressions)
        if days:
            self.protocol.check_days(days, self.logs[0].path.parent)


def open_kuairand(raw: Path, options: ImportOptions) -> KuaiRand:
    """Find and check the files in ``raw`` or ``raw/data``.

    Args:
        raw: The folder with the raw files.
        options: Whether to include the log of randomly exposed videos, and the protocol. With a
            protocol that log is the test split.

    Raises:
        DataError: A file is missing, cannot be opened or lacks a column.
        UsageError: The protocol is unknown.
    """
    protocol = find_protocol(options.protocol)
    layouts: dict[str, Callable[[Path], list[Path]]] = {"slice": _slice_files}
    layouts |= {size: partial(_official_files, size) for size in ("pure", "1k", "27k")}
    layout, folder = detect_layout("kuairand", (raw, raw / "data"), layouts)
    files = layouts[layout](folder)
    random_path = folder / f"{_RANDOM_LOG}_{layout}.csv"
    if options.random_log and layout == "slice":
        raise DataError(
            f"{folder}: the slice has no log of random exposure; the official layouts have "
            f"{_RANDOM_LOG}_S.csv",
            code="missing_file",
            field=str(folder),
        )
    if options.random_log and not random_path.is_file():
        raise DataError(
            f"{random_path}: no such file; it is needed for the log of random exposure",
            code="missing_file",
            field=str(random_path),
        )
    if options.random_log and protocol is None:
        files.append(random_path)
    items_file, users_file, *logs = files
    if layout == "slice":
        text, history, lengths = None, logs.pop(0), (200, 50)
    else:
        text, history, lengths = TextFormat(), None, (1000, 100)

    def log_file(path: Path) -> RawFile:
        optional = frozenset({"is_rand"})
        return RawFile(path=path, columns=_LOG_COLUMNS, text=text, optional=optional)

    dataset = KuaiRand(
        logs=tuple(map(log_file, logs)),
        items=RawFile(path=items_file, columns=_ITEM_COLUMNS, text=text),
        users=RawFile(path=users_file, columns=_USER_COLUMNS, text=text),
        history=RawFile(path=history, columns=_HISTORY_COLUMNS) if history else None,
        schema=kuairand_schema(
            f"kuairand-{layout}" + (f"-{protocol.name}" if protocol else ""),
            global_length=lengths[0],
            realtime_length=lengths[1],
            protocol=protocol,
        ),
        protocol=protocol,
        random_test=log_file(random_path) if options.random_log and protocol else None,
    )
    dataset.check()
    return dataset


def _slice_files(folder: Path) -> list[Path]:
    names = (
        "video_features_basic",
        "user_features",
        "user_history_to_20220424",
        "log_standard_20220425_20220508",
    )
    return [folder / f"{name}.parquet" for name in names]


def _official_files(size: str, folder: Path) -> list[Path]:
    suffixes = ("_part1", "_part2") if size == "27k" else ("",)
    names = ("video_features_basic", "user_features")
    return [folder / f"{name}_{size}.csv" for name in names] + [
        folder / f"{name}_{size}{suffix}.csv" for name in _STANDARD_LOGS for suffix in suffixes
    ]


def impressions_and_events(chunk: RawChunk, *, clicked_alone: bool) -> tuple[pa.Table, pa.Table]:
    """Convert log rows to impressions and one event per impression.

    Args:
        chunk: Rows of a log.
        clicked_alone: Whether a long view counts as the label only where the video was clicked.
    """
    chunk.require_values("user_id", "video_id", "date", "time_ms")
    table = chunk.table
    click, like = chunk.flags("is_click"), chunk.flags("is_like")
    viewed = chunk.flags("long_view")
    long_view = click & viewed
    derived = {
        "click": pa.array(click.astype(np.int8)),
        "long_view": pa.array((long_view if clicked_alone else viewed).astype(np.int8)),
    }
    if "is_rand" not in table.column_names:
        table = table.append_column("is_rand", pa.array(np.zeros(len(table), np.int64)))
    impressions = pa.table(
        {
            **{name: table[name] for name in _LOG_COLUMNS if name not in ("is_click", "long_view")},
            **derived,
        },
    )
    action = np.select([like, long_view, click], [3, 2, 1], 0)
    played_ms = table["play_time_ms"].cast(pa.float64())
    duration_ms = table["duration_ms"].cast(pa.float64())
    positive_ms = pc.if_else(pc.greater(duration_ms, 0), duration_ms, pa.scalar(None, pa.float64()))
    return impressions, _events(
        table["user_id"],
        table["video_id"],
        table["time_ms"],
        _decode(_IMPRESSION_ACTIONS, action),
        table["tab"],
        pc.divide(played_ms, positive_ms),
        pa.nulls(len(table), pa.int64()),
    )


def timeless_events(chunk: RawChunk) -> pa.Table:
    """Convert the lists of watched videos to events without a timestamp, in the list's order.

    The action follows from membership in the lists of liked and long-watched videos.
    """
    chunk.require_values("user_id", "watch_seq")
    lists = [_flatten(chunk, name) for name in ("watch_seq", "like_seq", "long_watch_seq")]
    row, video = lists[0]
    all_videos = np.concatenate([videos for _, videos in lists])
    span = int(np.ptp(all_videos)) + 1 if all_videos.size else 1
    # a (row, video) pair is one number, because no two video ids are a span apart
    watched, *flagged = (rows * span + videos for rows, videos in lists)
    liked, long = (np.isin(watched, pairs) for pairs in flagged)
    first = np.searchsorted(row, row)  # rows ascend
    count = len(video)
    return _events(
        pc.take(chunk.table["user_id"], pa.array(row)),
        pa.array(video),
        pa.nulls(count, pa.int64()),
        _decode(_TIMELESS_ACTIONS, np.select([liked, long], [2, 1], 0)),
        pa.nulls(count, pa.int64()),
        pa.nulls(count, pa.float64()),
        pa.array(np.arange(count) - first),
    )


def _flatten(chunk: RawChunk, column: str) -> tuple[Int64s, Int64s]:
    """Return the row index and the value of every entry of a list column."""
    lists = chunk.table[column].combine_chunks()
    values = pc.list_flatten(lists)
    if values.null_count:
        raise DataError(
            f"{chunk.path}: {column}: expected video ids, found a list with a missing value",
            field=column,
        )
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), values.to_numpy()


def _events(
    user: pa.Array,
    video: pa.Array,
    time_ms: pa.Array,
    action: pa.Array,
    tab: pa.Array,
    play_share: pa.Array,
    position: pa.Array,
) -> pa.Table:
    return pa.table(
        {
            "user_id": user,
            "video_id": video,
            "time_ms": time_ms,
            "action": action,
            "tab": tab,
            "play_share": play_share,
            "position": position,
        }
    )


def _decode(names: tuple[str, ...], codes: Int64s) -> pa.Array:
    return pa.array(names).take(pa.array(codes))


def items(chunk: RawChunk) -> pa.Table:
    """Convert the videos: the upload date to days since 1970, the tags to a list."""
    chunk.require_values("video_id")
    table = chunk.table
    tags = pc.split_pattern(pc.replace_substring(table["tag"], " ", ""), ",")
    columns = {name: table[name] for name in _ITEM_COLUMNS if name not in ("upload_dt", "tag")}
    return pa.table(
        {
            **columns,
            "upload_day": table["upload_dt"].cast(pa.int32()).cast(pa.int64()),
            "tag": tags,
            "tag_first": pc.list_element(tags, 0),
        }
    )
