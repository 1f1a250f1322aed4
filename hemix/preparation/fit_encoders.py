"""Learn the encoders from the counts and extend earlier vocabularies (stage 5)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hemix.data.encode import Encoders
from hemix.preparation.entity_tables import EntityTables
from hemix.preparation.fit import EncoderFitter
from hemix.preparation.impressions import ImpressionPass
from hemix.preparation.job import PrepareJob
from hemix.preparation.numbering import Numbering
from hemix.preparation.vocabulary_extension import extend_vocabulary

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
    encoders.save(job.folder / "encoders", texts=texts)
    return FittedEncoders(encoders=encoders, growth=growth)
