"""Match counts: how many of a request's events share a value with a candidate, as cross numbers,
and how many there are, as context numbers. Here are their settings and names.

An event matches a candidate in an item column where both hold the same raw 64-bit key, known to a
vocabulary or not; a missing value never matches. Lists match where they share any known value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from hemix.features.base import FeatureType, SchemaSection
from hemix.moments import DurationMs, duration_text
from hemix.validation import InvalidKey, did_you_mean

__all__ = [
    "HOUR_MS",
    "MATCH_AGE",
    "MATCH_COUNTS",
    "MATCH_LAST",
    "MATCH_TOTALS",
    "OTHER_ACTIONS",
    "MatchCounts",
    "action_groups",
    "fit_windows",
    "match_names",
    "match_total_names",
]

MATCH_COUNTS, MATCH_TOTALS = "match_counts", "match_totals"
MATCH_LAST, MATCH_AGE = "match_last", "match_age"
"""What the number columns begin with; no cross or context feature and no statistic may have these
names.
"""
OTHER_ACTIONS = "other"
"""The group of the actions that are not counted apart, of unknown and of missing ones."""

HOUR_MS = 3_600_000
_MAX_ACTIONS = 100
_MINUTE_MS, _DAY_MS = 60_000, 24 * HOUR_MS
_SHORT_MS = (_MINUTE_MS, 5 * _MINUTE_MS, 15 * _MINUTE_MS, HOUR_MS)
_LONG_MS = (6 * HOUR_MS, 2 * _DAY_MS, 7 * _DAY_MS)


def _actions(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_ACTIONS:
        return value
    names = [str(name) for name in value] if isinstance(value, list | tuple) else []
    if not 1 <= len(set(names)) == len(names) <= _MAX_ACTIONS:
        raise ValueError(
            f"expected how many actions are counted apart, 0 to {_MAX_ACTIONS}, or a list of their "
            f"names, got {value!r}"
        )
    return tuple(names)


class MatchCounts(SchemaSection):
    """How many events of a request's history share a value with a candidate, whether the newest
    events do, and how old the last match is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Item features that are compared; by default those that events carry. Those of lists match
    where any of the values does.
    """
    actions: Annotated[int | tuple[str, ...], BeforeValidator(_actions)] = 7
    """The actions that are counted apart, by name or so many of the most frequent ones."""
    windows_ms: Annotated[tuple[DurationMs, ...] | None, Field(alias="windows")] = None
    """Windows that end with the history that a request sees, besides its real-time part and all of
    it. By default :func:`fit_windows` chooses them when the log is prepared.
    """
    last: bool = True
    """Whether the newest event of each action, and of all, matches is a number too."""
    recency: bool = True
    """Whether the age of a column's last match is a number too."""

    def check(self, items: Mapping[str, FeatureType], used_names: Collection[str]) -> None:
        """Check the section against the features of its schema.

        Args:
            items: The item features by name.
            used_names: Names of the cross and context features and the statistics.

        Raises:
            InvalidKey: Names the key, the expected value and the actual one.
        """
        where = f"history.{MATCH_COUNTS}"
        columns = self.columns or ()
        if len(set(columns)) < len(columns):
            names = ", ".join(columns)
            raise InvalidKey(f"{where}.columns", f"a feature is named twice: {names}")
        for name in columns:
            if name not in items:
                hint = did_you_mean(name, items)
                raise InvalidKey(
                    f"{where}.columns", f"no item feature {name!r}" + (f"; {hint}" if hint else "")
                )
            if not (items[name].tensor_columns().ids or items[name].tensor_columns().jagged):
                raise InvalidKey(
                    f"{where}.columns", f"{name} must be a categorical or a bucketed numeric"
                )
        windows_ms = self.windows_ms or ()
        if not all(low < high for low, high in pairwise((0, *windows_ms))):
            windows = ", ".join(map(duration_text, windows_ms))
            raise InvalidKey(
                f"{where}.windows",
                f"expected durations above 0, each longer than the one before it, got {windows}",
            )
        for name in (MATCH_COUNTS, MATCH_TOTALS, MATCH_LAST, MATCH_AGE):
            if name in used_names:
                raise InvalidKey(
                    name,
                    f"the name of a feature or statistic is taken by {where}; choose another, or "
                    f"set {where} to false",
                )


def fit_windows(span_ms: int) -> tuple[int, ...]:
    """Choose windows that differ from the whole history of a log.

    Each is at most half of the span: the longest of 6h, 2d and 7d, and before it the two longest of
    1min, 5min, 15min and 1h. A log of 14 days and more has 15min, 1h and 7d.

    Args:
        span_ms: From the first event of the histories to the end of training.

    Returns:
        Ascending durations in ms; none for a span below two minutes.
    """
    short = [window_ms for window_ms in _SHORT_MS if 2 * window_ms <= span_ms]
    long = [window_ms for window_ms in _LONG_MS if 2 * window_ms <= span_ms]
    return (*short[-2:], *long[-1:])


def match_total_names(actions: Iterable[str], windows_ms: Sequence[int]) -> list[str]:
    """Return the names of the context numbers, in the order of ``MatchCounter.totals``.

    Args:
        actions: The actions that are counted apart.
        windows_ms: The windows.
    """
    windows = _window_names(windows_ms)
    groups = action_groups(actions)
    return [f"{MATCH_TOTALS}.{group}.{window}" for group in groups for window in windows]


def match_names(
    counts: MatchCounts, columns: Sequence[str], actions: Iterable[str], windows_ms: Sequence[int]
) -> list[str]:
    """Return the names of the cross numbers, in the order of ``MatchCounter.numbers``.

    Args:
        counts: What is counted.
        columns: The item features that are compared.
        actions: Names of the actions that are counted apart.
        windows_ms: The windows.
    """
    windows, groups = _window_names(windows_ms) + ["last"] * counts.last, action_groups(actions)
    names = [f"{MATCH_COUNTS}.{c}.{g}.{w}" for c in columns for g in groups for w in windows]
    if counts.last:
        names += [f"{MATCH_LAST}.{column}" for column in columns]
    if counts.recency:
        names += [f"{MATCH_AGE}.{c}{suffix}" for c in columns for suffix in ("", ".missing")]
    return names


def _window_names(windows_ms: Sequence[int]) -> list[str]:
    return [*map(duration_text, windows_ms), "realtime", "all"]


def action_groups(actions: Iterable[str]) -> list[str]:
    """Return the groups of actions; an action called ``other`` is counted with all others."""
    return list(dict.fromkeys([*actions, OTHER_ACTIONS]))
