"""Encoders of a later day that continue those of an earlier one.

Known values keep their ids, new ones get rows of their own, and what has not been seen for a while
makes room. Edges of buckets and scales of numbers stay, so that ids and numbers keep their meaning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.data.encode import Encoders, KeyMap, all_features
from hemix.data.spec import FIRST
from hemix.errors import DataError, UsageError
from hemix.schema import Schema
from hemix.validation import first_difference

__all__ = ["PreviousEncoders", "extend_vocabulary"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviousEncoders:
    """The encoders that a later dataset continues."""

    encoders: Encoders
    texts: Mapping[str, pa.Table]
    """The values of every vocabulary, for people: table (id, value, count)"""
    forget_ms: int | None = None
    """A value not seen in training rows for so long loses its row; None: never"""

    @classmethod
    def load(
        cls, folder: str | Path, schema: Schema, forget_days: int | None = None
    ) -> PreviousEncoders:
        """From a dataset or a run folder.

        Raises UsageError where it is neither, DataError where its schema means something else.
        """
        encoders = Path(folder) / "encoders"
        if not (encoders / "encoders.json").is_file():
            raise UsageError(
                f"--from {folder}: neither a dataset nor a run: it has no encoders/encoders.json"
            )
        found = Encoders.load(encoders)
        if found.schema.columns_fingerprint() != schema.columns_fingerprint():
            ours, theirs = (
                {key: part for key, part in s.model_dump(mode="json").items() if key != "split"}
                for s in (found.schema, schema)
            )
            where = first_difference(ours, theirs) or "which tables there are"
            raise DataError(
                f"--from {folder}: has another schema than these logs: they differ in {where}"
            )
        texts = {}
        for i, name in enumerate(found.vocabularies):
            path = encoders / f"{i:03d}.parquet"
            try:
                texts[name] = pq.read_table(path)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: cannot be read: {error}") from error
        return cls(
            encoders=found,
            texts=texts,
            forget_ms=None if forget_days is None else forget_days * 86_400_000,
        )


def extend_vocabulary(
    new: Encoders, texts: Mapping[str, pa.Table], earlier: PreviousEncoders, now_ms: int
) -> tuple[Encoders, dict[str, pa.Table], dict[str, dict[str, int]]]:
    """Continue the vocabularies of an earlier day.

    Args:
        new: Encoders fitted to the new rows.
        texts: The values of every new vocabulary, for people.
        earlier: What to continue.
        now_ms: The end of the new train rows.

    Returns:
        The new encoders with the earlier ids; the values for people; and by vocabulary how many
        values were kept, added and forgotten.
    """
    old = earlier.encoders
    vocabularies, seen, values = dict[str, KeyMap](), dict[str, np.ndarray](), dict[str, pa.Table]()
    counts = dict[str, dict[str, int]]()
    for table, fresh in new.vocabularies.items():
        before, last = old.vocabularies[table], old.seen[table]
        again = np.isin(before.keys, fresh.keys)
        last = np.where(again, now_ms, last)
        kept = (
            np.ones(len(last), bool)
            if earlier.forget_ms is None
            else now_ms - last <= earlier.forget_ms
        )
        by_count = np.argsort(fresh.numbers)
        added = fresh.keys[by_count][~np.isin(fresh.keys[by_count], before.keys[kept])]
        most = _most_rows(new.schema, table)
        added = added[: None if most is None else max(0, most - int(kept.sum()))]
        highest = int(before.numbers.max(initial=FIRST - 1))
        free = np.setdiff1d(np.arange(FIRST, highest + 1), before.numbers[kept])
        ids = np.concatenate([free, np.arange(highest + 1, highest + 1 + len(added))])[: len(added)]
        keys, numbers = (
            np.concatenate([before.keys[kept], added]),
            np.concatenate([before.numbers[kept], ids]),
        )
        order = np.argsort(keys)
        vocabularies[table] = KeyMap(keys[order], numbers[order].astype(np.int32))
        seen[table] = np.concatenate([last[kept], np.full(len(added), now_ms)])[order]
        values[table] = _values(
            earlier.texts[table],
            texts[table],
            before.numbers[kept],
            dict(zip(added, ids, strict=True)),
            fresh,
        )
        counts[table] = {
            "kept": int(kept.sum()),
            "added": len(added),
            "forgotten": int((~kept).sum()),
        }
    encoders = dataclasses.replace(
        new, vocabularies=vocabularies, seen=seen, states=old.states, actions=old.actions
    )
    return encoders, values, counts


def _most_rows(schema: Schema, table: str) -> int | None:
    for level, name, feature in all_features(schema):
        settings = feature.vocabulary_settings()
        if settings is not None and feature.table_of(level, name) == table:
            return settings.max_rows
    return None


def _values(
    before: pa.Table,
    fresh: pa.Table,
    kept_ids: np.ndarray,
    added: Mapping[np.uint64, int],
    fresh_map: KeyMap,
) -> pa.Table:
    """(id, value, count): counts are those of the new rows, 0 for a value that they do not hold."""
    counted = dict(
        zip(fresh.column("value").to_pylist(), fresh.column("count").to_pylist(), strict=True)
    )
    old = before.filter(
        pc.is_in(before.column("id"), pa.array(kept_ids, type=before.schema.field("id").type))
    )
    id_of = dict(zip(fresh_map.numbers.tolist(), fresh_map.keys.tolist(), strict=True))
    ids, texts = old.column("id").to_pylist(), old.column("value").to_pylist()
    for number, value in zip(
        fresh.column("id").to_pylist(), fresh.column("value").to_pylist(), strict=True
    ):
        place = added.get(np.uint64(id_of[number]))
        if place is not None:
            ids.append(int(place))
            texts.append(value)
    table = pa.table(
        {
            "id": pa.array(ids, pa.int32()),
            "value": texts,
            "count": pa.array([counted.get(t, 0) for t in texts], pa.int64()),
        }
    )
    return table.sort_by("id")
