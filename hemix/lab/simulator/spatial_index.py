"""Lists of nearby venues for every cell of a square grid over the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.arrays import Float32Array, Int32Array, Int64Array
from hemix.lab.simulator.parameters import CityParameters
from hemix.lab.simulator.venues import Venues

__all__ = ["NO_VENUE", "SpatialIndex", "build_spatial_index"]

NO_VENUE = -1
"""Fills lists of venues that are shorter than their array."""

_CELLS_AT_A_TIME = 128
"""Bounds the memory of the distances between grid cells and venues."""


@dataclass(frozen=True, kw_only=True)
class SpatialIndex:
    """The venues near every grid cell, ordered by distance from its middle; K cells."""

    cells_per_side: int
    cell_km: float
    half_width_km: float
    nearest: Int32Array
    """[K, nearest]"""
    popular: Int32Array
    """[K, nearest_popular]: the most famous of the nearest venues."""
    nearest_of_category: Int32Array
    """[K, categories, nearest_of_category]: padded with NO_VENUE."""

    def cell_of(self, x_km: npt.ArrayLike, y_km: npt.ArrayLike) -> Int64Array:
        """Find the grid cell of every point; points off the map belong to its edge.

        Args:
            x_km: Coordinates [n] east of the city's middle.
            y_km: Coordinates [n] north of it.

        Returns:
            Indices [n] of grid cells, row by row from the south-west.
        """
        return self._axis(y_km) * self.cells_per_side + self._axis(x_km)

    def _axis(self, km: npt.ArrayLike) -> Int64Array:
        cell = ((np.asarray(km) + self.half_width_km) / self.cell_km).astype(np.int64)
        return np.clip(cell, 0, self.cells_per_side - 1)


def build_spatial_index(parameters: CityParameters, venues: Venues) -> SpatialIndex:
    """Build the index of a city's venues.

    Args:
        parameters: Size of the map and of the lists.
        venues: Venues of the city.

    Returns:
        The lists of nearby venues of every grid cell.
    """
    geography, recall = parameters.geography, parameters.recall
    side = int(np.ceil(2 * geography.half_width_km / geography.cell_km))
    middle = (np.arange(side) + 0.5) * geography.cell_km - geography.half_width_km
    middle = middle.astype(np.float32)
    x, y = np.tile(middle, side), np.repeat(middle, side)

    index = np.arange(len(venues), dtype=np.int32)
    nearest = _nearest(x, y, venues, index, recall.nearest)
    by_fame = np.argsort(-venues.fame[nearest], axis=1, kind="stable")
    nearest_of_category = [
        _nearest(x, y, venues, index[venues.category == category], recall.nearest_of_category)
        for category in range(len(parameters.categories))
    ]
    return SpatialIndex(
        cells_per_side=side,
        cell_km=geography.cell_km,
        half_width_km=geography.half_width_km,
        nearest=nearest,
        popular=np.take_along_axis(nearest, by_fame[:, : recall.nearest_popular], axis=1),
        nearest_of_category=np.stack(nearest_of_category, axis=1),
    )


def _nearest(
    x_km: Float32Array, y_km: Float32Array, venues: Venues, candidates: Int32Array, count: int
) -> Int32Array:
    """Find the ``count`` nearest candidates of every point [n, count], padded with NO_VENUE."""
    nearest = np.full((len(x_km), count), NO_VENUE, dtype=np.int32)
    width = min(count, len(candidates))
    if not width:
        return nearest
    for begin in range(0, len(x_km), _CELLS_AT_A_TIME):
        rows = slice(begin, begin + _CELLS_AT_A_TIME)
        squared_distance = (x_km[rows, None] - venues.x_km[candidates]) ** 2 + (
            y_km[rows, None] - venues.y_km[candidates]
        ) ** 2
        chosen = np.argpartition(squared_distance, width - 1, axis=1)[:, :width]
        chosen_distance = np.take_along_axis(squared_distance, chosen, axis=1)
        order = np.argsort(chosen_distance, axis=1, kind="stable")
        nearest[rows, :width] = candidates[np.take_along_axis(chosen, order, axis=1)]
    return nearest
