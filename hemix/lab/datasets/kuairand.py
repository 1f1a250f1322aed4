"""KuaiRand (Gao et al., CIKM 2022): impressions of a short-video app.

Two layouts: the official CSV files of KuaiRand-Pure, -1K and -27K, in RAW or RAW/data; and the
two-week slice of Parquet files, which adds the videos that a user watched before it, without a time
each.

Tables written:

- ``impressions``: every column of the log, so that rows equal in all of them are true duplicates
  (``hourmin`` alone tells most pairs of one user, video and millisecond apart). ``is_click``
  becomes ``click``; ``long_view`` becomes click and long view.
- ``events``: the timeless watched videos, oldest first within a user (``position`` counts them),
  then one event per impression. ``action`` is the strongest of like, long (click and long view),
  click and impression; ``watch`` for a timeless event that is neither liked nor long.
  ``play_share`` is play time over duration, null where the duration is not positive.
- ``items``: as in the official file, ``upload_day`` in days since 1970, ``tag`` as a list,
  ``tag_first`` its first.
- ``users``: as in the official file.
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
from hemix.lab.datasets.kuairand_schema import kuairand_schema
from hemix.lab.datasets.layouts import one_layout
from hemix.lab.datasets.logs_folder import LogsFolder
from hemix.lab.datasets.raw import DATE, IDS, INTEGER, TEXT, WHOLE, Chunk, Kind, RawFile, Text
from hemix.schema import Schema

__all__ = ["KuaiRand", "find_kuairand"]

_STANDARD = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08")
_RANDOM = "log_random_4_22_to_5_08"

_LOG: dict[str, Kind] = dict.fromkeys(
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
_HISTORY: dict[str, Kind] = {
    "user_id": INTEGER,
    "watch_seq": IDS,
    "like_seq": IDS,
    "long_watch_seq": IDS,
}
_USERS: dict[str, Kind] = {
    "user_id": INTEGER,
    "user_active_degree": TEXT,
    "is_lowactive_period": WHOLE,
    "is_live_streamer": WHOLE,
    "is_video_author": WHOLE,
    "follow_user_num": WHOLE,
    "follow_user_num_range": TEXT,
    "fans_user_num": WHOLE,
    "fans_user_num_range": TEXT,
    "friend_user_num": WHOLE,
    "friend_user_num_range": TEXT,
    "register_days": WHOLE,
    "register_days_range": TEXT,
    **{f"onehot_feat{i}": WHOLE for i in range(18)},
}
_ITEMS: dict[str, Kind] = {
    "video_id": INTEGER,
    "author_id": WHOLE,
    "video_type": TEXT,
    "upload_dt": DATE,
    "upload_type": TEXT,
    "video_duration": WHOLE,
    "server_width": WHOLE,
    "server_height": WHOLE,
    "music_id": WHOLE,
    "music_type": WHOLE,
    "tag": TEXT,
}

_IMPRESSION_ACTIONS = ("impression", "click", "long", "like")
_TIMELESS_ACTIONS = ("watch", "long", "like")

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class KuaiRand:
    """The files of one KuaiRand layout."""

    logs: tuple[RawFile, ...]
    items: RawFile
    users: RawFile
    history: RawFile | None = None
    schema: Schema

    def check(self) -> None:
        """Raise DataError if a file cannot be opened or lacks a column."""
        for file in (*self.logs, self.items, self.users, *([self.history] if self.history else [])):
            file.check()

    def write(self, logs: LogsFolder) -> None:
        """Write the four tables and the schema, chunk by chunk.

        Raises DataError naming file, line and column.
        """
        for chunk in self.history.chunks() if self.history else ():
            logs.write("events", timeless_events(chunk))
        for chunk in itertools.chain.from_iterable(log.chunks() for log in self.logs):
            impressions, events = impressions_and_events(chunk)
            logs.write("impressions", impressions)
            logs.write("events", events)
        for chunk in self.items.chunks():
            logs.write("items", items(chunk))
        for chunk in self.users.chunks():
            chunk.present("user_id")
            logs.write("users", chunk.table)
        for table, file in {
            "impressions": self.logs[0],
            "items": self.items,
            "users": self.users,
        }.items():
            if table not in logs.rows:
                raise DataError(f"{file.path}: expected {table}, found no row")
        logs.write_schema(self.schema)


def find_kuairand(raw: Path, random_log: bool) -> KuaiRand:
    """Find and check the files in ``raw`` or ``raw/data``.

    Raises DataError naming the files looked for.
    """
    layouts: dict[str, Callable[[Path], list[Path]]] = {"slice": _slice_files}
    layouts |= {size: partial(_official_files, size) for size in ("pure", "1k", "27k")}
    layout, folder = one_layout("kuairand", (raw, raw / "data"), layouts)
    files = layouts[layout](folder)
    if random_log and layout == "slice":
        raise DataError(
            f"{folder}: the slice has no log of random exposure; the official layouts have "
            f"{_RANDOM}_S.csv"
        )
    if random_log:
        files.append(folder / f"{_RANDOM}_{layout}.csv")
        if not files[-1].is_file():
            raise DataError(
                f"{files[-1]}: the log of random exposure was asked for, found nothing there"
            )
    items_file, users_file, *logs = files
    if layout == "slice":
        text, history, lengths = None, logs.pop(0), (200, 50)
    else:
        text, history, lengths = Text(), None, (1000, 100)
    source = KuaiRand(
        logs=tuple(
            RawFile(path=path, columns=_LOG, text=text, optional=frozenset({"is_rand"}))
            for path in logs
        ),
        items=RawFile(path=items_file, columns=_ITEMS, text=text),
        users=RawFile(path=users_file, columns=_USERS, text=text),
        history=RawFile(path=history, columns=_HISTORY) if history else None,
        schema=kuairand_schema(
            f"kuairand-{layout}", global_length=lengths[0], realtime_length=lengths[1]
        ),
    )
    source.check()
    return source


def _slice_files(folder: Path) -> list[Path]:
    names = (
        "video_features_basic",
        "user_features",
        "user_history_to_20220424",
        "log_standard_20220425_20220508",
    )
    return [folder / f"{name}.parquet" for name in names]


def _official_files(size: str, folder: Path) -> list[Path]:
    parts = ("_part1", "_part2") if size == "27k" else ("",)
    names = ("video_features_basic", "user_features")
    return [folder / f"{name}_{size}.csv" for name in names] + [
        folder / f"{name}_{size}{part}.csv" for name in _STANDARD for part in parts
    ]


def impressions_and_events(chunk: Chunk) -> tuple[pa.Table, pa.Table]:
    """The impressions of a piece of the log, and an event for each."""
    chunk.present("user_id", "video_id", "date", "time_ms")
    table = chunk.table
    click, like = chunk.flags("is_click"), chunk.flags("is_like")
    long_view = click & chunk.flags("long_view")
    derived = {
        "click": pa.array(click.astype(np.int8)),
        "long_view": pa.array(long_view.astype(np.int8)),
    }
    if "is_rand" not in table.column_names:
        table = table.append_column("is_rand", pa.array(np.zeros(len(table), np.int64)))
    impressions = pa.table(
        {
            **{name: table[name] for name in _LOG if name not in ("is_click", "long_view")},
            **derived,
        },
    )
    action = np.select([like, long_view, click], [3, 2, 1], 0)
    play, duration = (
        table["play_time_ms"].cast(pa.float64()),
        table["duration_ms"].cast(pa.float64()),
    )
    measured = pc.if_else(pc.greater(duration, 0), duration, pa.scalar(None, pa.float64()))
    return impressions, _events(
        table["user_id"],
        table["video_id"],
        table["time_ms"],
        _names(_IMPRESSION_ACTIONS, action),
        table["tab"],
        pc.divide(play, measured),
        pa.nulls(len(table), pa.int64()),
    )


def timeless_events(chunk: Chunk) -> pa.Table:
    """One event for every video of ``watch_seq``, in its order; its action by membership in the two
    other lists.
    """
    chunk.present("user_id", "watch_seq")
    lists = [_flat(chunk, name) for name in ("watch_seq", "like_seq", "long_watch_seq")]
    owner, video = lists[0]
    all_videos = np.concatenate([videos for _, videos in lists])
    span = int(np.ptp(all_videos)) + 1 if all_videos.size else 1
    watched, *flagged = (
        owners * span + videos for owners, videos in lists
    )  # one number a pair: a span holds every video
    liked, long = (np.isin(watched, pairs) for pairs in flagged)
    first = np.searchsorted(owner, owner)  # owners ascend
    rows = len(video)
    return _events(
        pc.take(chunk.table["user_id"], pa.array(owner)),
        pa.array(video),
        pa.nulls(rows, pa.int64()),
        _names(_TIMELESS_ACTIONS, np.select([liked, long], [2, 1], 0)),
        pa.nulls(rows, pa.int64()),
        pa.nulls(rows, pa.float64()),
        pa.array(np.arange(rows) - first),
    )


def _flat(chunk: Chunk, column: str) -> tuple[Codes, Codes]:
    """The rows and the values of a list column, flattened."""
    lists = chunk.table[column].combine_chunks()
    values = pc.list_flatten(lists)
    if values.null_count:
        raise DataError(
            f"{chunk.path}: {column}: expected video ids, found a list that holds nothing in one "
            "place"
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


def _names(names: tuple[str, ...], codes: Codes) -> pa.Array:
    return pa.array(names).take(pa.array(codes))


def items(chunk: Chunk) -> pa.Table:
    """The videos, with the upload date in days since 1970 and the tags as a list."""
    chunk.present("video_id")
    table = chunk.table
    tags = pc.split_pattern(pc.replace_substring(table["tag"], " ", ""), ",")
    columns = {name: table[name] for name in _ITEMS if name not in ("upload_dt", "tag")}
    return pa.table(
        {
            **columns,
            "upload_day": table["upload_dt"].cast(pa.int32()).cast(pa.int64()),
            "tag": tags,
            "tag_first": pc.list_element(tags, 0),
        }
    )
