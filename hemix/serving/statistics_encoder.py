"""Statistics of a request and its candidates, looked up in the run's dated tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.clock import local_day
from hemix.data.encode import Encoders
from hemix.data.keys import keys_of_texts
from hemix.features.statistics import Statistics

__all__ = ["StatisticsEncoder", "StatisticsInputs"]

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class StatisticsInputs:
    """Inputs of the keys of statistics: a request with its N candidates."""

    user: str
    """Raw id of the user"""
    time_ms: int
    """Time of the request"""
    user_keys: Keys
    """[1, P]: keys of the user's features"""
    item_ids: Keys
    """[N]: keys of the raw ids"""
    item_keys: Keys
    """[N, P]: keys of the candidates' features"""
    context: Mapping[str, Any]
    """Raw columns [1] by feature"""
    cross: Mapping[str, Any]
    """Raw columns [N] by feature"""
    coordinates: Mapping[str, Array]
    """``level.feature`` -> float64 [N, 2] of both ends of distances"""


class StatisticsEncoder:
    """Looks up the statistics of one run."""

    def __init__(
        self,
        encoders: Encoders,
        statistics: Statistics,
        user_key_names: tuple[str, ...],
        item_key_names: tuple[str, ...],
    ) -> None:
        """Collect the features that statistics group by.

        Args:
            encoders: Encoders of the run.
            statistics: Statistics of the run.
            user_key_names: Names of the columns of ``user_keys``.
            item_key_names: Names of the columns of ``item_keys``.
        """
        schema = encoders.schema
        self._encoders, self._statistics = encoders, statistics
        self._user_key_names, self._item_key_names = user_key_names, item_key_names
        self._timezone = schema.clock.timezone
        self._features = {
            level: tuple(
                dict.fromkeys(
                    feature
                    for name in schema.statistics_of(level)
                    for feature in schema.statistics[name].by
                )
            )
            for level in ("context", "cross")
        }
        """By level, the features that its statistics group by"""

    def numbers(self, level: str, inputs: StatisticsInputs) -> Array:
        """Return the statistics of a level.

        Args:
            level: ``context`` or ``cross``.
            inputs: The request.

        Returns:
            Numbers [1, S] of the context or [N, S] of the candidates; [1, 0] without statistics.
        """
        if not self._features[level]:
            return np.zeros((1, 0), dtype=np.float32)
        keys = {feature: self._key(feature, inputs) for feature in self._features[level]}
        day = local_day(np.array([inputs.time_ms]), self._timezone)
        return self._statistics.numbers(level, keys, day)

    def _key(self, feature: str, inputs: StatisticsInputs) -> Keys:
        """Return the keys of one feature.

        Args:
            feature: ``level.name``; ``user`` or ``item`` for the raw id.
            inputs: The request.

        Returns:
            uint64 [1] of a request's feature, or [N] of its candidates'.
        """
        level, _, name = feature.partition(".")
        match level:
            case "user" if not name:
                return keys_of_texts([inputs.user])
            case "user":
                return inputs.user_keys[:, self._user_key_names.index(feature)]
            case "item" if not name:
                return inputs.item_ids
            case "item":
                return inputs.item_keys[:, self._item_key_names.index(feature)]
            case "context":
                raw, rows, coordinates = inputs.context[name], 1, None
            case _:
                raw, rows = inputs.cross[name], len(inputs.item_ids)
                coordinates = inputs.coordinates
        time_ms = np.full(rows, inputs.time_ms)
        return self._encoders.keys(level, name, raw, rows, time_ms=time_ms, coordinates=coordinates)
