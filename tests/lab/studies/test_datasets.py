"""The datasets of a study, and the rows on which its trials are evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hemix.data.dataset import Dataset
from hemix.errors import DataError
from hemix.lab.studies.datasets import evaluated_rows, open_datasets
from tests.refusals import raises


def test_the_same_dataset_twice_is_refused(planted_data: Path, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(planted_data)
    with raises(
        DataError, planted_data, tmp_path / "again", code="repeated_argument", field="--data"
    ):
        open_datasets([planted_data, tmp_path / "again"], verify_test=False)


def test_the_search_may_use_the_same_dataset_but_no_other_schema(
    planted_data: Path, rich_data: Path
) -> None:
    _, search = open_datasets([planted_data], verify_test=False, search_folder=planted_data)
    assert search is not None
    assert search.folder == planted_data
    with raises(DataError, planted_data, code="other_schema", field=rich_data):
        open_datasets([planted_data], verify_test=False, search_folder=rich_data)


@pytest.mark.parametrize(("split", "verify_test"), [("valid", False), ("test", True)])
def test_a_damaged_split_is_found_before_it_is_used(
    planted_data: Path, tmp_path: Path, split: str, verify_test: bool
) -> None:
    data = tmp_path / "data"
    shutil.copytree(planted_data, data)
    array = max(data.rglob(f"{split}/labels.npy"), key=lambda file: file.stat().st_size)
    content = array.read_bytes()
    array.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError) as error:
        open_datasets([data], verify_test=verify_test)
    assert array.name in str(error.value)
    if split == "test":
        open_datasets([data], verify_test=False)  # a study on valid does not read it


def test_rows_are_those_with_a_label_and_a_true_condition(rich_data: Path) -> None:
    """The rich logs have unknown labels, and orders only after a click."""
    dataset = open_datasets([rich_data], verify_test=False)[0]
    (rows,), users = evaluated_rows(dataset, "valid")
    split = Dataset(rich_data).split("valid")
    labels = np.asarray(split.labels[np.arange(split.impressions)])
    assert set(rows) == set(dataset[0].dataset.schema.outputs)
    click, order = rows["click"], rows["order"]
    assert click.rows.tolist() == np.flatnonzero(labels[:, 0] >= 0).tolist()
    assert 0 < len(click.rows) < split.impressions
    assert click.labels.tolist() == labels[click.rows, 0].tolist()
    assert order.rows.tolist() == np.flatnonzero(labels[:, 1] >= 0).tolist()
    given = rows["order_given_click"]
    expected = np.flatnonzero((labels[:, 1] >= 0) & (labels[:, 0] == 1))
    assert given.rows.tolist() == expected.tolist()
    assert users == len(np.unique(split.users_of(np.arange(split.requests))))
    assert set(click.users.tolist()) <= set(range(users))


def test_weights_are_kept_only_where_they_differ_from_1(
    planted_data: Path, rich_data: Path
) -> None:
    """The rich logs keep a quarter of the negatives, so each counts four times."""
    planted, rich = (
        evaluated_rows(open_datasets([data], verify_test=False)[0], "valid")[0][0]["click"]
        for data in (planted_data, rich_data)
    )
    assert planted.weights is None
    assert rich.weights is not None
    logged = np.asarray(Dataset(rich_data).split("valid").weight[rich.rows], np.float64)
    assert rich.weights == pytest.approx(np.where(rich.labels == 0, logged / 0.25, logged))
