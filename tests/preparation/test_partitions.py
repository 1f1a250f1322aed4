"""Datasets in any number of partitions, by any number of processes: the same rows and bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hemix.errors import UsageError
from hemix.lab.datasets import import_logs
from hemix.lab.simulator import simulate
from hemix.preparation import prepare
from hemix.preparation.user_partitions import default_partitions, partition_of
from tests.data.small import ONE_EACH, Prepared, at, prepared, shown, write
from tests.made_once import make_once
from tests.preparation.canonical_rows import canonical_hashes, table_digests
from tests.preparation.same_bytes import file_hashes
from tests.refusals import raises

# Digests of all rows as the format before partitions held them. Where a change of the simulator
# or of the importer changes the logs, prepare these logs without partitions to make them again.
CITY = {
    "users": "9e48948d1f759aca",
    "history": "d9b3de26e5729d0f",
    "train": "596bc36543c5c4fe",
    "valid": "b4b94b69c676bdfb",
    "test": "1818b3a7a5b116f6",
    "items": "bc05bb0d90bfd32d",
    "statistics": "b811fc04994bf8b6",
    "encoders": "92f9e7d4c9c053e7",
    "ids": "3b3ab2202efd99b3",
}
KUAIRAND = {
    "users": "741e790f95fb92be",
    "history": "0d67ae316d7a0653",
    "train": "3bd2df92b63c5272",
    "valid": "81d10efa3e01d948",
    "test": "9ceb5043e47e2f24",
    "items": "1d3109f9ed458b1e",
    "statistics": "463bb4b8720061dd",
    "encoders": "f8f904636228d352",
    "ids": "e1586c734ca77856",
}
SHARED = ("encoders/", "items/", "ids/", "statistics/")


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of a small city; read only."""
    return make_once(
        tmp_path_factory, "city/logs", lambda out: simulate(out, users=300, days=6, seed=1)
    )


@pytest.fixture(scope="session")
def city_data(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those logs in five partitions; read only."""
    return make_once(tmp_path_factory, "city/data", lambda out: prepare(city, out, partitions=5))


# -- rows ------------------------------------------------------------------------------------------


def test_five_partitions_of_the_city_hold_the_rows_of_the_format_before(city_data: Path) -> None:
    assert table_digests(canonical_hashes(city_data)) == CITY


@pytest.mark.sampled(2)
@pytest.mark.parametrize("partitions", [1, 64])
def test_the_number_of_partitions_changes_no_row_and_no_shared_byte(
    city: Path, city_data: Path, tmp_path: Path, partitions: int
) -> None:
    data = tmp_path / "data"
    prepare(city, data, partitions=partitions)
    assert len(list((data / "partitions").iterdir())) == partitions
    assert table_digests(canonical_hashes(data)) == CITY
    hashes, others = file_hashes(data), file_hashes(city_data)
    shared = [name for name in others if name.startswith(SHARED)]
    assert len(shared) > 50
    assert {name: hashes.get(name) for name in shared} == {name: others[name] for name in shared}


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("partitions", [1, 5, 64])
def test_kuairand_holds_the_rows_of_the_format_before(
    kuairand: Path, tmp_path: Path, partitions: int
) -> None:
    import_logs("kuairand", kuairand, tmp_path / "logs")
    prepare(tmp_path / "logs", tmp_path / "data", partitions=partitions)
    assert table_digests(canonical_hashes(tmp_path / "data")) == KUAIRAND


def test_a_split_without_rows_of_a_partition_is_empty(tmp_path: Path) -> None:
    rows = [(user, "i", at(day), 1) for day, user in enumerate(("u", "v", "w"))]
    data = prepared(tmp_path, impressions=shown(rows), partitions=64)
    users = {user: partition for partition in range(64) for user in data.users(partition)}
    assert set(users) == {"u", "v", "w"}
    assert data("train/log_row", users["u"]).tolist() == [0]
    assert data("test/log_row", users["u"]).tolist() == []
    assert data("test/first_candidate", users["u"]).tolist() == [0]
    [empty, *_] = set(range(64)) - set(users.values())
    assert data("train/labels", empty).shape == (0, 1)
    assert data("history/offsets", empty).tolist() == [0]


# -- the same bytes --------------------------------------------------------------------------------


def test_two_processes_write_the_same_bytes(city: Path, city_data: Path, tmp_path: Path) -> None:
    prepare(city, tmp_path / "data", partitions=5, processes=2)
    assert file_hashes(tmp_path / "data") == file_hashes(city_data)


def test_ranges_of_users_write_the_same_bytes(city: Path, city_data: Path, tmp_path: Path) -> None:
    """A partition that is larger than memory."""
    prepare(city, tmp_path / "data", partitions=5, memory_rows=2000)
    assert file_hashes(tmp_path / "data") == file_hashes(city_data)


def test_files_and_folders_with_odd_names(city: Path, city_data: Path, tmp_path: Path) -> None:
    """They are read in the order of their paths, by one process and by two."""
    logs = tmp_path / "lo gs%20"
    logs.mkdir()
    for path in city.iterdir():
        if path.name != "impressions.parquet":
            (logs / path.name).symlink_to(path)
    rows = pq.read_table(city / "impressions.parquet")
    names = [
        " b=%/x.parquet",
        "a b/%20.parquet",
        "a b/+?.parquet",
        "ä/#&'\".parquet",
        "ä/=.parquet",
    ]
    size = -(-rows.num_rows // len(names))
    for number, name in enumerate(names):
        path = logs / "impressions.parquet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.slice(number * size, size), path, row_group_size=1000)
    hashes = []
    for processes in (1, 2):
        data = tmp_path / f"da ta%20{processes}"
        manifest = prepare(logs, data, partitions=5, processes=processes)
        assert manifest["tables"]["impressions"] == {"rows": rows.num_rows, "files": len(names)}
        hashes.append(file_hashes(data))
    assert hashes[0] == hashes[1]
    one = file_hashes(city_data)
    del hashes[0]["manifest.json"], one["manifest.json"]
    assert hashes[0] == one


# -- which partition -------------------------------------------------------------------------------


@given(ids=st.lists(st.text(max_size=40), min_size=1, max_size=9), partitions=st.integers(1, 10**6))
def test_the_partition_is_that_of_spark(ids: list[str], partitions: int) -> None:
    """pmod(xxhash64(id), P), where the hash is signed."""
    expected = []
    for text in ids:
        unsigned = xxhash.xxh64_intdigest(text.encode(), seed=42)
        expected.append((unsigned - 2**64 * (unsigned >= 2**63)) % partitions)
    assert partition_of(pa.array(ids, pa.string()), partitions).tolist() == expected


@pytest.mark.parametrize(
    ("rows", "partitions"),
    [(0, 8), (4_000_000, 8), (4_000_001, 16), (8_000_001, 32), (32_000_000, 64), (10**10, 64)],
)
def test_default_number_of_partitions(rows: int, partitions: int) -> None:
    assert default_partitions(rows) == partitions


@pytest.mark.parametrize("partitions", [0, -1, 1_000_001])
def test_a_number_of_partitions_out_of_range_is_refused(tmp_path: Path, partitions: int) -> None:
    logs = write(tmp_path / "logs", impressions=ONE_EACH)
    with raises(UsageError, "1,000,000", field="--partitions"):
        prepare(logs, tmp_path / "data", partitions=partitions)
    assert not (tmp_path / "data").exists()


def test_a_dataset_is_extended_in_the_partitions_that_it_has(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", impressions=ONE_EACH)
    prepare(logs, tmp_path / "first", partitions=3)
    later = Prepared(
        tmp_path / "later", prepare(logs, tmp_path / "later", init_from=tmp_path / "first")
    )
    assert len(later.manifest["partitions"]) == 3
    with raises(UsageError, "3", field="--partitions"):
        prepare(logs, tmp_path / "none", init_from=tmp_path / "first", partitions=4)
    assert not (tmp_path / "none").exists()
