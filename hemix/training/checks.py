"""Checks before anything is trained or written: the run folder, the labels and the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hemix.data.dataset import Dataset
from hemix.data.spec import InputSpec
from hemix.errors import DataError, SettingsError, UsageError
from hemix.evaluation.notes import Note, one_class_note, ranked_users_note
from hemix.files import out_exists
from hemix.models import NeuralConfig, count_parameters
from hemix.runs.folder import INFO_FILE
from hemix.runs.weights import DENSE_FILE, TABLES_FILE
from hemix.settings import Settings
from hemix.training.parent import PARENT_FILE

__all__ = ["check_labels", "check_memory", "check_out", "check_pairs", "process_bytes"]

_ROWS_PER_CHUNK = 1 << 20

_RUN_FILES = {
    "log.jsonl",  # the first to be written
    PARENT_FILE,
    "settings.yaml",
    "schema.yaml",
    "encoders",
    "users",
    "items",
    "statistics",
    "checkpoints",
    "tensorboard",
    DENSE_FILE,
    TABLES_FILE,
    "metrics.json",
}
"""Names in the folder of an unfinished run"""


def check_out(out: Path, *, resume: bool) -> None:
    """Check that a run folder can be used. The ``logs`` and ``data`` of a demo may lie in it.

    Args:
        out: The run folder.
        resume: Whether it may hold an unfinished run.

    Raises:
        UsageError: If it is neither new nor, with ``resume``, an unfinished run.
    """
    if out.exists() and not out.is_dir():
        raise out_exists(out, "is a file")
    if (out / INFO_FILE).exists():
        raise out_exists(out, "holds a finished run")
    names = {path.name for path in out.iterdir()} - {"logs", "data"} if out.exists() else set[str]()
    visible = {name for name in names if not name.startswith(".")}
    is_unfinished_run = "log.jsonl" in names and visible <= _RUN_FILES
    if names and not is_unfinished_run:
        raise out_exists(out)
    if names and not resume:
        raise UsageError(
            f"--out {out}: an unfinished run: add --resume to continue it",
            code="unfinished_run",
            field="--out",
        )


def check_labels(data: Dataset) -> list[Note]:
    """Check that the train rows hold both classes of the first label.

    Rows whose weight is 0 do not count. Returns the notes on further labels of one class. Raises
    DataError for the first label.
    """
    notes = list[Note]()
    counts = _weighted_counts(data) if data.schema.roles.weight is not None else _counts(data)
    for number, (task, (positives, rows)) in enumerate(counts.items()):
        if positives not in (0, rows):
            continue
        if number:
            notes.append(one_class_note(task, positives, rows))
            continue
        weight = data.schema.roles.weight
        counted = "it is known" if weight is None else f"it is known and {weight} is above 0"
        raise DataError(
            f"{data.folder}: {positives} positives of {task} among the {rows} train rows where "
            f"{counted}: nothing can be learned from one class",
            code="one_class",
            field=f"labels.{task}",
        )
    return notes


def _counts(data: Dataset) -> dict[str, tuple[int, int]]:
    """Count the train rows with a known label by task: (positives, rows)."""
    train = data.manifest["splits"]["train"]
    return {
        task: (train["positives"][task], train["rows"] - train["unknown"][task])
        for task in data.schema.tasks
    }


def _weighted_counts(data: Dataset) -> dict[str, tuple[int, int]]:
    """Count the same of rows whose weight is above 0."""
    train = data.split("train")
    counts = np.zeros((2, len(data.schema.tasks)), dtype=np.int64)
    for first in range(0, train.impressions, _ROWS_PER_CHUNK):
        rows = np.arange(first, min(first + _ROWS_PER_CHUNK, train.impressions))
        labels = train.labels[rows][train.weight[rows] > 0]
        counts += np.stack([(labels == 1).sum(0), (labels >= 0).sum(0)])
    return {
        task: (int(positives), int(known))
        for task, positives, known in zip(data.schema.tasks, *counts, strict=True)
    }


def check_pairs(data: Dataset, settings: Settings) -> list[Note]:
    """Check that a ranking loss has pairs: train rows of both classes of a label in one group.

    Rows whose weight is 0 do not count.

    Args:
        data: The dataset to train on.
        settings: Of the run.

    Returns:
        A note where the groups are users.

    Raises:
        DataError: No group has a pair.
    """
    loss, group = settings.train.ranking_loss, settings.train.ranking_group
    if loss == "none":
        return []
    train = data.split("train")
    for first in range(0, train.impressions, _ROWS_PER_CHUNK):
        rows = np.arange(first, min(first + _ROWS_PER_CHUNK, train.impressions))
        groups = train.requests_of(rows)
        if group == "user":
            groups = train.users_of(groups)
        labels = np.where(train.weight[rows][:, None] > 0, train.labels[rows], -1)
        for label in labels.T:
            if np.intersect1d(groups[label == 1], groups[label == 0]).size:
                return [ranked_users_note(loss)] if group == "user" else []
    requests = "" if data.schema.roles.request_id else "; the schema names no roles.request_id"
    raise DataError(
        f"{data.folder}: train.ranking_loss={loss}: no {group} of the train rows has a positive "
        f"and a negative of one label{requests if group == 'request' else ''}",
        code="no_pairs",
        field="train.ranking_loss",
        hint="set train.ranking_loss=none"
        + (", or train.ranking_group=user with train.shuffle=users" if group == "request" else ""),
    )


def process_bytes(spec: InputSpec, settings: Settings, processes: int) -> tuple[int, int, int]:
    """Return the bytes of fp32 in the process of rank 0, which needs most.

    These are weights, gradients of the dense part, optimiser state and averages. Activations,
    batches, the gradients of a step's rows and the library itself are not counted
    (docs/how-to/several-processes.md).

    Args:
        spec: The dataset's columns and tables.
        settings: Of the run.
        processes: Number of processes.

    Returns:
        Bytes of its rows of the tables, of the dense part, which every process has whole, and of
        the copy from which an asynchronous checkpoint is written.
    """
    assert isinstance(settings.model, NeuralConfig), "a model without embedding tables"
    train, width = settings.train, settings.model.embedding_size
    dense, _ = count_parameters(spec, settings.model)
    averages = train.ema_decay > 0
    row_values = (3 * width if train.table_optimizer == "adam" else width + 1) + (
        width + 1 if averages else 0
    )
    tables = 4 * -(-sum(spec.tables.values()) // processes) * row_values
    saved = 4 * dense * (4 if averages else 3)
    copies = train.async_checkpoint and train.checkpoint_every_steps > 0
    return tables, saved + 4 * dense, tables + saved if copies else 0


def check_memory(spec: InputSpec, settings: Settings, processes: int) -> None:
    """Check the memory of a process against ``train.memory_budget_bytes``.

    Args:
        spec: The dataset's columns and tables.
        settings: Of the run.
        processes: Number of processes.

    Raises:
        SettingsError: Naming the numbers of processes that fit the budget.
    """
    budget = settings.train.memory_budget_bytes
    tables, dense, copy = process_bytes(spec, settings, processes)
    if not budget or tables + dense + copy <= budget:
        return
    copied = f", {copy:,} of the copy for a checkpoint" if copy else ""
    need = (
        f"{tables:,} bytes of tables, {dense:,} of the dense part{copied} a process, {processes} "
        "in all"
    )
    remedies = [_enough(spec, settings, budget)]
    if copy:
        train = settings.train.model_copy(update={"async_checkpoint": False})
        fewer = _enough(spec, settings.model_copy(update={"train": train}), budget)
        remedies.insert(0, f"{fewer} with train.async_checkpoint=false" if fewer else None)
    suggestion = " or ".join(remedy for remedy in remedies if remedy)
    if not suggestion:
        raise SettingsError(
            f"train.memory_budget_bytes: {budget:,} is too little on any number: {need}",
            field="train.memory_budget_bytes",
        )
    raise SettingsError(
        f"train.memory_budget_bytes: {budget:,} is too little: {need}",
        field="train.memory_budget_bytes",
        hint=f"{suggestion} would do",
    )


def _enough(spec: InputSpec, settings: Settings, budget: int) -> str | None:
    """Return the least number of processes that fit the budget, in words; None: none fits."""
    tables, dense, copy = process_bytes(spec, settings, 1)
    rows = 2 * tables if copy else tables
    fixed = tables + dense + copy - rows
    total = sum(spec.tables.values())
    rows_per_process = (budget - fixed) * total // max(rows, 1) if budget > fixed else 0
    if rows_per_process < 1:
        return None
    processes = max(1, -(-total // rows_per_process))
    return "one process" if processes == 1 else f"{processes} processes"
