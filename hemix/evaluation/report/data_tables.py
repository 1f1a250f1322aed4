"""Tables of the dataset behind a run: splits, join rates, unknown values, label rates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hemix.evaluation import wording

__all__ = ["data_tables"]

_DAY, _MINUTE = "%Y-%m-%d", "%Y-%m-%d %H:%M"
_JOINS = {
    "users": "impressions whose user is in the user table",
    "items": "impressions whose item is in the item table",
    "event_users": "events whose user is in the impressions",
    "event_items": "events whose item is in the impressions or the item table",
}

Table = dict[str, Any]
"""``{"title", "columns", "rows": [(name, values)]}``, all text."""


def data_tables(manifest: Mapping[str, Any]) -> list[Table]:
    """The tables for which a dataset's manifest has content."""
    tables = (
        _splits_table(manifest),
        _join_rate_table(manifest.get("join_rate")),
        _unknown_rate_table(manifest.get("unknown_rate")),
        _label_rate_table(manifest.get("label_rates")),
    )
    return [table for table in tables if table is not None]


def _splits_table(manifest: Mapping[str, Any]) -> Table | None:
    splits = manifest.get("splits")
    if not isinstance(splits, Mapping) or not splits:
        return None
    zone = _zone(manifest.get("timezone"))
    form = _time_form(splits, zone)
    unit = "day" if form == _DAY else "time"
    tasks = list(
        dict.fromkeys(task for split in splits.values() for task in split.get("positives", {}))
    )
    columns = [
        f"first {unit} ({zone.key})",
        f"last {unit} ({zone.key})",
        "impressions",
        "requests",
        "users",
        *(wording.words(task) for task in tasks),
    ]
    rows = [
        (
            name,
            [
                _local_time(split.get("first_time_ms"), zone, form),
                _local_time(split.get("last_time_ms"), zone, form),
                *(wording.count(split.get(key)) for key in ("rows", "requests", "users")),
                *(_positive_rate(split, task) for task in tasks),
            ],
        )
        for name, split in splits.items()
    ]
    return {"title": "Splits", "columns": columns, "rows": rows}


def _join_rate_table(join_rate: Any) -> Table | None:
    if not isinstance(join_rate, Mapping) or not join_rate:
        return None
    rows = [
        (_JOINS.get(name, wording.words(name)), [wording.percent(rate, 1)])
        for name, rate in join_rate.items()
    ]
    return {"title": "Ids that the tables have in common", "columns": ["rate"], "rows": rows}


def _unknown_rate_table(unknown_rate: Any) -> Table | None:
    """Rates of values that no vocabulary knows, of the features that have some."""
    if not isinstance(unknown_rate, Mapping):
        return None
    features = dict.fromkeys(
        name for rates in unknown_rate.values() for name, rate in rates.items() if rate
    )
    splits = [split for split in unknown_rate if split != "history"]
    rows = [
        (name, [wording.percent(unknown_rate[split].get(name), 1) for split in splits])
        for name in features
        if name in unknown_rate[splits[-1]]
    ]
    if not rows:
        return None
    return {"title": "Values that the encoders did not know", "columns": splits, "rows": rows}


def _label_rate_table(label_rates: Any) -> Table | None:
    """Label rates of rows with an unknown and with a known value, where train has both."""
    if not isinstance(label_rates, Mapping) or not label_rates.get("train"):
        return None
    columns = [f"{split}, {group}" for split in label_rates for group in ("unknown", "known")]
    rows = []
    for name, tasks in label_rates["train"].items():
        for task, entry in tasks.items():
            by_split = [split.get(name, {}).get(task) for split in label_rates.values()]
            values = [_group_rate(e, group) for e in by_split for group in ("unknown", "known")]
            suspect = entry.get("beyond_chance") and not entry["agrees_with_valid"]
            remark = " (look for a leak)" if suspect else ""
            rows.append((f"{name}, {wording.words(task)}{remark}", values))
    return {
        "title": "Label rate of rows whose value the encoders know, and of others",
        "columns": columns,
        "rows": rows,
    }


def _group_rate(entry: Mapping[str, Any] | None, group: str) -> str:
    if entry is None or not entry[group]["rows"]:
        return wording.MISSING
    return wording.percent(entry[group]["positives"] / entry[group]["rows"], 1)


def _positive_rate(split: Mapping[str, Any], task: str) -> str:
    """Positives among the rows where the label is known."""
    known = split.get("rows", 0) - split.get("unknown", {}).get(task, 0)
    if not known:
        return wording.MISSING
    return wording.percent(split.get("positives", {}).get(task, 0) / known, 1)


def _zone(name: Any) -> ZoneInfo:
    """The schema's time zone, in which days begin; UTC for a dataset without one."""
    try:
        return ZoneInfo(str(name or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _time_form(splits: Mapping[str, Mapping[str, Any]], zone: ZoneInfo) -> str:
    """Days, or hours and minutes where one split ends on the day on which the next begins."""
    ends = [
        (
            _local_time(split.get("first_time_ms"), zone, _DAY),
            _local_time(split.get("last_time_ms"), zone, _DAY),
        )
        for split in splits.values()
    ]
    within_a_day = any(
        last == first != wording.MISSING for (_, last), (first, _) in itertools.pairwise(ends)
    )
    return _MINUTE if within_a_day else _DAY


def _local_time(time_ms: Any, zone: ZoneInfo, form: str) -> str:
    if not wording.is_number(time_ms):
        return wording.MISSING
    return datetime.fromtimestamp(time_ms / 1000, tz=zone).strftime(form)
