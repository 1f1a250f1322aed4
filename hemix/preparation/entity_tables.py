"""Stage 2: read the user and item tables and measure what the logs have in common with them."""

from __future__ import annotations

from dataclasses import dataclass

from hemix.data.encode import Encoders
from hemix.data.layout import Block
from hemix.preparation.entities import Entities
from hemix.preparation.fit import EncoderFitter
from hemix.preparation.job import PrepareJob
from hemix.preparation.joins import Joins, JoinSide
from hemix.preparation.numbering import Numbering

__all__ = ["EntityTables", "read_tables"]


@dataclass(frozen=True, kw_only=True)
class EntityTables:
    """All users and items with their features."""

    users: Entities
    items: Entities
    joins: Joins

    def encode(self, encoders: Encoders) -> dict[str, Block]:
        """Encode the features of every version, by level: ``user`` and ``item``."""
        return {"user": self.users.encode(encoders), "item": self.items.encode(encoders)}


def read_tables(job: PrepareJob, numbering: Numbering, fitter: EncoderFitter) -> EntityTables:
    """Read both tables and check the joins.

    Args:
        job: The logs and their schema.
        numbering: The numbers so far; users and items of the tables are added.
        fitter: Sees every value of a feature.

    Returns:
        Users and items, also those that no table holds.

    Raises:
        DataError: Naming the first wrong value, or two tables that have no id in common.
    """
    job.progress("reading users and items", 0.0)
    logs, schema = job.logs, job.schema
    users = Entities.build("user", logs.users, numbering.users, schema, fitter)
    items = Entities.build("item", logs.items, numbering.items, schema, fitter, logs.score_columns)
    joins = Joins()
    joins.check(
        logs,
        numbering.impressions,
        numbering.events,
        users=JoinSide(entities=users, index=numbering.users, shown=numbering.shown_users),
        items=JoinSide(entities=items, index=numbering.items, shown=numbering.shown_items),
    )
    return EntityTables(users=users, items=items, joins=joins)
