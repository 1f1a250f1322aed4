"""What a person should be told of a run unasked: that it is worse than knowing nothing, or that a
step of training was left out.

A note is JSON-able: ``{"code", "task", "split", "text"}`` and the numbers behind it. Training keeps
its notes in metrics.json as ``notes``, evaluation in the split's entry; the log, the tables and the
report show their ``text``. Numbers and text only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hemix.evaluation.intervals import auc_difference, clustered_error, logloss_influence
from hemix.evaluation.metrics import Absent, Array
from hemix.evaluation.predictions import TaskRows

__all__ = [
    "Note",
    "calibration_notes",
    "evaluation_notes",
    "one_class_note",
    "training_notes",
    "valid_notes",
]

Note = dict[str, Any]

_Z95 = 1.959964
_ROUNDING = 5e-4
"""A loss this much (relative) above the base rate's is that of the base rate: NE 1.000"""


def evaluation_notes(
    tasks: Sequence[TaskRows], entries: Mapping[str, Mapping[str, Any]], users: Array, split: str
) -> list[Note]:
    """Where a task's log loss is above that of its base rate (NE above 1), or its AUC below that of
    popularity.

    Both carry a remark where chance alone may have done it: where the 95 % interval of the paired
    difference over users holds 0.

    Args:
        tasks: The rows of every task.
        entries: By task its metrics, as metrics.json keeps them.
        users: Users of the split's rows, [n] integers.
        split: The split's name.

    Returns:
        The notes, task by task.
    """
    return [
        note
        for task in tasks
        for of in (_base_rate_note, _popularity_note)
        if (note := of(task, entries[task.name], users[task.rows], split)) is not None
    ]


def valid_notes(losses: Mapping[str, tuple[float, float]]) -> list[Note]:
    """Of training: by task (loss on valid, that of the base rate), the tasks that are above."""
    found = ((task, loss, base) for task, (loss, base) in losses.items())
    notes = [
        note
        for task, loss, base in found
        if (note := _loss_note(task, "valid", loss, base)) is not None
    ]
    return [note | {"text": f"{note['text']}, before calibration"} for note in notes]


def calibration_notes(lines: Mapping[str, Mapping[str, Any]]) -> list[Note]:
    """Of the ``calibration`` of metrics.json: lines that were left out, or held above 0."""
    codes = {"left_out": "is left out", "held": "is held nearly flat"}
    return [
        {
            "code": f"calibration_{key}",
            "task": task,
            "split": "valid",
            "reason": line[key],
            "text": f"calibration of {task} {what}: {line[key]}",
        }
        for task, line in lines.items()
        for key, what in codes.items()
        if key in line
    ]


def training_notes(
    of_labels: Sequence[Note],
    of_valid: Sequence[Note],
    lines: Mapping[str, Mapping[str, Any]] | None,
) -> list[Note]:
    """All that training has to say, ``lines`` being the ``calibration`` of metrics.json."""
    return [*of_labels, *of_valid, *calibration_notes(lines or {})]


def one_class_note(task: str, positives: int, rows: int) -> Note:
    """Of training: a further task of which the train rows that count hold one class."""
    return {
        "code": "one_class_in_train",
        "task": task,
        "split": "train",
        "positives": positives,
        "rows": rows,
        "text": f"{task} on train: {positives:,} positives among the {rows:,} rows that count: "
        f"nothing is learned of {task}",
    }


def _base_rate_note(
    task: TaskRows, entry: Mapping[str, Any], users: Array, split: str
) -> Note | None:
    if "ne" not in entry:
        return None
    y, p, w = task.labels, task.probabilities, task.weights
    own, constant = (
        logloss_influence(y, p, w),
        logloss_influence(y, np.full(y.size, w @ y / w.sum()), w),
    )
    assert not isinstance(own, Absent) and not isinstance(constant, Absent)
    error = clustered_error(own - constant, users, w > 0)
    return _loss_note(task.name, split, entry["logloss"], entry["logloss"] / entry["ne"], error)


def _loss_note(
    task: str, split: str, loss: float, base: float, error: float | Absent | None = None
) -> Note | None:
    if base == 0 or not loss > base * (1 + _ROUNDING):
        return None
    numbers: dict[str, Any] = {"logloss": loss, "base_rate_logloss": base, "ne": loss / base}
    text = (
        f"{task} on {split}: log loss {loss:.4f} is above {base:.4f}, that of always saying the "
        f"average rate (NE {loss / base:.3f})"
    )
    if isinstance(error, float):
        numbers |= {"standard_error": error, "within_chance": loss - base <= _Z95 * error}
        text += ", within chance" if numbers["within_chance"] else ""
    return {"code": "loss_above_base_rate", "task": task, "split": split, **numbers, "text": text}


def _popularity_note(
    task: TaskRows, entry: Mapping[str, Any], users: Array, split: str
) -> Note | None:
    if task.popularity is None or "auc" not in entry or "popularity_auc" not in entry:
        return None
    auc, popularity_auc = entry["auc"], entry["popularity_auc"]
    found = auc_difference(task.labels, task.probabilities, task.popularity, users, task.weights)
    interval = found if isinstance(found, Absent) else found.ci95
    if auc >= popularity_auc:
        return None
    within_chance = not isinstance(interval, Absent) and interval.high >= 0
    return {
        "code": "auc_below_popularity",
        "task": task.name,
        "split": split,
        "auc": auc,
        "popularity_auc": popularity_auc,
        **(
            {}
            if isinstance(interval, Absent)
            else {"difference_ci95": [interval.low, interval.high]}
        ),
        "within_chance": within_chance,
        "text": f"{task.name} on {split}: AUC {auc:.4f} is below {popularity_auc:.4f}, that of "
        "ranking by popularity alone" + (", within chance" if within_chance else ""),
    }
