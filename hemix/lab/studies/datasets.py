"""The datasets of a study, and the impressions on which its trials are evaluated.

Several datasets are rolling origins: the same logs and schema, split at different days.
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

from hemix.data.dataset import Dataset
from hemix.errors import DataError
from hemix.evaluation.metrics import Array
from hemix.runs.sampling import full_log_weights
from hemix.validation import first_difference

__all__ = ["EvaluatedRows", "StudyDataset", "evaluated_rows", "open_datasets"]


@dataclass(frozen=True, kw_only=True)
class StudyDataset:
    """One dataset folder of a study."""

    folder: Path
    dataset: Dataset

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def digest(self) -> str:
        """Hash of the dataset's content by its manifest, 16 hex digits."""
        content = [self.dataset.schema.fingerprint(), self.dataset.file_hashes()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def train_rows(self) -> int:
        """Number of training impressions."""
        return int(self.dataset.manifest["splits"]["train"]["rows"])

    def summary(self) -> dict[str, Any]:
        """Describe the dataset for a study's JSON file."""
        manifest = self.dataset.manifest
        return {
            "name": self.name,
            "digest": self.digest,
            "fingerprint": manifest["fingerprint"],
            "split": self.dataset.schema.split.model_dump(mode="json", exclude_none=True),
            "rows": {name: split["rows"] for name, split in manifest["splits"].items()},
        }


def open_datasets(
    folders: Sequence[str | Path],
    *,
    verify_test: bool,
    search_folder: str | Path | None = None,
) -> tuple[list[StudyDataset], StudyDataset | None]:
    """Open and verify the datasets of a study.

    Args:
        folders: The dataset folders; their schemas may differ only in ``split``.
        verify_test: Compare the arrays of the test split with their hashes, as all other arrays.
        search_folder: A smaller dataset for the search of settings.

    Returns:
        The datasets, and the one for the search or None.

    Raises:
        DataError: A dataset is damaged, given twice, or its schema differs.
    """
    datasets = [StudyDataset(folder=Path(folder), dataset=Dataset(folder)) for folder in folders]
    search_dataset = None
    if search_folder is not None:
        search_dataset = StudyDataset(folder=Path(search_folder), dataset=Dataset(search_folder))
    opened = [*datasets, *([search_dataset] if search_dataset is not None else [])]
    for other in opened[1:]:
        _check_same_schema(opened[0], other)
    if len({dataset.digest for dataset in datasets}) < len(datasets):
        names = ", ".join(str(dataset.folder) for dataset in datasets)
        raise DataError(
            f"--data: the same dataset twice among {names}",
            code="repeated_argument",
            field="--data",
        )
    for dataset in opened:
        dataset.dataset.verify(but=None if verify_test else "test")
    return datasets, search_dataset


def _check_same_schema(first: StudyDataset, other: StudyDataset) -> None:
    if other.dataset.schema.columns_fingerprint() == first.dataset.schema.columns_fingerprint():
        return
    expected, actual = (
        {
            key: value
            for key, value in dataset.dataset.schema.model_dump(mode="json").items()
            if key != "split"
        }
        for dataset in (first, other)
    )
    difference = first_difference(expected, actual) or "the set of tables"
    raise DataError(
        f"{other.folder} cannot be compared with {first.folder}: their schemas may differ only in "
        f"the split, but differ in {difference}",
        code="other_schema",
        field=str(other.folder),
    )


@dataclass(frozen=True, kw_only=True)
class EvaluatedRows:
    """The impressions of a split on which one output is evaluated; m of them."""

    rows: Array
    """int64 [m]: positions in the split"""
    labels: Array
    """float64 [m], 0 or 1"""
    weights: Array | None
    """float64 [m]; None: all 1"""
    users: Array
    """int64 [m]: positions among the users of all datasets"""


def evaluated_rows(
    datasets: Sequence[StudyDataset], split: str
) -> tuple[list[dict[str, EvaluatedRows]], int]:
    """Select the evaluated impressions of every output.

    Args:
        datasets: The datasets; users are matched over them by their id.
        split: valid or test.

    Returns:
        For every dataset the rows by output (tasks, then conditional ones such as
        ``order_given_click``), and the number of distinct users.
    """
    user_positions: dict[Any, int] = {}
    rows_by_dataset = [_rows_by_output(each.dataset, split, user_positions) for each in datasets]
    return rows_by_dataset, len(user_positions)


def _rows_by_output(
    dataset: Dataset, split: str, user_positions: dict[Any, int]
) -> dict[str, EvaluatedRows]:
    """Select the rows of one dataset; adds its new users to ``user_positions``."""
    data = dataset.split(split)
    labels = data.labels.read().astype(np.float64)
    weights = full_log_weights(dataset.spec, labels, data.weight.read().astype(np.float64))
    requests = data.requests_of(np.arange(data.impressions))
    numbers, index = np.unique(data.users_of(requests), return_inverse=True)
    ids = dataset.user_ids(numbers).to_pylist()
    joined = [user_positions.setdefault(user, len(user_positions)) for user in ids]
    users = np.array(joined, dtype=np.int64)[index]
    names = dataset.schema.tasks
    rows_by_output = {}
    for column, (name, task) in enumerate(zip(names, dataset.spec.tasks, strict=True)):
        masks = {name: labels[:, column] >= 0}
        if task.given is not None:
            condition = labels[:, task.given] == 1
            masks[f"{name}_given_{names[task.given]}"] = masks[name] & condition
        for output, mask in masks.items():
            rows = np.flatnonzero(mask)
            unweighted = bool((weights[rows] == 1).all())
            rows_by_output[output] = EvaluatedRows(
                rows=rows,
                labels=labels[rows, column],
                weights=None if unweighted else weights[rows],
                users=users[rows],
            )
    return {name: rows_by_output[name] for name in dataset.schema.outputs}
