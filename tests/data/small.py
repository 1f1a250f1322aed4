"""Logs of a few rows, written out in each test."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.preparation import prepare

DAY_MS = 86_400_000
MONDAY_MS = 1_767_571_200_000
"""2026-01-05 00:00 UTC"""

PLAIN = """
name: small
labels: {click: {}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""
"""One day each to train, valid and test."""


def at(day: int, hour: int = 0) -> int:
    """ms UTC; day 0 is the Monday, the train day of PLAIN."""
    return MONDAY_MS + day * DAY_MS + hour * 3_600_000


def shown(rows: list[tuple[Any, ...]], *names: str) -> dict[str, list[Any]]:
    """Rows of (user_id, item_id, time_ms, click, *names) as columns."""
    return {
        name: [row[i] for row in rows]
        for i, name in enumerate(("user_id", "item_id", "time_ms", "click", *names))
    }


ONE_EACH = shown([("u", "i", at(0), 1), ("u", "i", at(1), 0), ("u", "i", at(2), 0)])
"""One impression in every split."""


def write(
    folder: Path, schema: str = PLAIN, **tables: Mapping[str, Any] | pa.Table | bytes
) -> Path:
    """Write schema.yaml and ``name.parquet`` for every table (bytes are written as they are);
    returns the folder.
    """
    folder.mkdir(exist_ok=True)
    (folder / "schema.yaml").write_text(textwrap.dedent(schema))
    for name, content in tables.items():
        path = folder / f"{name}.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(
                content if isinstance(content, pa.Table) else pa.table(dict(content)), path
            )
    return folder


class Prepared:
    """A dataset folder, read back."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    def __call__(self, path: str, partition: int = 0) -> Any:
        """One array, such as ``items/number``; of users, history and splits that of a partition,
        such as ``train/labels``.
        """
        shared = path.startswith(("items/", "statistics/", "encoders/"))
        folder = self.folder if shared else self.partition(partition)
        return np.load(folder / f"{path}.npy")

    def partition(self, number: int = 0) -> Path:
        """The folder of a partition."""
        return self.folder / "partitions" / f"{number:05d}"

    def users(self, partition: int = 0) -> list[Any]:
        """Raw ids of the users of a partition in the order of their numbers."""
        return _ids(self.partition(partition) / "ids.parquet")

    def items(self) -> list[Any]:
        """Raw ids of the items in the order of their numbers."""
        return _ids(self.folder / "ids" / "items.parquet")

    def vocabulary(self, table: str) -> dict[str, int]:
        """Text -> id."""
        from hemix.data.encode import Encoders

        stem = list(Encoders.load(self.folder / "encoders").vocabularies).index(table)
        texts = pq.read_table(self.folder / "encoders" / f"{stem:03d}.parquet")
        return dict(
            zip(texts.column("value").to_pylist(), texts.column("id").to_pylist(), strict=True)
        )


def _ids(path: Path) -> list[Any]:
    return list(pq.read_table(path).column("id").to_pylist())


def prepared(
    folder: Path,
    schema: str = PLAIN,
    *,
    partitions: int = 1,
    memory_rows: int = 1000,
    **tables: Any,
) -> Prepared:
    """Write logs into ``folder/logs`` and prepare them into ``folder/data``."""
    logs, data = write(folder / "logs", schema, **tables), folder / "data"
    return Prepared(data, prepare(logs, data, partitions=partitions, memory_rows=memory_rows))
