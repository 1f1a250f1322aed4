"""Read the user and item tables and check their joins with the logs (stage 2)."""

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
        """Return the encoded features of every version, by level: ``user`` and ``item``."""
        return {"user": self.users.encode(encoders), "item": self.items.encode(encoders)}


def read_tables(job: PrepareJob, numbering: Numbering, fitter: EncoderFitter) -> EntityTables:
    """Read both tables and check the joins.

    Args:
        job: The logs and their schema.
        numbering: Numbers of the logs' users and items; those of the tables are added.
        fitter: Observes every value of a feature.

    Returns:
        All users and items, with or without a row in their table.

    Raises:
        DataError: A value cannot be used, or two tables have no id in common.
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
        users=JoinSide(
            entities=users,
            index=numbering.users,
            in_impressions=numbering.users_in_impressions,
        ),
        items=JoinSide(
            entities=items,
            index=numbering.items,
            in_impressions=numbering.items_in_impressions,
        ),
    )
    return EntityTables(users=users, items=items, joins=joins)
