"""Learn the encoders from the counts and extend earlier vocabularies (stage 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.keys import keys_of_texts
from hemix.data.spec import UNKNOWN
from hemix.errors import SchemaError
from hemix.features.base import EncodedColumns, Learned
from hemix.preparation.entity_tables import EntityTables
from hemix.preparation.fit import EncoderFitter
from hemix.preparation.impressions import ImpressionPass
from hemix.preparation.job import PrepareJob
from hemix.preparation.numbering import Numbering
from hemix.preparation.vocabulary_extension import PreviousEncoders, extend_vocabulary
from hemix.validation import did_you_mean

__all__ = ["FittedEncoders", "fit_encoders"]


@dataclass(frozen=True, kw_only=True)
class FittedEncoders:
    """The encoders of a dataset."""

    encoders: Encoders
    growth: dict[str, dict[str, int]] | None
    """By vocabulary the number of kept, added and forgotten values; None without earlier ones"""


def fit_encoders(
    job: PrepareJob,
    numbering: Numbering,
    tables: EntityTables,
    impressions: ImpressionPass,
    fitter: EncoderFitter,
) -> FittedEncoders:
    """Learn the encoders and write them into the folder ``encoders``.

    Args:
        job: Where to write, and the earlier encoders.
        numbering: Numbers of users and items.
        tables: Users and items with their features.
        impressions: Counts of the train rows that refer to each version.
        fitter: Counts of all other values.

    Raises:
        SchemaError: Match counts name an action that no event has.
    """
    for level, entities, rows in (
        ("user", tables.users, impressions.user_rows),
        ("item", tables.items, impressions.item_rows),
    ):
        fitter.count(level, entities.columns, rows[0].astype(np.float64))
    encoders, texts = fitter.fit(numbering.users, numbering.items)
    now_ms, growth = impressions.span.train_end_ms, None
    if job.previous is not None:
        encoders, texts, growth = extend_vocabulary(encoders, texts, job.previous, now_ms)
    else:
        vocabularies = encoders.vocabularies.items()
        seen = {name: np.full(len(index.keys), now_ms) for name, index in vocabularies}
        encoders = dataclasses.replace(encoders, seen=seen)
    encoders = dataclasses.replace(
        encoders, match_actions=_match_actions(encoders, texts, job.previous)
    )
    encoders.save(job.folder / "encoders", texts=texts)
    return FittedEncoders(encoders=encoders, growth=growth)


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
