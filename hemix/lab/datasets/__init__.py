"""Public data sets: raw files -> logs and a schema, which `hemix prepare` takes like anybody's.

A source finds and checks its files first, then writes; it encodes, sorts, splits and drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hemix.errors import UsageError
from hemix.lab.datasets.kuairand import find_kuairand
from hemix.lab.datasets.logs_folder import LogsFolder, new_logs
from hemix.lab.datasets.movielens import find_movielens

__all__ = ["SOURCES", "Source", "import_logs"]


class Source(Protocol):
    """The raw files of one data set, found and checked."""

    def write(self, logs: LogsFolder) -> None:
        """Write every table and the schema."""


SOURCES: dict[str, Callable[[Path, bool], Source]] = {
    "kuairand": find_kuairand,
    "movielens": find_movielens,
}
"""Name -> (raw folder, with the random log?) -> source."""


def import_logs(name: str, raw: Path, out: Path, *, random_log: bool = False) -> dict[str, int]:
    """Turn the raw files of data set ``name`` in the folder ``raw`` into logs and schema.yaml in
    the new folder ``out``.

    ``random_log`` adds KuaiRand's randomly exposed videos. Returns the rows of every table written.
    Raises UsageError (unknown name, ``out`` not empty), DataError (files missing, ambiguous or
    malformed) or StorageError, and then leaves no ``out``.
    """
    if name not in SOURCES:
        raise UsageError(f"import {name}: unknown data set; known: {', '.join(SOURCES)}")
    with new_logs(Path(out)) as logs:
        SOURCES[name](Path(raw), random_log).write(logs)
    return dict(logs.rows)
