"""Files of arm results: one Parquet file per block of users and arm, in ``arm_results``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.files import storage_errors
from hemix.formats import FORMAT_KEY
from hemix.lab.abtest.measures import MEASURES, ArmResult
from hemix.lab.abtest.plan import EXPERIMENT_FORMAT

__all__ = ["RESULTS_FOLDER", "read_result", "result_path", "write_result"]

RESULTS_FOLDER = "arm_results"


def result_path(out: Path, name: str, block: int) -> Path:
    """Return the path of a result.

    Args:
        out: Folder of the experiment.
        name: Name of an arm, or PRE_PERIOD_NAME.
        block: Number of the block of users.

    Returns:
        Path of the Parquet file.
    """
    return out / RESULTS_FOLDER / f"{name}-{block:04d}.parquet"


def write_result(path: Path, result: ArmResult) -> None:
    """Write a result atomically.

    Args:
        path: File to write.
        result: Result of a block of users.

    Raises:
        StorageError: If the disk cannot be written.
    """
    metadata = {
        FORMAT_KEY: str(EXPERIMENT_FORMAT.version),
        "days": str(result.measures["shown"].shape[1]),
    }
    if result.server_interval is not None:
        began, ended = result.server_interval
        metadata |= {"began": f"{began:.3f}", "ended": f"{ended:.3f}"}
    measures = {
        name: pa.array(list(values), pa.list_(pa.float64()))
        for name, values in result.measures.items()
    }
    table = pa.table({"user": result.users, **measures})
    temporary = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        pq.write_table(table.replace_schema_metadata(metadata), temporary)
        temporary.replace(path)


def read_result(path: Path) -> ArmResult:
    """Read a result. Raises DataError for a file that is damaged or of another version."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: damaged: {error}",
            code="damaged_file",
            field=str(path),
            hint="delete it to simulate that block again",
        ) from error
    metadata = table.schema.metadata or {}
    EXPERIMENT_FORMAT.check_bytes(path, metadata.get(FORMAT_KEY.encode()))
    shape = table.num_rows, int(metadata[b"days"])
    return ArmResult(
        users=table["user"].to_numpy().astype(np.int64),
        measures={
            name: np.array(table[name].to_pylist(), dtype=np.float64).reshape(shape)
            for name in MEASURES
        },
        server_interval=(float(metadata[b"began"]), float(metadata[b"ended"]))
        if b"began" in metadata
        else None,
    )
