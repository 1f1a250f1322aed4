"""InputSpec: the tables, columns and tasks of a dataset, which a model is built for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FIRST", "MISSING", "TIMELESS_MS", "UNKNOWN", "InputSpec", "LevelSpec", "Task"]

TIMELESS_MS = -(2**62)
"""The time of an event without a time: before all other times, so that every request sees it."""

UNKNOWN = 0
"""Id of a value that the encoder has not learned."""

MISSING = 1
"""Id of a missing value."""

FIRST = 2
"""Id of the first known value."""

_LEVELS = ("user", "context", "item", "cross", "event")
_JSON_KEYS = {"jagged_names": "bag_names", "jagged_tables": "bag_tables"}
"""Fields of :class:`LevelSpec` with another name in saved files"""


@dataclass(frozen=True, kw_only=True)
class LevelSpec:
    """The tensor columns of a level."""

    names: tuple[str, ...] = ()
    """Feature names of the id columns."""
    tables: tuple[str, ...] = ()
    """Table of each id column, same order."""
    jagged_names: tuple[str, ...] = ()
    """Feature names of the jagged columns, whose rows hold lists of ids."""
    jagged_tables: tuple[str, ...] = ()
    """Table of each jagged column, same order."""
    number_names: tuple[str, ...] = ()
    """Name of each number column: that of its feature, or with a suffix such as ``home.latitude``,
    ``emb.2`` and ``price.missing``.
    """

    @property
    def numbers(self) -> int:
        """K, the width of the numbers."""
        return len(self.number_names)

    def numbers_of(self, name: str) -> list[int]:
        """Return the number columns of a feature, of a statistic, of the history counts
        (``history``), or of match counts (``match_counts``, ``match_last``, ``match_age``,
        ``match_totals``).
        """
        return [i for i, n in enumerate(self.number_names) if n.split(".")[0] == name]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A label: its name, and the position of the label that it depends on, if any."""

    name: str
    given: int | None = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Embedding tables, columns of every level, and tasks. The encoders make it; a run saves it."""

    tables: Mapping[str, int]
    """Rows of every embedding table, the unknown and the missing row included."""
    user: LevelSpec
    context: LevelSpec
    item: LevelSpec
    cross: LevelSpec
    event: LevelSpec
    """The fields of an event, the action first; `event_item_columns` are those of its item."""
    event_item_columns: tuple[int, ...]
    """Id columns of the item level that an event carries."""
    match_actions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Ids of the actions with match counts of their own; -1 if no event can have the action."""
    match_windows_ms: tuple[int, ...] = ()
    """The windows of match counts, ascending."""
    vocabularies: tuple[str, ...] = ()
    """Tables with a vocabulary: data can contain the unknown id of these tables only."""
    bias_rows: int = 0
    """Rows of the bias table (positions); 0 without a bias column."""
    tasks: tuple[Task, ...]
    logit_shift: tuple[float, ...]
    """Added to each task's logit to undo negative sampling; zeros without it."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of spec.json."""
        content = dataclasses.asdict(self)
        for name in _LEVELS:
            content[name] = {_JSON_KEYS.get(k, k): v for k, v in content[name].items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> InputSpec:
        """Read the content of spec.json."""
        fields = {key: field for field, key in _JSON_KEYS.items()}
        levels = {
            name: LevelSpec(**{fields.get(k, k): tuple(v) for k, v in content[name].items()})
            for name in _LEVELS
        }
        return cls(
            tables=dict(content["tables"]),
            **levels,
            event_item_columns=tuple(content["event_item_columns"]),
            match_actions=dict(content["match_actions"]),
            match_windows_ms=tuple(content["match_windows_ms"]),
            vocabularies=tuple(content["vocabularies"]),
            bias_rows=content["bias_rows"],
            tasks=tuple(Task(**task) for task in content["tasks"]),
            logit_shift=tuple(content["logit_shift"]),
        )
