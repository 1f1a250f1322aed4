"""Extend the vocabularies of earlier encoders by the values of a later day.

Known values keep their ids, new values get free rows, and values that were not seen for a while
lose theirs. Bucket edges and scales stay, so that ids and numbers keep their meaning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.data.encode import Encoders
from hemix.data.keys import KeyMap
from hemix.data.layout import MANIFEST_FORMAT
from hemix.data.levels import all_features
from hemix.data.spec import FIRST
from hemix.errors import DataError, UsageError
from hemix.schema import Schema
from hemix.validation import first_difference

__all__ = ["PreviousEncoders", "extend_vocabulary"]

Array = npt.NDArray[Any]

_DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviousEncoders:
    """The encoders of an earlier dataset or run."""

    encoders: Encoders
    texts: Mapping[str, pa.Table]
    """By vocabulary a table (id, value, count) for people"""
    partitions: int | None = None
    """Number of partitions of the earlier dataset; None: a run"""
    vocabulary_ttl_ms: int | None = None
    """A value without train rows for longer than this loses its row; None: never"""

    @classmethod
    def load(
        cls, folder: str | Path, schema: Schema, vocabulary_ttl_days: int | None = None
    ) -> PreviousEncoders:
        """Read the encoders of a dataset or run folder.

        Args:
            folder: The folder.
            schema: The schema of the new logs.
            vocabulary_ttl_days: See :attr:`vocabulary_ttl_ms`, in days.

        Raises:
            UsageError: The folder has no encoders.
            DataError: Its schema differs from that of the logs, or a file cannot be read or is of
                another version.
        """
        path, manifest = Path(folder) / "encoders", Path(folder) / "manifest.json"
        if not (path / "encoders.json").is_file():
            raise UsageError(
                f"--init-from {folder}: expected a dataset or run folder, found no "
                "encoders/encoders.json",
                field="--init-from",
            )
        encoders = Encoders.load(path)
        if encoders.schema.columns_fingerprint() != schema.columns_fingerprint():
            ours, theirs = (
                s.model_dump(mode="json", exclude={"split"}) for s in (encoders.schema, schema)
            )
            difference = first_difference(ours, theirs) or "which tables there are"
            raise DataError(
                f"--init-from {folder}: has another schema than these logs: they differ in "
                f"{difference}",
                code="other_schema",
                field="--init-from",
            )
        return cls(
            encoders=encoders,
            texts=cls._load_texts(path, encoders),
            partitions=len(MANIFEST_FORMAT.read(manifest)["partitions"])
            if manifest.is_file()
            else None,
            vocabulary_ttl_ms=None
            if vocabulary_ttl_days is None
            else vocabulary_ttl_days * _DAY_MS,
        )

    @staticmethod
    def _load_texts(folder: Path, encoders: Encoders) -> dict[str, pa.Table]:
        texts = {}
        for i, name in enumerate(encoders.vocabularies):
            path = folder / f"{i:03d}.parquet"
            try:
                texts[name] = pq.read_table(path)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: cannot be read: {error}") from error
        return texts


def extend_vocabulary(
    new: Encoders, texts: Mapping[str, pa.Table], previous: PreviousEncoders, now_ms: int
) -> tuple[Encoders, dict[str, pa.Table], dict[str, dict[str, int]]]:
    """Extend earlier vocabularies by the values of new encoders.

    Args:
        new: Encoders fitted to the new rows.
        texts: By vocabulary of ``new`` a table (id, value, count) for people.
        previous: The encoders to extend.
        now_ms: End of the new train rows, in ms UTC.

    Returns:
        The new encoders with the earlier ids; their tables for people; and by vocabulary the number
        of ``kept``, ``added`` and ``forgotten`` values.
    """
    old = previous.encoders
    vocabularies, seen, values = dict[str, KeyMap](), dict[str, Array](), dict[str, pa.Table]()
    counts = dict[str, dict[str, int]]()
    for table, fresh in new.vocabularies.items():
        before = old.vocabularies[table]
        last_seen_ms = np.where(np.isin(before.keys, fresh.keys), now_ms, old.seen[table])
        remains = np.ones(len(last_seen_ms), bool)
        if previous.vocabulary_ttl_ms is not None:
            remains = now_ms - last_seen_ms <= previous.vocabulary_ttl_ms
        added, ids = _new_ids(before, fresh, remains, _max_rows(new.schema, table))
        keys = np.concatenate([before.keys[remains], added])
        numbers = np.concatenate([before.numbers[remains], ids])
        order = np.argsort(keys)
        vocabularies[table] = KeyMap(keys[order], numbers[order].astype(np.int32))
        seen[table] = np.concatenate([last_seen_ms[remains], np.full(len(added), now_ms)])[order]
        values[table] = _values(
            previous.texts[table],
            texts[table],
            before.numbers[remains],
            dict(zip(added, ids, strict=True)),
            fresh,
        )
        counts[table] = {
            "kept": int(remains.sum()),
            "added": len(added),
            "forgotten": int((~remains).sum()),
        }
    encoders = dataclasses.replace(
        new, vocabularies=vocabularies, seen=seen, states=old.states, actions=old.actions
    )
    return encoders, values, counts


def _new_ids(
    before: KeyMap, fresh: KeyMap, remains: Array, max_rows: int | None
) -> tuple[Array, Array]:
    """The keys to add, most frequent first, and their ids: first those that became free."""
    by_count = np.argsort(fresh.numbers)
    added = fresh.keys[by_count][~np.isin(fresh.keys[by_count], before.keys[remains])]
    added = added[: None if max_rows is None else max(0, max_rows - int(remains.sum()))]
    highest = int(before.numbers.max(initial=FIRST - 1))
    free = np.setdiff1d(np.arange(FIRST, highest + 1), before.numbers[remains])
    above = np.arange(highest + 1, highest + 1 + len(added))
    return added, np.concatenate([free, above])[: len(added)]


def _max_rows(schema: Schema, table: str) -> int | None:
    for level, name, feature in all_features(schema):
        settings = feature.vocabulary_settings()
        if settings is not None and feature.table_of(level, name) == table:
            return settings.max_rows
    return None


def _values(
    before: pa.Table,
    fresh: pa.Table,
    remaining_ids: Array,
    added: Mapping[np.uint64, int],
    fresh_map: KeyMap,
) -> pa.Table:
    """Table (id, value, count) with the counts of the new rows; 0 for a value without new rows."""
    count_of = dict(
        zip(fresh.column("value").to_pylist(), fresh.column("count").to_pylist(), strict=True)
    )
    old = before.filter(
        pc.is_in(before.column("id"), pa.array(remaining_ids, type=before.schema.field("id").type))
    )
    key_of = dict(zip(fresh_map.numbers.tolist(), fresh_map.keys.tolist(), strict=True))
    ids, texts = old.column("id").to_pylist(), old.column("value").to_pylist()
    for number, value in zip(
        fresh.column("id").to_pylist(), fresh.column("value").to_pylist(), strict=True
    ):
        new_id = added.get(np.uint64(key_of[number]))
        if new_id is not None:
            ids.append(int(new_id))
            texts.append(value)
    table = pa.table(
        {
            "id": pa.array(ids, pa.int32()),
            "value": texts,
            "count": pa.array([count_of.get(t, 0) for t in texts], pa.int64()),
        }
    )
    return table.sort_by("id")
