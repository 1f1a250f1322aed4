"""Users and items that become unknown, so that training and evaluation meet them.

A masked request holds what a server has for a user whom the run does not know: an id without a
vocabulary row, all other features missing, statistics of no rows, or no events, or both. A masked
candidate is an item that the run does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.layout import Block
from hemix.data.levels import level_features, level_spec
from hemix.schema import Schema

__all__ = ["NO_MASKING", "Masking", "Masks", "UnknownRows"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Entity = Literal["user", "item"]

_OF_MASKS = 2
"""Last word of the seed of masks"""
_UNKNOWN_ID = "\0unknown"


@dataclass(frozen=True, kw_only=True)
class Masking:
    """The probability of each kind of mask."""

    user_features: float = 0.0
    """Of a request: its user's features are unknown, the history is not."""
    history: float = 0.0
    """Of a request: it sees no events."""
    user: float = 0.0
    """Of a request: both."""
    item: float = 0.0
    """Of an impression: its item is unknown."""

    @classmethod
    def of_rates(cls, users: float, items: float) -> Masking:
        """Divide a rate of users: half of them have both masked, a quarter has either.

        Args:
            users: The probability of a masked request.
            items: The probability of a masked candidate.
        """
        return cls(user_features=users / 4, history=users / 4, user=users / 2, item=items)

    def draw(self, seed: tuple[int, ...], requests: int, candidates: int) -> Masks | None:
        """Draw the masks of a batch.

        Args:
            seed: Of the batch.
            requests: Q.
            candidates: N.

        Returns:
            The masks; None where nothing is ever masked.
        """
        if not self.user_features + self.history + self.user + self.item > 0:
            return None
        rng = np.random.default_rng((*seed, _OF_MASKS))
        drawn = rng.random(requests)
        both = drawn < self.user
        features = drawn < self.user + self.user_features
        history = ~features & (drawn < self.user + self.user_features + self.history)
        return Masks(
            user_features=features,
            history=both | history,
            item=rng.random(candidates) < self.item,
        )


NO_MASKING = Masking()


@dataclass(frozen=True, kw_only=True)
class Masks:
    """What is masked in a batch of Q requests and N candidates."""

    user_features: Bools
    """bool [Q]"""
    history: Bools
    """bool [Q]"""
    item: Bools
    """bool [N]"""


@dataclass(frozen=True, kw_only=True)
class _Dependents:
    """The columns of a level that depend on a user or an item, and their values for an unknown
    one.
    """

    ids: list[int]
    id_values: Array
    numbers: list[int]
    number_values: Array

    def write(self, block: Block, rows: Bools) -> Block:
        """Return the block with these values in the given rows, bool [rows]."""
        if not rows.any() or not (self.ids or self.numbers):
            return block
        ids, numbers = block.ids.copy(), block.numbers.copy()
        masked = np.flatnonzero(rows)[:, None]
        ids[masked, self.ids] = self.id_values
        numbers[masked, self.numbers] = self.number_values
        return replace(block, ids=ids, numbers=numbers)


class UnknownRows:
    """The encoded features of a user and an item of whom nothing is known."""

    def __init__(self, encoders: Encoders) -> None:
        """Encode them.

        Args:
            encoders: Of the dataset; they may lack the vocabularies, which know no unknown id.
        """
        schema = encoders.schema
        ids: dict[Entity, str] = {"user": schema.user, "item": schema.item}
        self._rows = {
            entity: encoders.encode(entity, {column: pa.array([_UNKNOWN_ID])}, 1)
            for entity, column in ids.items()
        }
        self._dependents = {
            (level, entity): _dependents(encoders, level, entity)
            for level in ("context", "cross")
            for entity in ids
        }

    def mask(
        self, blocks: Mapping[str, Block], masks: Masks, user_is_masked: Bools, request_index: Array
    ) -> dict[str, Block]:
        """Return the features of a batch by level, without what is masked.

        Args:
            blocks: ``user`` [R], ``context`` [Q], ``item`` [I] and ``cross`` [N].
            masks: What is masked.
            user_is_masked: bool [R].
            request_index: int [N], the request of each candidate.

        Returns:
            The blocks in the same order. Where a candidate is masked, an unknown item is behind the
            other items.
        """
        users, items, cross = blocks["user"], blocks["item"], blocks["cross"]
        if user_is_masked.any():
            both = Block.concatenate([users, self._rows["user"]])
            users = both.select(np.where(user_is_masked, users.rows, np.arange(users.rows)))
        if masks.item.any():
            items = Block.concatenate([items, self._rows["item"]])
        cross = self._dependents["cross", "user"].write(cross, masks.user_features[request_index])
        return {
            "user": users,
            "context": self._dependents["context", "user"].write(
                blocks["context"], masks.user_features
            ),
            "item": items,
            "cross": self._dependents["cross", "item"].write(cross, masks.item),
        }


def _dependents(encoders: Encoders, level: str, entity: Entity) -> _Dependents:
    """Find the features computed from an entity's coordinates, and the statistics with it as key.

    A statistic of an unknown key has seen no rows: its numbers are 0.
    """
    schema = encoders.schema
    spec = level_spec(schema, level, encoders.actions, tuple(encoders.match_actions))
    missing = encoders.encode(level, {}, 1, time_ms=np.zeros(1, np.int64))
    computed = [
        name
        for name, feature in level_features(schema, level).items()
        if any(end.startswith(f"{entity}.") for end in feature.inputs())
    ]
    ids = [spec.names.index(name) for name in computed if name in spec.names]
    numbers = [column for name in computed for column in spec.numbers_of(name)]
    statistics = [
        column for name in _statistics_of(schema, level, entity) for column in spec.numbers_of(name)
    ]
    values = [*missing.numbers[0, numbers].tolist(), *(0.0 for _ in statistics)]
    return _Dependents(
        ids=ids,
        id_values=missing.ids[0, ids],
        numbers=numbers + statistics,
        number_values=np.array(values, dtype=np.float32),
    )


def _statistics_of(schema: Schema, level: str, entity: Entity) -> list[str]:
    """Return the statistics of a level whose key holds the entity, or a feature of it, or one
    computed from it.
    """
    own = {
        f"{at}.{name}"
        for at, name, feature in schema.features
        if at == entity or any(end.startswith(f"{entity}.") for end in feature.inputs())
    }
    return [
        name
        for name in schema.statistics_of(level)
        if any(part == entity or part in own for part in schema.statistics[name].by)
    ]
