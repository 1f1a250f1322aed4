"""The writer of a logs folder: the folder is complete, or it does not exist."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import StorageError
from hemix.lab.datasets.logs_writer import create_logs
from tests.refusals import raises

USERS = pa.table({"user_id": [1, 2]})


def test_folder_appears_only_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "a" / "logs"
    with create_logs(out) as logs:
        logs.write("users", USERS)
        logs.write("users", USERS.slice(1))
        assert not out.exists()
    assert logs.rows == {"users": 3}
    assert pq.read_table(out / "users.parquet")["user_id"].to_pylist() == [1, 2, 2]
    assert [p.name for p in out.parent.iterdir()] == ["logs"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_error_or_interrupt_leaves_no_folder(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), create_logs(tmp_path / "a" / "b" / "logs") as logs:
        logs.write("users", USERS)
        raise error
    assert list(tmp_path.iterdir()) == []


class _OfTheTest(Exception):
    pass


def test_existing_parents_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(_OfTheTest), create_logs(tmp_path / "a" / "b" / "logs"):
        raise _OfTheTest
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert list((tmp_path / "a").iterdir()) == []


def test_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with (
        raises(StorageError, code="disk_full", field=tmp_path / "logs"),
        create_logs(tmp_path / "logs") as logs,
    ):
        logs.write("users", USERS)
    assert list(tmp_path.iterdir()) == []
