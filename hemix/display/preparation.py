"""A prepared dataset: its splits, and what its logs lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemix.display.commands import command_line
from hemix.display.tables import render_table, text_table

__all__ = ["check_summary", "manifest_summary"]

_IRREGULARITIES = {
    "duplicates": "were exact duplicates (dropped)",
    "disorder": "were out of time order (sorted)",
    "outside_split": "lie outside start and end",
    "timeless": "have no time (always visible)",
    "requests_of_several_times": "requests had several times (the earliest holds)",
}
"""Counts of the manifest, and what the counted rows have in common."""

_SHOWN = ("train", "test")
_JOINS = {
    "users": "impressions are of users in the user table",
    "items": "impressions are of items in the item table",
    "event_users": "events are of users of the impressions",
    "event_items": "events are of items of the impressions or the item table",
}


def manifest_summary(manifest: Mapping[str, Any], out: Path) -> str:
    """What a dataset holds, what was irregular in its logs, and the next command.

    Args:
        manifest: The content of manifest.json.
        out: Folder of the dataset.

    Returns:
        A table, then one line for every irregularity.
    """
    return "\n".join(
        [
            *_summary_lines(manifest, str(out)),
            f"Next: {command_line('train', '--data', out, '--out', 'RUN')}",
        ]
    )


def check_summary(manifest: Mapping[str, Any], logs: Path) -> str:
    """What a check found: the lines of a dataset, join rates, and what is missing or unknown.

    Args:
        manifest: The content of manifest.json.
        logs: Folder of the logs.
    """
    lines = _summary_lines(manifest, str(logs))
    joins = manifest.get("join_rate", {})
    lines += [f"{rate:.1%} of the {_JOINS[name]}" for name, rate in joins.items()]
    next_command = command_line("prepare", logs, "--out", "DATA")
    return "\n".join([*lines, _rates_table(manifest), f"Next: {next_command}"])


def _rates_table(manifest: Mapping[str, Any]) -> str:
    """Shares of train and test rows in which a column is missing, or not in the vocabulary."""
    columns = ["column", "missing train", "missing test", "unknown train", "unknown test"]
    table = text_table("share of rows", columns, left=["column"])
    missing, unknown = manifest["missing_rate"], manifest["unknown_rate"]
    for name in missing["train"]:
        rates = [of.get(split, {}).get(name) for of in (missing, unknown) for split in _SHOWN]
        table.add_row(name, *("-" if rate is None else f"{rate:.1%}" for rate in rates))
    return render_table(table)


def _summary_lines(manifest: Mapping[str, Any], title: str) -> list[str]:
    columns = ["split", "impressions", "requests", "users", "positives"]
    table = text_table(title, columns, left=["split"])
    for name, split in manifest["splits"].items():
        positives = ", ".join(f"{task} {count:,}" for task, count in split["positives"].items())
        counts = (f"{split[key]:,}" for key in ("rows", "requests", "users"))
        table.add_row(name, *counts, positives)
    return [
        render_table(table),
        f"{manifest['history']['events']:,} events in the history store",
        *_label_lines(manifest),
        *_table_lines(manifest),
        *_event_lines(manifest["history"]),
        *_irregularity_lines(manifest),
        *_label_rate_lines(manifest["label_rates"]),
    ]


def _label_lines(manifest: Mapping[str, Any]) -> list[str]:
    lines = [
        f"noted: {task} is unknown on {unknown:,} of {split['rows']:,} {name} rows "
        "(null, not yet known or not mature)"
        for name, split in manifest["splits"].items()
        for task, unknown in split["unknown"].items()
        if unknown
    ]
    return lines + [
        f"noted: {task} was 1 on {count:,} rows whose given label is 0; counted as 0"
        for task, count in manifest["impressions"]["given_violated"].items()
        if count
    ]


def _table_lines(manifest: Mapping[str, Any]) -> list[str]:
    lines = [
        f"noted: {count:,} {level}s have several rows in their table; the last one holds"
        for level in ("user", "item")
        if (count := manifest[f"{level}_table"]["duplicates"])
    ]
    lines += [
        f"noted: the table {name} has no rows"
        for name, table in manifest.get("tables", {}).items()
        if table["rows"] == 0
    ]
    for name, example in manifest.get("join_example", {}).items():
        rate = manifest["join_rate"][name]
        percentage = f"{rate:.1%}" if rate else "none"
        lines.append(
            f"noted: {percentage} of the {_JOINS[name]}; {example!r}, for instance, is not"
        )
    return lines


def _event_lines(history: Mapping[str, Any]) -> list[str]:
    if "columns_without_action" not in history or not history["events"]:
        return []
    columns = ", ".join(history["columns_without_action"])
    return [
        "noted: the events have no column 'action', so all actions are missing; name it in "
        f"history.action, one of: {columns}"
    ]


def _irregularity_lines(manifest: Mapping[str, Any]) -> list[str]:
    """All irregularities of impressions and events on one line."""
    logs = (("impressions", manifest["impressions"]), ("events", manifest["history"]))
    irregularities = [
        f"{count:,} {log} {_IRREGULARITIES[name]}"
        for log, counts in logs
        for name, count in counts.items()
        if name in _IRREGULARITIES and isinstance(count, int) and count
    ]
    return [f"noted: {', '.join(irregularities)}"] if irregularities else []


def _label_rate_lines(label_rates: Mapping[str, Any]) -> list[str]:
    """Whether rows with an unknown value have other label rates than rows with a known one."""
    train = label_rates["train"]
    significant = [
        (name, task)
        for name, tasks in train.items()
        for task, entry in tasks.items()
        if entry.get("beyond_chance")
    ]
    if not significant:
        return []
    suspects = [key for key in significant if not train[key[0]][key[1]]["agrees_with_valid"]]
    name, task = max(suspects or significant, key=lambda key: abs(train[key[0]][key[1]]["z"]))

    def rates(split: str) -> str:
        entry = label_rates[split].get(name, {}).get(task)
        if entry is None:
            return f"no such row on {split}"
        return f"{_rate(entry['unknown'])} on {split} (known: {_rate(entry['known'])})"

    more = len(significant) - 1
    line = f"rows with an unknown {name} have {task} rate {rates('train')}, {rates('valid')}"
    line += f"; {more} more in manifest.json (label_rates)" if more else ""
    if not suspects:
        return [f"noted: {line}"]
    return [f"warning: {line}. Valid does not agree with train: look for a leak of the label"]


def _rate(group: Mapping[str, int]) -> str:
    return f"{group['positives'] / group['rows']:.5f}" if group["rows"] else "no rows"
