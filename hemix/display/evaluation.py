"""Metrics of a split, its notes and undefined metrics, and the demo's summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.display.commands import command_line
from hemix.display.tables import format_metric, render_table, text_table

__all__ = ["demo_summary", "metrics_table", "notes_lines"]

_METRICS = (
    ("AUC", "auc", ".4f"),
    ("  95 % interval", "auc_ci95", "interval"),
    ("  popularity", "popularity_auc", ".4f"),
    ("  position alone", "position_auc", ".4f"),
    ("  touched before", "touched_before_auc", ".4f"),
    ("  oracle", "oracle_auc", ".4f"),
    ("GAUC", "gauc", ".4f"),
    ("  by positives", "gauc_by_positives", ".4f"),
    ("requests: nDCG@10", "ndcg_at_10", ".4f"),
    ("  MRR", "mrr", ".4f"),
    ("  hit rate@10", "hit_rate_at_10", ".4f"),
    ("users: nDCG@10", "user_ndcg_at_10", ".4f"),
    ("  recall@10", "user_recall_at_10", ".4f"),
    ("log loss", "logloss", ".4f"),
    ("  popularity", "popularity_logloss", ".4f"),
    ("  position alone", "position_logloss", ".4f"),
    ("  touched before", "touched_before_logloss", ".4f"),
    ("NE", "ne", ".4f"),
    ("PCOC", "pcoc", ".3f"),
    ("ECE", "ece", ".4f"),
    ("  floor", "ece_floor", ".4f"),
    ("positives", "positives", ","),
)
"""(title, key, format) of every row."""


def metrics_table(entry: Mapping[str, Any], split: str) -> str:
    """The metrics of every task, and the notes.

    Args:
        entry: The split's entry of metrics.json.
        split: The split's name.

    Returns:
        The table, then one line for every undefined metric and note.
    """
    tasks = entry["tasks"]
    names = [name.replace("_", " ") for name in tasks]
    table = text_table(f"{split}: {entry['rows']:,} impressions", ["", *names], left=[""])
    for title, key, form in _METRICS:
        if any(key in task for task in tasks.values()):
            table.add_row(title, *(format_metric(task.get(key), form) for task in tasks.values()))
    return "\n".join(
        [render_table(table), *_undefined_lines(entry), *notes_lines(entry.get("notes", ()))]
    )


def notes_lines(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notes of training or of a split (:mod:`hemix.evaluation.notes`), one a line."""
    return [f"noted: {note['text']}" for note in notes]


def demo_summary(entry: Mapping[str, Any], out: Path) -> str:
    """The demo's metrics, its files and the next commands.

    Args:
        entry: The test split's entry of metrics.json.
        out: Folder of the demo's run.

    Returns:
        Several lines.
    """
    name, task = next(iter(entry["tasks"].items()))
    comparison = ""
    if {"auc", "popularity_auc", "oracle_auc"} <= task.keys():  # undefined for labels of one class
        comparison = (
            f"test {name} AUC {task['auc']:.4f}: popularity alone reaches "
            f"{task['popularity_auc']:.4f}, the truth itself "
            f"{task['oracle_auc']:.4f} (distance {task['oracle_auc'] - task['auc']:.4f})\n"
        )
    predict = command_line("predict", out, "--data", out / "data", "--out", "scores.parquet")
    load = command_line("store", "load", out / "logs", "--store", f"sqlite:///{out / 'events.db'}")
    serve = command_line("serve", out)
    return (
        f"{metrics_table(entry, 'test')}\n\n{comparison}"
        f"Report: {out / 'report.html'}\n"
        f"Scores of every impression:\n  {predict}\n"
        f"Serve it, with its logs as the past and a playground:\n  {load}\n  {serve}"
    )


def _undefined_lines(entry: Mapping[str, Any]) -> list[str]:
    """Why metrics are undefined, one line for all tasks with the same metrics and reason."""
    tasks = dict[tuple[str, str], list[str]]()
    for task, values in entry["tasks"].items():
        reasons = dict[str, list[str]]()
        for metric, reason in values.get("absent", {}).items():
            reasons.setdefault(reason, []).append(metric)
        for reason, metrics in reasons.items():
            tasks.setdefault((", ".join(metrics), reason), []).append(task.replace("_", " "))
    return [
        *(f"absent: {what} of {', '.join(names)}: {why}" for (what, why), names in tasks.items()),
        *(f"absent: {name}: {reason}" for name, reason in entry.get("absent", {}).items()),
    ]
