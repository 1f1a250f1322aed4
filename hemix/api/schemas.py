"""Functions that draft and check the schema of logs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hemix.api.types import PathLike, Progress, ignore_progress

__all__ = ["check", "init", "json_schema"]


def init(logs: PathLike, out: PathLike | None = None) -> Path:
    """Write the draft of a schema for logs that have none, with a comment for every guess.

    Tables, roles, feature types, labels and the split are guessed from names and values of the
    Parquet files. Read the draft before you use it.

    Args:
        logs: A folder with Parquet files, or folders of these.
        out: The new file; None: ``schema.yaml`` in ``logs``.

    Returns:
        The file.

    Raises:
        DataError: No table has users, items and times, or none has a label.
        UsageError: ``out`` exists.
    """
    from hemix.schema_draft import write_draft

    return write_draft(Path(logs), None if out is None else Path(out))


def check(
    logs: PathLike, *, processes: int = 1, on_progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Check logs as a preparation does, and keep nothing.

    The dataset is made in a temporary folder of the system and removed.

    Args:
        logs: A folder of logs with a schema.yaml.
        processes: Processes of this machine that work at a time.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        The content of manifest.json: counts, join rates, and rates of missing and unknown values.

    Raises:
        SchemaError: The schema does not fit the tables.
        DataError: A value cannot be used; the message names file, row and column.
    """
    from hemix.preparation import prepare

    with tempfile.TemporaryDirectory(prefix="hemix-check-") as folder:
        return prepare(Path(logs), Path(folder) / "data", processes=processes, progress=on_progress)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of schema.yaml, with which editors complete and check it."""
    from hemix.schema.json_schema import json_schema as build

    return build()
