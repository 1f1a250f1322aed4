"""Look up what belongs to a row: the versions of its user and item, and coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.entities import coordinates_features
from hemix.preparation.cleaned import ITEM_PLACES, PartitionUsers
from hemix.preparation.entities import Entities
from hemix.preparation.items import ItemIndex, PartitionItems
from hemix.preparation.job import PrepareJob
from hemix.preparation.rows import Rows
from hemix.preparation.shared_files import load_items

__all__ = ["PartitionLookup"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class PartitionLookup:
    """Users and items of a partition, for the rows of :func:`read_ranges`."""

    job: PrepareJob
    users: PartitionUsers
    items: PartitionItems
    item_index: ItemIndex

    @classmethod
    def load(cls, job: PrepareJob, cleaned: Path, items: Path) -> PartitionLookup:
        """Memory-map users and items.

        Args:
            job: The schema.
            cleaned: The partition's folder of the stage ``clean``.
            items: The folder of :meth:`hemix.preparation.items.ItemIndex.save`.
        """
        index = load_items(job, items)
        return cls(
            job=job,
            users=PartitionUsers.load(job, cleaned),
            items=PartitionItems(cleaned / ITEM_PLACES, index),
            item_index=index,
        )

    @property
    def entities(self) -> Entities:
        """All versions of the users."""
        return self.users.entities

    def with_versions(self, rows: Rows, time: str) -> Rows:
        """Return rows with ``user_row`` and ``item_row``, int32.

        Args:
            rows: Rows with ``user`` and ``item``.
            time: The column with the time at which a version is valid.
        """
        time_ms, user, item = (np.asarray(rows[name]) for name in (time, "user", "item"))
        return rows | {
            "user_row": self.entities.versions.row_at(user, time_ms).astype(np.int32),
            "item_row": self.items.row_at(item, time_ms),
        }

    def coordinates(self, rows: Rows) -> dict[str, Array]:
        """Look up the coordinates between which distances are computed.

        Args:
            rows: Rows with versions; with ``context.*`` if they are of impressions.

        Returns:
            ``level.feature`` -> float64 [n, 2], latitude and longitude in degrees.
        """
        coordinates = {
            f"context.{name}": np.asarray(rows[f"context.{name}"])
            for name in coordinates_features(self.job.schema, "context")
        }
        for versions, name in (
            (self.entities.coordinates(), "user_row"),
            (self.item_index.coordinates, "item_row"),
        ):
            row = np.asarray(rows[name])
            coordinates |= {key: values[row] for key, values in versions.items()}
        return coordinates
