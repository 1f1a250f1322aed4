"""Notes: warnings that a run is worse than a trivial baseline, or that training left a step out.

A note is JSON-able: ``{"code", "task", "split", "text"}`` and its numbers. Training writes notes to
metrics.json as ``notes``, evaluation to the split's entry; log, tables and report show their text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hemix.evaluation.influence import clustered_standard_error, logloss_influence
from hemix.evaluation.intervals import NORMAL_97_5, auc_difference
from hemix.evaluation.metrics import Array, UndefinedMetric
from hemix.evaluation.predictions import TaskRows
from hemix.evaluation.wording import RULES, words

__all__ = [
    "Note",
    "calibration_notes",
    "cut_off_note",
    "evaluation_notes",
    "one_class_note",
    "ranked_users_note",
    "training_notes",
    "valid_notes",
]

Note = dict[str, Any]

_ROUNDING = 5e-4
"""A loss that is above the base rate's by less than this (relative) has NE 1.000."""

_CALIBRATION_NOTES = {"left_out": "is left out", "held": "is held nearly flat"}


def evaluation_notes(
    tasks: Sequence[TaskRows], entries: Mapping[str, Mapping[str, Any]], users: Array, split: str
) -> list[Note]:
    """Notes of tasks whose log loss is above that of the base rate (NE above 1), or whose AUC is
    below that of a trivial rule: popularity, the position, or touched before.

    ``within_chance`` marks a note whose 95 % interval of the paired difference over users holds 0.

    Args:
        tasks: The rows of every task.
        entries: By task its metrics, as in metrics.json.
        users: Users of the split's rows, [n] integers.
        split: The split's name.

    Returns:
        The notes, task by task.
    """
    notes = list[Note]()
    for task in tasks:
        entry, users_of_rows = entries[task.name], users[task.rows]
        of_base_rate = _base_rate_note(task, entry, users_of_rows, split)
        notes += [of_base_rate] if of_base_rate is not None else []
        notes += _baseline_notes(task, entry, users_of_rows, split)
    return notes


def valid_notes(losses: Mapping[str, tuple[float, float]]) -> list[Note]:
    """Notes of tasks whose valid loss is above that of the base rate.

    ``losses`` holds by task (valid loss, loss of the base rate).
    """
    notes = (_loss_note(task, "valid", loss, base) for task, (loss, base) in losses.items())
    return [
        note | {"text": f"{note['text']}, before calibration"} for note in notes if note is not None
    ]


def calibration_notes(calibration: Mapping[str, Mapping[str, Any]]) -> list[Note]:
    """Notes of tasks whose Platt scaling was left out or limited.

    ``calibration`` is that of metrics.json: by task slope, shift and remarks.
    """
    return [
        {
            "code": f"calibration_{key}",
            "task": task,
            "split": "valid",
            "reason": entry[key],
            "text": f"calibration of {task} {outcome}: {entry[key]}",
        }
        for task, entry in calibration.items()
        for key, outcome in _CALIBRATION_NOTES.items()
        if key in entry
    ]


def training_notes(
    label_notes: Sequence[Note],
    validation_notes: Sequence[Note],
    calibration: Mapping[str, Mapping[str, Any]] | None,
) -> list[Note]:
    """Join all notes of a training run.

    Args:
        label_notes: Of :func:`one_class_note` and :func:`ranked_users_note`.
        validation_notes: Of :func:`valid_notes`.
        calibration: The ``calibration`` of metrics.json; None for a run without one.

    Returns:
        The notes, in this order.
    """
    return [*label_notes, *validation_notes, *calibration_notes(calibration or {})]


def one_class_note(task: str, positives: int, rows: int) -> Note:
    """Note that the train rows of a further task hold one class.

    Args:
        task: The task's name.
        positives: Positives among the rows that the loss counts.
        rows: Rows that the loss counts.

    Returns:
        The note.
    """
    return {
        "code": "one_class_in_train",
        "task": task,
        "split": "train",
        "positives": positives,
        "rows": rows,
        "text": f"{task} on train: {positives:,} positives among the {rows:,} rows that count: "
        f"nothing is learned of {task}",
    }


def cut_off_note(task: str, rounds: int) -> Note:
    """Note that boosting ended at the last round, before early stopping did.

    Args:
        task: The task's name.
        rounds: The value of ``boosting.rounds``.

    Returns:
        The note.
    """
    return {
        "code": "boosting_cut_off",
        "task": task,
        "split": "valid",
        "rounds": rounds,
        "text": f"boosting of {task} ended at boosting.rounds={rounds}, before early stopping "
        "did: more rounds may be better",
    }


def ranked_users_note(loss: str) -> Note:
    """Note that a ranking loss compares impressions of which the later may know the earlier.

    Args:
        loss: The value of ``train.ranking_loss``.

    Returns:
        The note.
    """
    return {
        "code": "ranking_within_users",
        "task": None,
        "split": "train",
        "text": f"train.ranking_loss={loss} within users: where histories or statistics of a later "
        "impression tell the outcome of an earlier one, GAUC rises without a better ranking; "
        "compare AUC and log loss, or set train.ranking_group=request",
    }


def _base_rate_note(
    task: TaskRows, entry: Mapping[str, Any], users: Array, split: str
) -> Note | None:
    if "ne" not in entry:
        return None
    y, p, w = task.labels, task.probabilities, task.weights
    of_model = logloss_influence(y, p, w)
    of_base_rate = logloss_influence(y, np.full(y.size, w @ y / w.sum()), w)
    assert not isinstance(of_model, UndefinedMetric)
    assert not isinstance(of_base_rate, UndefinedMetric)
    error = clustered_standard_error(of_model - of_base_rate, users, w > 0)
    return _loss_note(task.name, split, entry["logloss"], entry["logloss"] / entry["ne"], error)


def _loss_note(
    task: str,
    split: str,
    loss: float,
    base: float,
    error: float | UndefinedMetric | None = None,
) -> Note | None:
    if base == 0 or not loss > base * (1 + _ROUNDING):
        return None
    numbers: dict[str, Any] = {"logloss": loss, "base_rate_logloss": base, "ne": loss / base}
    text = (
        f"{task} on {split}: log loss {loss:.4f} is above {base:.4f}, that of always predicting "
        f"the average rate (NE {loss / base:.3f})"
    )
    if isinstance(error, float):
        numbers |= {"standard_error": error, "within_chance": loss - base <= NORMAL_97_5 * error}
        text += ", within chance" if numbers["within_chance"] else ""
    return {"code": "loss_above_base_rate", "task": task, "split": split, **numbers, "text": text}


def _baseline_notes(
    task: TaskRows, entry: Mapping[str, Any], users: Array, split: str
) -> list[Note]:
    """Notes of the baselines that rank better than the model."""
    notes = (
        _baseline_note(task, name, entry, users, split)
        for name in task.baselines
        if "auc" in entry and f"{name}_auc" in entry
    )
    return [note for note in notes if note is not None]


def _baseline_note(
    task: TaskRows, name: str, entry: Mapping[str, Any], users: Array, split: str
) -> Note | None:
    auc, baseline_auc = entry["auc"], entry[f"{name}_auc"]
    if auc >= baseline_auc:
        return None
    note: Note = {
        "code": f"auc_below_{name}",
        "task": task.name,
        "split": split,
        "auc": auc,
        f"{name}_auc": baseline_auc,
    }
    difference = auc_difference(
        task.labels, task.probabilities, task.baselines[name], users, task.weights
    )
    interval = difference if isinstance(difference, UndefinedMetric) else difference.ci95
    within_chance = False
    if not isinstance(interval, UndefinedMetric):
        note["difference_ci95"] = [interval.low, interval.high]
        within_chance = interval.high >= 0
    rule = RULES.get(name, words(name))
    text = f"{task.name} on {split}: AUC {auc:.4f} is below {baseline_auc:.4f}, that of {rule}"
    return {
        **note,
        "within_chance": within_chance,
        "text": text + (", within chance" if within_chance else ""),
    }
