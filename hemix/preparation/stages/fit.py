"""Stage 4, in the driver: learn the encoders, extend earlier vocabularies, write items."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.keys import keys_of, keys_of_texts
from hemix.data.layout import SPLITS, save_array
from hemix.data.spec import UNKNOWN
from hemix.errors import SchemaError
from hemix.features.base import EncodedColumns, Learned
from hemix.features.match_counts import fit_windows
from hemix.files import storage_errors
from hemix.preparation.events import impression_actions
from hemix.preparation.fit import fit_encoders
from hemix.preparation.impressions import Span
from hemix.preparation.item_table import ItemTable
from hemix.preparation.job import PrepareJob
from hemix.preparation.label_rates import vocabulary_states
from hemix.preparation.partial_counts import PartialCounts
from hemix.preparation.rows import read_rows
from hemix.preparation.split_writer import value_counts
from hemix.preparation.stages.count import ITEM_LABELS, ITEM_ROWS
from hemix.preparation.texts import KeyTexts, save_texts, text_tables
from hemix.preparation.vocabulary_extension import PreviousEncoders, extend_vocabulary
from hemix.schema import Schema
from hemix.validation import did_you_mean

__all__ = ["Fitted", "fit"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was learned from all rows."""

    encoders: Encoders
    growth: dict[str, dict[str, int]] | None
    """By vocabulary the number of kept, added and forgotten values; None without earlier ones"""
    item_states: Path
    """int8 [rows, features]: the states of all items, see ``vocabulary_states``"""
    item_values: dict[str, Array]
    """By split, see ``value_counts``"""


def fit(
    job: PrepareJob,
    items: ItemTable,
    counted: Sequence[Path],
    texts: Sequence[Path],
    span: Span,
    previous: PreviousEncoders | None,
) -> Fitted:
    """Learn the encoders, and write ``encoders``, ``items`` and spec.json's content.

    Args:
        job: Schema and folders.
        items: All items.
        counted: The folders of all partitions of the stage ``count``.
        texts: Files with the texts of all values.
        span: Times of the logs.
        previous: The encoders whose vocabularies are extended.

    Raises:
        SchemaError: Match counts name an action that no event has.
        StorageError: The disk is full or read-only.
    """
    item_rows = _item_rows(items, counted)
    own_counts, own_texts = _driver_counts(job, items, item_rows)
    partials = [*counted, own_counts]
    encoders, tables = fit_encoders(job.schema, partials, [*texts, own_texts], items.numbers)
    growth = None
    if previous is not None:
        encoders, tables, growth = extend_vocabulary(encoders, tables, previous, span.train_end_ms)
    else:
        vocabularies = encoders.vocabularies.items()
        seen = {name: np.full(len(index.keys), span.train_end_ms) for name, index in vocabularies}
        encoders = dataclasses.replace(encoders, seen=seen)
    actions = _match_actions(encoders, tables, previous)
    windows_ms = _match_windows(job.schema, span, previous)
    encoders = dataclasses.replace(encoders, match_actions=actions, match_windows_ms=windows_ms)
    encoders.save(job.folder / "encoders", texts=tables)
    block = items.entities.encode(encoders)
    items.entities.save(job.folder / "items", block, encoders)
    _save_item_counts(job, items, item_rows, counted)
    states = job.temporary / "item_states.npy"
    save_array(states, vocabulary_states(job.schema, "item", block))
    return Fitted(
        encoders=encoders,
        growth=growth,
        item_states=states,
        item_values={
            name: value_counts(block, rows) for name, rows in zip(SPLITS, item_rows, strict=True)
        },
    )


def _item_rows(items: ItemTable, counted: Sequence[Path]) -> Array:
    """int64 [3, rows]: impressions of every split that refer to each item version."""
    totals = np.zeros((len(SPLITS), items.entities.rows), dtype=np.int64)
    for folder in counted:
        rows = read_rows(folder / ITEM_ROWS)
        for number, name in enumerate(SPLITS):
            totals[number, np.asarray(rows["row"])] += np.asarray(rows[name])
    return totals


def _save_item_counts(
    job: PrepareJob, items: ItemTable, item_rows: Array, counted: Sequence[Path]
) -> None:
    """Write the counts of train impressions and labels of every item."""
    shape = (len(items.entities.versions.first_row) - 1, len(job.schema.tasks))
    totals = {name: np.zeros(shape) for name in ("known", "positives")}
    for folder in counted:
        rows = read_rows(folder / ITEM_LABELS)
        for name, total in totals.items():
            total[np.asarray(rows["number"])] += np.asarray(rows[name])
    folder = job.folder / "items"
    save_array(folder / "train_impressions.npy", items.entities.by_number(item_rows[0]))
    for name, total in totals.items():
        save_array(folder / f"train_{name}.npy", total)


def _driver_counts(job: PrepareJob, items: ItemTable, item_rows: Array) -> tuple[Path, Path]:
    """Counts that no partition has: of items, and of actions without an events table; their texts.

    All actions get a row then, so that labels do not decide.
    """
    schema, folder = job.schema, job.temporary / "driver_counts"
    counts, texts = PartialCounts(schema), dict[str, KeyTexts]()
    counts.count("item", items.entities.columns, item_rows[0])
    action = schema.event_fields["action"]
    if job.logs.events is None and action.vocabulary_settings() is not None:
        actions, table = impression_actions(schema), action.table_of("event", "action")
        texts[table], _ = KeyTexts.of(actions)
        counts.include(table, keys_of(actions))
    with storage_errors(folder):
        folder.mkdir()
    counts.save(folder)
    save_texts(folder / "texts.arrow", text_tables(schema), texts)
    return folder, folder / "texts.arrow"


def _match_windows(
    schema: Schema, span: Span, previous: PreviousEncoders | None
) -> tuple[int, ...]:
    """Choose the windows of match counts, in ms; those of an earlier day stay, as its actions do.

    Args:
        schema: The schema.
        span: Times of the logs.
        previous: What the vocabularies continue.
    """
    counts = schema.history.match_counts
    if counts is None or not schema.match_columns:
        return ()
    if previous is not None:
        return previous.encoders.match_windows_ms
    return fit_windows(span.history_ms) if counts.windows_ms is None else counts.windows_ms


def _match_actions(
    encoders: Encoders, texts: Mapping[str, pa.Table], previous: PreviousEncoders | None
) -> dict[str, int]:
    """Choose the actions that match counts count apart, by name with their ids.

    Those of an earlier day stay, so that a model's columns keep their meaning; one that is
    forgotten has no id (-1).

    Args:
        encoders: The learned encoders, with all vocabularies.
        texts: The values of every vocabulary, for people.
        previous: What the vocabularies continue.

    Raises:
        SchemaError: An action that the schema names is in no event.
    """
    schema = encoders.schema
    counts = schema.history.match_counts
    if counts is None or not schema.match_columns:
        return {}
    action = schema.event_fields["action"]
    table, out = action.table_of("event", "action"), EncodedColumns()
    values = texts.get(table)
    known = [] if values is None else values.sort_by("id").column("value").to_pylist()
    if previous is not None:
        names = list(previous.encoders.match_actions)
    elif isinstance(counts.actions, int):
        names = known[: counts.actions]
    else:
        names = list(counts.actions)
    action.encode(keys_of_texts(names), Learned(vocabulary=encoders.vocabularies.get(table)), out)
    ids = out.ids[0]
    for name, action_id in zip(names, ids.tolist(), strict=True):
        if action_id == UNKNOWN and previous is None:
            hint = did_you_mean(name, known)
            raise SchemaError(
                f"history.match_counts.actions: no event before the end of training has the action "
                f"{name!r}" + (f"; {hint}" if hint else ""),
                field="history.match_counts.actions",
            )
    return dict(zip(names, np.where(ids == UNKNOWN, -1, ids).tolist(), strict=True))
