"""What a model has to know of the data, and the two values that data and model must agree on.

No tensors here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FIRST", "MISSING", "TIMELESS_MS", "UNKNOWN", "InputSpec", "LevelSpec", "Task"]

TIMELESS_MS = -(2**62)
"""The time of an event without a time: before all others, never hidden."""

UNKNOWN = 0
"""Id of a value that the encoder does not know."""

MISSING = 1
"""Id of a missing value."""

FIRST = 2
"""Id of the first known value."""

_LEVELS = ("user", "context", "item", "cross", "event")
_JSON_KEYS = {"jagged_names": "bag_names", "jagged_tables": "bag_tables"}
"""Fields of :class:`LevelSpec` that saved files know by another name"""


@dataclass(frozen=True, kw_only=True)
class LevelSpec:
    """The columns of one level: the embedding table of every id column, the width of the
    numbers.
    """

    names: tuple[str, ...] = ()
    """Feature names of the id columns."""
    tables: tuple[str, ...] = ()
    """Table of each id column, same order."""
    jagged_names: tuple[str, ...] = ()
    """Feature names of the jagged columns, whose rows hold lists of ids."""
    jagged_tables: tuple[str, ...] = ()
    """Table of each jagged column, same order."""
    number_names: tuple[str, ...] = ()
    """One name per number column: the feature's, or ``feature.part`` (``place.latitude``,
    ``emb.2``, ``price.missing``).
    """

    @property
    def numbers(self) -> int:
        """K, the width of the numbers."""
        return len(self.number_names)

    def numbers_of(self, name: str) -> list[int]:
        """The number columns of one feature or statistic, or of the history counts
        (``history``).
        """
        return [i for i, n in enumerate(self.number_names) if n.split(".")[0] == name]

    def history_numbers(self, part: Literal["global", "realtime"]) -> list[int]:
        """The history counts of one part, as columns of the numbers."""
        own = "today" if part == "realtime" else "before"
        return [i for i, n in enumerate(self.number_names) if n.split(".")[:2] == ["history", own]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A label: its name and, in a funnel, the position of the label it depends on."""

    name: str
    given: int | None = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """All that a model has to know of the data: tables with their rows, the columns of every level,
    the tasks.

    Made by the encoders, saved with the run (JSON).
    """

    tables: Mapping[str, int]
    """Rows of every embedding table, the unknown and the missing row included."""
    user: LevelSpec
    context: LevelSpec
    item: LevelSpec
    cross: LevelSpec
    event: LevelSpec
    """The fields of an event, the action first; its item's columns are `event_item_columns`."""
    event_item_columns: tuple[int, ...]
    """Which id columns of the item level an event carries."""
    vocabularies: tuple[str, ...] = ()
    """The tables whose ids come from a vocabulary: only those have an unknown row that data can
    reach.
    """
    bias_rows: int = 0
    """Rows of the bias table (position); 0: no bias column."""
    tasks: tuple[Task, ...]
    logit_shift: tuple[float, ...]
    """Added to each task's logit of a prediction to undo negative sampling; zeros without."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        content = dataclasses.asdict(self)
        for name in _LEVELS:
            content[name] = {_JSON_KEYS.get(k, k): v for k, v in content[name].items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> InputSpec:
        """Inverse of :meth:`to_json`."""
        fields = {key: field for field, key in _JSON_KEYS.items()}
        levels = {
            name: LevelSpec(**{fields.get(k, k): tuple(v) for k, v in content[name].items()})
            for name in _LEVELS
        }
        return cls(
            tables=dict(content["tables"]),
            **levels,
            event_item_columns=tuple(content["event_item_columns"]),
            vocabularies=tuple(content["vocabularies"]),
            bias_rows=content["bias_rows"],
            tasks=tuple(Task(**task) for task in content["tasks"]),
            logit_shift=tuple(content["logit_shift"]),
        )
