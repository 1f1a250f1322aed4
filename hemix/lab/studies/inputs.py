"""The datasets of one study, and the impressions that its runs are judged on.

Several datasets are rolling origins: the same logs under the same schema, split at other days.
Knows datasets and saved predictions, not models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from hemix.data.dataset import Dataset
from hemix.errors import DataError
from hemix.evaluation.metrics import Array
from hemix.runs.evaluation import full_log_weights
from hemix.validation import first_difference

__all__ = ["Input", "JudgedRows", "judged_rows", "open_inputs"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One dataset folder."""

    folder: Path
    dataset: Dataset

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @cached_property
    def digest(self) -> str:
        """16 hex digits of all that the manifest says of the dataset's content."""
        manifest = self.dataset.manifest
        content = {key: manifest[key] for key in ("fingerprint", "files", "encoders")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def train_rows(self) -> int:
        """Impressions to train on."""
        return int(self.dataset.manifest["splits"]["train"]["rows"])

    def summary(self) -> dict[str, Any]:
        """JSON-able: what a report says of it."""
        manifest = self.dataset.manifest
        return {
            "name": self.name,
            "digest": self.digest,
            "fingerprint": manifest["fingerprint"],
            "split": self.dataset.schema.split.model_dump(mode="json", exclude_none=True),
            "rows": {name: split["rows"] for name, split in manifest["splits"].items()},
        }


def open_inputs(
    folders: Sequence[str | Path], *, opens_test: bool, small: str | Path | None = None
) -> tuple[list[Input], Input | None]:
    """The datasets of ``folders`` and ``small`` (to search on).

    Raises DataError unless their schemas are equal but for ``split``.

    Every array is compared with its hash; those of test only where ``opens_test``.
    """
    inputs = [Input(folder=Path(folder), dataset=Dataset(folder)) for folder in folders]
    searched = None if small is None else Input(folder=Path(small), dataset=Dataset(small))
    first = inputs[0]
    everything = inputs if searched is None else [*inputs, searched]
    for other in everything[1:]:
        schema = other.dataset.schema
        if schema.columns_fingerprint() != first.dataset.schema.columns_fingerprint():
            ours, theirs = (
                {key: value for key, value in s.model_dump(mode="json").items() if key != "split"}
                for s in (first.dataset.schema, schema)
            )
            where = first_difference(ours, theirs) or "which tables there are"
            raise DataError(
                f"{other.folder} cannot be compared with {first.folder}: their schemas may differ "
                "in the split alone, "
                f"but differ in {where}"
            )
    if len({one.digest for one in inputs}) < len(inputs):
        raise DataError(
            f"--data: the same dataset twice among {', '.join(str(one.folder) for one in inputs)}"
        )
    for one in everything:
        one.dataset.verify(but=None if opens_test else "test")
    return inputs, searched


@dataclass(frozen=True, kw_only=True)
class JudgedRows:
    """The impressions of one split of one dataset on which a task is judged."""

    rows: Array
    """int64 [m]: positions in the split"""
    labels: Array
    """float64 [m], 0 or 1"""
    weights: Array | None
    """float64 [m]; None: all 1"""
    users: Array
    """int64 [m]: positions among the users of all origins"""


def judged_rows(inputs: Sequence[Input], split: str) -> tuple[list[dict[str, JudgedRows]], int]:
    """Of every dataset the judged rows of every output (tasks, then ``order_given_click`` and its
    like), and how many users there are.

    A user is the same over all datasets: users are joined by their id.
    """
    known: dict[Any, int] = {}
    found = []
    for one in inputs:
        dataset = one.dataset
        part = dataset.split(split)
        positions = np.arange(part.impressions)
        labels = part.labels[positions].astype(np.float64)
        weights = full_log_weights(dataset.spec, labels, part.weight[positions].astype(np.float64))
        numbers, index = np.unique(part.user[part.request_of], return_inverse=True)
        ids = (
            pq.read_table(dataset.folder / "ids" / "users.parquet")
            .column(0)
            .take(numbers)
            .to_pylist()
        )
        users = np.array([known.setdefault(user, len(known)) for user in ids], dtype=np.int64)[
            index
        ]
        tasks = {}
        columns = {
            name: (column, task.given)
            for column, (name, task) in enumerate(
                zip(dataset.schema.tasks, dataset.spec.tasks, strict=True)
            )
        }
        for name, (column, given) in columns.items():
            masks = {name: labels[:, column] >= 0}
            if given is not None:
                masks[f"{name}_given_{dataset.schema.tasks[given]}"] = masks[name] & (
                    labels[:, given] == 1
                )
            for output, mask in masks.items():
                rows = np.flatnonzero(mask)
                equal = bool((weights[rows] == 1).all())
                tasks[output] = JudgedRows(
                    rows=rows,
                    labels=labels[rows, column],
                    weights=None if equal else weights[rows],
                    users=users[rows],
                )
        found.append({name: tasks[name] for name in dataset.schema.outputs})
    return found, len(known)
