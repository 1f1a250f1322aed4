"""Tables of scores: ids of users and items."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.data.layout import load_array, save_array
from hemix.runs import Run


@pytest.fixture
def data_with_an_unknown_item(rich_data: Path, tmp_path: Path) -> Path:
    """A copy of the dataset in which i3 is the unknown item."""
    copy = shutil.copytree(rich_data, tmp_path / "data")
    ids = pq.read_table(copy / "ids" / "items.parquet").column(0).to_pylist()
    number = np.array(load_array(copy / "items" / "number.npy"))
    number[number == ids.index("i3")] = -1
    (copy / "items" / "number.npy").unlink()
    save_array(copy / "items" / "number.npy", number)
    return copy


def test_unknown_item_is_null(
    rich_run: Path, rich_data: Path, data_with_an_unknown_item: Path
) -> None:
    run = Run.load(rich_run)
    items = run.predict(Dataset(rich_data))["item_id"].to_pylist()
    assert "i3" in items
    unknown = run.predict(Dataset(data_with_an_unknown_item))["item_id"].to_pylist()
    assert unknown == [None if item == "i3" else item for item in items]
