"""Encode users, items, impressions and events, and write the arrays of the dataset (stage 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import Encoders
from hemix.data.layout import SPLITS, Appender, Block, load_array, save_array
from hemix.data.raw_columns import numbers_of
from hemix.errors import SchemaError
from hemix.preparation.entity_tables import EntityTables
from hemix.preparation.events import HistoryWriter
from hemix.preparation.impressions import ImpressionPass
from hemix.preparation.job import PrepareJob
from hemix.preparation.label_rates import LabelRates
from hemix.preparation.shards import ShardWriter
from hemix.preparation.sorting import Passes, SortedPartitions
from hemix.schema import Schema

__all__ = ["WrittenDataset", "write_dataset"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class WrittenDataset:
    """The written arrays, with their counts for the manifest."""

    blocks: dict[str, Block]
    """The features of every version, by level: ``user`` and ``item``"""
    shards: dict[int, ShardWriter]
    """By number of the split"""
    label_rates: LabelRates
    history: HistoryWriter
    events_per_user: Array
    """int64 [users]"""


def write_dataset(
    job: PrepareJob,
    tables: EntityTables,
    partitions: SortedPartitions,
    passes: Passes,
    encoders: Encoders,
) -> WrittenDataset:
    """Write users, items, shards and the history store.

    Args:
        job: Where to write.
        tables: Users and items with their features.
        partitions: Sorted impressions and events; their files are deleted.
        passes: The work on the rows.
        encoders: The learned encoders.

    Raises:
        SchemaError: A server would score at a position that no train row has.
    """
    blocks = tables.encode(encoders)
    _write_entities(job, tables, blocks, passes.impressions, encoders)
    label_rates = LabelRates(job.schema, blocks["user"], blocks["item"])
    shards = _write_shards(job, partitions, passes, encoders, label_rates)
    _check_serving_position(job.schema, shards[0])
    history = HistoryWriter(job.folder / "history", encoders, len(tables.users.in_table))
    for _, rows in job.partitions(partitions.history, "writing histories"):
        history.write(rows)
    return WrittenDataset(
        blocks=blocks,
        shards=shards,
        label_rates=label_rates,
        history=history,
        events_per_user=history.close(),
    )


def _write_entities(
    job: PrepareJob,
    tables: EntityTables,
    blocks: dict[str, Block],
    impressions: ImpressionPass,
    encoders: Encoders,
) -> None:
    """Write users and items, and their counts of train impressions and labels."""
    users, items = job.folder / "users", job.folder / "items"
    tables.users.save(users, blocks["user"], encoders)
    tables.items.save(items, blocks["item"], encoders)
    user_impressions = tables.users.by_number(impressions.user_rows[0])
    item_impressions = tables.items.by_number(impressions.item_rows[0])
    save_array(users / "train_impressions.npy", user_impressions)
    save_array(items / "train_impressions.npy", item_impressions)
    save_array(items / "train_known.npy", impressions.train_known.astype(np.float64))
    save_array(items / "train_positives.npy", impressions.train_positives.astype(np.float64))


def _write_shards(
    job: PrepareJob,
    partitions: SortedPartitions,
    passes: Passes,
    encoders: Encoders,
    label_rates: LabelRates,
) -> dict[int, ShardWriter]:
    """Encode the impressions into the shards of their splits."""
    truth = _read_truth(job)
    shards = {
        number: ShardWriter(job.folder, split, truth=truth) for number, split in enumerate(SPLITS)
    }
    for _, rows in job.partitions(partitions.impressions, "writing impressions"):
        passes.impressions.write(rows, encoders, shards, passes.statistics, label_rates)
    for shard in shards.values():
        shard.close()
    return shards


def _read_truth(job: PrepareJob) -> Array | None:
    """float64 [log rows, T], memory-mapped from a temporary file; None without a truth table."""
    table = job.logs.truth
    if table is None:
        return None
    names = [f"p_{task}" for task in job.schema.tasks]
    path = job.temporary / "truth.npy"
    with Appender(path, np.float64, len(names)) as out:
        for chunk in table.chunks(names, job.memory_rows):
            columns = [numbers_of(name, chunk.columns[name], chunk.where) for name in names]
            out.append(np.stack(columns, axis=1))
    return load_array(path)


def _check_serving_position(schema: Schema, train: ShardWriter) -> None:
    """Refuse a serving position that no train row has: its weight would stay untrained."""
    bias, positions = schema.roles.bias, train.bias_values
    if bias is None or min(bias.serve_as, bias.max) in positions:
        return
    first, last = min(positions), max(positions)
    raise SchemaError(
        f"roles.bias.serve_as: {bias.serve_as} never occurs in column {bias.column!r} of the "
        f"train rows ({first} to {last})",
        field="roles.bias.serve_as",
        hint=f"name the position that a server scores at, for instance serve_as: {first}",
    )
