"""Public data sets: raw files to logs and schema.yaml, which ``hemix prepare`` reads.

An import finds and checks its files before it writes. It does not encode, sort or split.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hemix.lab.datasets.ebnerd import open_ebnerd
from hemix.lab.datasets.kuairand import open_kuairand
from hemix.lab.datasets.logs_writer import LogsWriter, create_logs
from hemix.lab.datasets.mind import open_mind
from hemix.lab.datasets.movielens import open_movielens
from hemix.lab.datasets.options import ImportOptions
from hemix.validation import unknown_name

__all__ = ["DATASETS", "ImportOptions", "PublicDataset", "import_logs"]


class PublicDataset(Protocol):
    """The raw files of one data set, checked."""

    def write(self, logs: LogsWriter) -> None:
        """Write every table and the schema."""


_NO_OPTIONS = ImportOptions()

DATASETS: dict[str, Callable[[Path, ImportOptions], PublicDataset]] = {
    "ebnerd": open_ebnerd,
    "kuairand": open_kuairand,
    "mind": open_mind,
    "movielens": open_movielens,
}
"""Name -> function of the raw folder and the options."""


def import_logs(
    name: str, raw: Path, out: Path, options: ImportOptions = _NO_OPTIONS
) -> dict[str, int]:
    """Convert the raw files of a public data set to logs.

    Args:
        name: A key of :data:`DATASETS`.
        raw: The folder with the raw files.
        out: The folder to create. An error leaves no folder behind.
        options: What only some data sets have.

    Returns:
        The number of rows written, by table.

    Raises:
        UsageError: The name is unknown, the data set lacks an option, or ``out`` is not empty.
        DataError: Files are missing, ambiguous or malformed.
        StorageError: ``out`` cannot be written.
    """
    if name not in DATASETS:
        raise unknown_name(f"import {name}: unknown data set", DATASETS)
    with create_logs(Path(out)) as logs:
        DATASETS[name](Path(raw), options).write(logs)
    return dict(logs.rows)
