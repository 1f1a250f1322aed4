"""Cells: what the users of one block did, by day, in one arm or in the logged days before.

A Parquet file each, whole or not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.files import storage_errors
from hemix.formats import FORMAT_KEY
from hemix.lab.abtest.analysis import Outcome
from hemix.lab.abtest.living import MEASURES
from hemix.lab.abtest.plan import EXPERIMENT_FORMAT

__all__ = ["Cell", "cell_path", "read_cell", "write_cell"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Of some users, in ascending order, or of none."""

    users: npt.NDArray[np.int64]
    outcome: Outcome
    """By measure [users, days]"""
    span: tuple[float, float] | None = None
    """Of those who lived with a server: when that began and ended, in seconds since 1970"""


def cell_path(out: Path, name: str, block: int) -> Path:
    """``name``: of an arm, or ``before``."""
    return out / "cells" / f"{name}-{block:04d}.parquet"


def write_cell(path: Path, cell: Cell) -> None:
    """Atomically. Raises StorageError."""
    facts = {
        FORMAT_KEY: str(EXPERIMENT_FORMAT.version),
        "days": str(cell.outcome["shown"].shape[1]),
    }
    if cell.span is not None:
        facts |= {"began": f"{cell.span[0]:.3f}", "ended": f"{cell.span[1]:.3f}"}
    table = pa.table(
        {
            "user": cell.users,
            **{
                name: pa.array(list(values), pa.list_(pa.float64()))
                for name, values in cell.outcome.items()
            },
        }
    )
    part = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        pq.write_table(table.replace_schema_metadata(facts), part)
        part.replace(path)


def read_cell(path: Path) -> Cell:
    """Raises DataError for a file that is damaged or of another version."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged: {error}; delete it to live that block again") from error
    facts = table.schema.metadata or {}
    EXPERIMENT_FORMAT.check_bytes(path, facts.get(FORMAT_KEY.encode()))
    shape = table.num_rows, int(facts[b"days"])
    return Cell(
        users=table["user"].to_numpy().astype(np.int64),
        outcome={
            name: np.array(table[name].to_pylist(), dtype=np.float64).reshape(shape)
            for name in MEASURES
        },
        span=(float(facts[b"began"]), float(facts[b"ended"])) if b"began" in facts else None,
    )
