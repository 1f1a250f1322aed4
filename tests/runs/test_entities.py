"""A run folder's tables of users and items, which hashes protect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.dataset import Dataset
from hemix.data.keys import NULL_KEY, keys_of
from hemix.errors import DataError, RunError
from hemix.runs import Run
from tests.planted import DAY_MS, START_MS
from tests.refusals import raises


def test_entity_tables_hold_every_version_of_every_known_user_and_item(
    rich_logs: Path, rich_data: Path, rich_run: Path
) -> None:
    run, data = Run.load(rich_run), Dataset(rich_data)
    encoders = run.encoders()
    users, items = run.entities("user"), run.entities("item")
    assert (items.features.numbers == data.items.numbers).all()
    for number in data.partitions:
        partition = data.partition(number)
        first, ids = data.users.first[number], partition.user_ids
        numbers = encoders.users.look_up(keys_of(ids), -1)
        assert numbers.tolist() == list(range(first, first + len(ids)))
        rows = slice(*data.user_rows.first[number : number + 2])
        assert (users.features.ids[rows] == partition.users.ids).all()
        assert (users.versions.valid_from_ms[rows] == partition.user_array("valid_from_ms")).all()
        versions = np.diff(users.versions.first_row)[numbers]
        assert (versions == np.diff(partition.user_array("first_row"))).all()

    table = pq.read_table(rich_logs / "users.parquet")
    number = encoders.users.look_up(keys_of(pa.array(["u3", "u3"])), -1)
    first, second = users.versions.row_at(number, np.array([START_MS, START_MS + DAY_MS])).tolist()
    assert second == first + 1
    for row, of_table in ((first, 6), (second, 7)):
        latitude = table.column("lat")[of_table].as_py()
        assert np.allclose(
            users.coordinates[row, 0], np.nan if latitude is None else latitude, equal_nan=True
        )

    table = pq.read_table(rich_logs / "items.parquet")
    rows = items.versions.row_at(
        encoders.items.look_up(keys_of(pa.array([f"i{n}" for n in range(20)])), -1),
        np.full(20, START_MS),
    )
    price = table.column("price").to_numpy(zero_copy_only=False)
    assert np.allclose(items.raw[rows, 0], price.astype(float), equal_nan=True)
    for column, name in enumerate(("item_id", "category")):
        values = table.column(name).combine_chunks()
        assert (items.keys[rows, column] == keys_of(values)).all(), name
    assert items.keys[0, 0] == NULL_KEY, "the unknown item has no category"


def test_damaged_missing_and_absent_entity_tables_are_refused_by_name(
    rich_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(rich_run, tmp_path / "run")
    path = run / "items" / "raw.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with raises(DataError, code="damaged_file", field=path):
        Run.load(run).entities("item")
    path.unlink()
    with raises(DataError, code="missing_file", field=path):
        Run.load(run).entities("item")
    Run.load(run).entities("user")

    info = json.loads((run / "run.json").read_text())
    del info["entities"]
    (run / "run.json").write_text(json.dumps(info))
    with raises(RunError, run, code="missing_table", field="users"):
        Run.load(run).entities("user")
