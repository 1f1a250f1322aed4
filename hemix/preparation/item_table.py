"""All items: numbered over all partitions, with the rows of the item table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.keys import KeyIndex, KeyMap
from hemix.files import storage_errors
from hemix.preparation.cleaned import ITEM_PLACES
from hemix.preparation.decoding import decode_entities, entity_columns
from hemix.preparation.entities import Entities, TableCounts
from hemix.preparation.job import PrepareJob
from hemix.preparation.joins import JoinCounts
from hemix.preparation.numbering import ItemPlaces
from hemix.preparation.raw_ids import are_int64, save_ids
from hemix.preparation.role_columns import check_ids
from hemix.preparation.rows import Rows
from hemix.preparation.texts import ITEMS, KeyTexts, find_texts, save_texts, text_tables

__all__ = ["ItemTable", "read_items"]

Array = npt.NDArray[Any]

_CHUNK_ROWS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class ItemTable:
    """All items with their features."""

    entities: Entities
    numbers: KeyMap
    counts: TableCounts
    joins: dict[str, JoinCounts]
    """``items`` and ``event_items`` of :class:`hemix.preparation.joins.Joins`"""
    texts: list[Path]
    """Files of :func:`hemix.preparation.texts.save_texts` with the texts of the table"""


def read_items(job: PrepareJob, cleaned: Sequence[Path], texts: Sequence[Path]) -> ItemTable:
    """Number the items of all partitions, read the item table, and write ids/items.parquet.

    Args:
        job: Logs and folders.
        cleaned: The folders of all partitions of the stage ``clean``.
        texts: Files with the texts of the logs' items.

    Raises:
        DataError: A value cannot be used; names file, row and column.
        StorageError: The disk is full or read-only.
    """
    places = ItemPlaces.of(folder / ITEM_PLACES for folder in cleaned)
    numbers = np.empty(len(places.keys), dtype=np.int32)
    numbers[np.argsort(places.first)] = np.arange(len(numbers), dtype=np.int32)
    of_logs = KeyMap(places.keys, numbers)
    table = text_tables(job.schema).index(ITEMS)
    index = KeyIndex.of_numbers(places.keys, numbers, find_texts(texts, table, of_logs))
    tables, of_rows, paths = _read_table(job, index)
    entities, counts, own_texts = Entities.build(
        job.schema, "item", tables, of_rows, index, len(job.schema.score_columns)
    )
    paths.append(_save_texts(job, len(paths), own_texts))
    ids = index.texts()
    path = job.folder / "ids" / "items.parquet"
    save_ids(path, ids, as_int64=are_int64(job.logs, "item", ids))
    return ItemTable(
        entities=entities,
        numbers=KeyMap(index.sorted_keys, index.sorted_numbers),
        counts=counts,
        joins=_joins(places, numbers, of_rows, index),
        texts=paths,
    )


def _read_table(job: PrepareJob, index: KeyIndex) -> tuple[list[Rows], Array, list[Path]]:
    """Decoded rows, their items (int32) and the files of their texts; the index grows."""
    tables, paths, numbers = list[Rows](), list[Path](), [np.zeros(0, dtype=np.int32)]
    table, own = job.logs.items, job.schema.item
    if table is not None:
        for chunk in table.chunks(entity_columns(job, "item"), _CHUNK_ROWS):
            check_ids(own, chunk.columns[own], chunk.where)
            numbers.append(index.add(chunk.columns[own]))
            rows, texts = decode_entities(job, "item", chunk)
            tables.append(rows)
            paths.append(_save_texts(job, len(paths), texts))
    return tables, np.concatenate(numbers), paths


def _save_texts(job: PrepareJob, number: int, texts: dict[str, KeyTexts]) -> Path:
    folder = job.temporary / "item_texts"
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
    path = folder / f"{number:05d}.arrow"
    save_texts(path, text_tables(job.schema), texts)
    return path


def _joins(
    places: ItemPlaces, numbers: Array, of_rows: Array, index: KeyIndex
) -> dict[str, JoinCounts]:
    """Count the impressions and events whose item is in the other tables."""
    impressions, events = np.zeros((2, len(index)), dtype=np.int64)
    impressions[numbers], events[numbers] = places.impressions, places.events
    in_table = np.zeros(len(index), dtype=bool)
    in_table[of_rows] = True
    known = (impressions > 0) | in_table
    texts, order = index.texts(), np.arange(len(index))

    def text_of(number: int) -> str:
        text: str = texts[number].as_py()
        return text

    return {
        "items": JoinCounts.of(impressions, in_table, order, text_of),
        "event_items": JoinCounts.of(events, known, order, text_of),
    }
