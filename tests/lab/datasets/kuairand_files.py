"""Small KuaiRand files in both layouts."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
