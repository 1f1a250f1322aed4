"""The logs folder is complete or not there at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import StorageError
from hemix.lab.datasets.logs_folder import new_logs

PIECE = pa.table({"user_id": [1, 2]})


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "logs"
    with new_logs(out) as logs:
        logs.write("users", PIECE)
        logs.write("users", PIECE.slice(1))
        assert not out.exists()
    assert logs.rows == {"users": 3}
    assert pq.read_table(out / "users.parquet")["user_id"].to_pylist() == [1, 2, 2]
    assert [p.name for p in out.parent.iterdir()] == ["logs"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_or_interrupt_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_logs(tmp_path / "a" / "b" / "logs") as logs:
        logs.write("users", PIECE)
        raise error
    assert list(tmp_path.iterdir()) == []


def test_parents_that_were_there_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="mine"), new_logs(tmp_path / "a" / "b" / "logs"):
        raise ValueError("mine")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with (
        pytest.raises(StorageError, match=r"logs: the disk is full"),
        new_logs(tmp_path / "logs") as logs,
    ):
        logs.write("users", PIECE)
    assert list(tmp_path.iterdir()) == []
