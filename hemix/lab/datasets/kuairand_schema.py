"""Schema of imported KuaiRand logs.

It leaves out the aggregate counters of videos and ``visible_status``, because they describe the
time after the logged month or the test days, and would leak labels.
"""

from __future__ import annotations

from typing import Any

from hemix.lab.datasets.kuairand_protocol import KuaiRandProtocol
from hemix.schema import Schema

__all__ = ["kuairand_schema"]


def _categorical(min_count: int = 2, **more: Any) -> dict[str, Any]:
    return {"type": "categorical", "vocabulary": {"min_count": min_count}, **more}


def _numeric(buckets: int = 16) -> dict[str, Any]:
    return {"type": "numeric", "buckets": buckets}


_USER = {
    "user_id": _categorical(3),
    "user_active_degree": _categorical(),
    "is_live_streamer": _categorical(),
    "is_video_author": _categorical(),
    "follow_user_num": _numeric(),
    "fans_user_num": _numeric(),
    "friend_user_num": _numeric(),
    "register_days": _numeric(),
    **{f"onehot_feat{i}": _categorical() for i in range(18)},
}

_CONTEXT = {
    "tab": _categorical(),
    "hour": {"type": "clock", "part": "hour"},
    "weekday": {"type": "clock", "part": "weekday"},
}

_ITEM = {
    "video_id": _categorical(5),
    "author_id": _categorical(5),
    "video_type": _categorical(),
    "upload_type": _categorical(),
    "upload_day": _numeric(),
    "video_duration": _numeric(32),
    "server_width": _numeric(8),
    "server_height": _numeric(8),
    "music_id": _categorical(5),
    "music_type": _categorical(),
    "tag": _categorical(multi=True, max_values=10, table="tag"),
    "tag_first": _categorical(table="tag"),
}

_HISTORY = {
    "source": "events",
    "item_features": ["video_id", "author_id", "video_duration", "tag_first"],
    "action": {"column": "action", "vocabulary": {"min_count": 1}},
    "fields": {
        "tab": _categorical(),
        "play_share": _numeric(),
        "hour": {"type": "clock", "part": "hour"},
    },
}

_STATISTICS = {
    "user": ["user"],
    "video": ["item"],
    "author": ["item.author_id"],
    "tag": ["item.tag_first"],
    "user_tab": ["user", "context.tab"],
    "video_tab": ["item", "context.tab"],
    "user_tag": ["user", "item.tag_first"],
    "user_author": ["user", "item.author_id"],
}


def kuairand_schema(
    name: str,
    *,
    global_length: int,
    realtime_length: int,
    protocol: KuaiRandProtocol | None = None,
) -> Schema:
    """Make the schema of KuaiRand logs.

    Args:
        name: Name of the data set.
        global_length: Maximum number of history events before today.
        realtime_length: Maximum number of history events of today.
        protocol: A public comparison, whose days and label replace the usual ones.
    """
    labels: dict[str, Any] = {"click": {}, "long_view": {"given": "click"}}
    split: dict[str, int] = {"valid": 20220505, "test": 20220507}
    if protocol is not None:
        labels, split = {protocol.label: {}}, protocol.boundaries
    tables = {"events": "events.parquet", "items": "items.parquet", "users": "users.parquet"}
    return Schema.model_validate(
        {
            "name": name,
            "tables": tables,
            "user": "user_id",
            "item": "video_id",
            "clock": {"column": "time_ms", "unit": "ms", "timezone": "Asia/Shanghai"},
            "features": {"user": _USER, "context": _CONTEXT, "item": _ITEM},
            "history": {
                **_HISTORY,
                "global_length": global_length,
                "realtime_length": realtime_length,
                "realtime_window": "day",
                "counts": True,
            },
            "labels": labels,
            "statistics": {
                f"{label}_{name}": {"label": label, "by": by}
                for label in labels
                for name, by in _STATISTICS.items()
            },
            "split": {"column": "date", **split},
        }
    )
