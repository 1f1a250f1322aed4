"""Which table holds what, and which of its columns is user, item, time, label or position."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from hemix.errors import DataError
from hemix.schema_draft.profiles import ColumnProfile, TableProfile, equal_share

__all__ = [
    "Guess",
    "Roles",
    "TableRoles",
    "assign_tables",
    "columns_by_role",
    "find_roles",
    "time_unit",
    "words_of",
]

ClockUnit = Literal["s", "ms", "us", "ns"]

_TABLE_WORDS = {
    "impressions": ("impression", "exposure", "train", "sample", "rating", "interaction", "log"),
    "events": ("event", "behavior", "behaviour", "history", "action", "click", "view"),
    "items": ("item", "product", "article", "video", "movie", "news", "good", "ad", "poi", "offer"),
    "users": ("user", "member", "customer", "visitor", "account", "profile"),
}
_USER_WORDS = ("user", "uid", "member", "customer", "visitor", "viewer", "account", "client")
_ITEM_WORDS = (
    *("item", "iid", "product", "video", "article", "news", "movie", "goods", "sku", "ad"),
    *("poi", "content", "doc", "listing", "offer", "track", "song", "book", "shop", "creative"),
)
_TIME_WORDS = ("time", "timestamp", "ts", "date", "datetime", "at")
_CLICK_WORDS = ("click", "clicked", "clk", "label", "target", "like", "view", "ctr")
_DEEP_WORDS = ("order", "purchase", "buy", "conversion", "convert", "cvr", "paid", "pay")
_POSITION_WORDS = ("position", "pos", "rank", "slot")
_REQUEST_WORDS = ("request", "impression", "search", "query", "list", "session", "page", "slate")
_ACTION_WORDS = ("action", "event", "type", "behavior", "behaviour")
_UNITS: tuple[tuple[ClockUnit, float], ...] = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_EARLIEST_S, _LATEST_S = 631_152_000.0, 4_102_444_800.0  # 1990 and 2100
_MAX_ACTIONS = 100
_MAX_POSITION = 2_000


@dataclass(frozen=True)
class Guess:
    """A value and why it was chosen."""

    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TableRoles:
    """The tables of the logs by their role."""

    impressions: TableProfile
    events: TableProfile | None = None
    items: TableProfile | None = None
    users: TableProfile | None = None
    ignored: tuple[str, ...] = ()
    """Tables without a role"""


@dataclass(kw_only=True)
class Roles:
    """The columns with a meaning of their own."""

    user: Guess
    item: Guess
    clock: Guess
    unit: ClockUnit
    event_clock: str | None = None
    """Of the events table, where it is another column"""
    labels: list[Guess] = field(default_factory=list)
    """The first label, and deeper ones whose positives are among those of the one before"""
    available_at: dict[str, str] = field(default_factory=dict)
    """By label, the column with the time at which its positives became known"""
    other_labels: list[str] = field(default_factory=list)
    """Further columns of 0 and 1 in the impressions that may be labels"""
    request_id: Guess | None = None
    position: Guess | None = None
    action: Guess | None = None
    valid_from: str | None = None


def words_of(name: str) -> list[str]:
    """Return the words of a column's name: ``isClicked_at`` -> is, clicked, at."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _matches(name: str, words: Iterable[str]) -> int:
    """The place of the first of some words in a name, from 1; 0 without one."""
    own = [word.removesuffix("s") for word in words_of(name)]
    wanted = [word.removesuffix("s") for word in words]
    return next((at for at, word in enumerate(wanted, start=1) if word in own), 0)


def assign_tables(tables: Sequence[TableProfile]) -> TableRoles:
    """Say which table holds what, by names and columns.

    Args:
        tables: The tables of the logs.

    Raises:
        DataError: No table has users, items and times together.
    """
    logs = [t for t in tables if _has_interactions(t)]
    if not logs:
        shown = "; ".join(f"{t.path.name}: {', '.join(t.columns)}" for t in tables)
        raise DataError(
            "no table has a user, an item and a time, so none can be the impressions",
            code="missing_table",
            field="tables.impressions",
            hint=f"name the columns user_id, item_id and time_ms, or write schema.yaml ({shown})",
        )
    with_labels = [t for t in logs if _label_columns(t)] or logs
    impressions = min(with_labels, key=lambda t: (_table_rank(t, "impressions"), -t.rows))
    others = [t for t in logs if t is not impressions]
    events = min(others, key=lambda t: (_table_rank(t, "events"), -t.rows), default=None)
    rest = [t for t in tables if t not in logs]
    users = _entity_table(rest, "users", _USER_WORDS)
    items = _entity_table([t for t in rest if t is not users], "items", _ITEM_WORDS)
    used = (impressions, events, items, users)
    return TableRoles(
        impressions=impressions,
        events=events,
        items=items,
        users=users,
        ignored=tuple(t.path.name for t in tables if all(t is not other for other in used)),
    )


def _table_rank(table: TableProfile, role: str) -> int:
    return _matches(table.name, _TABLE_WORDS[role]) or 100


def _entity_table(
    tables: Sequence[TableProfile], role: str, words: Sequence[str]
) -> TableProfile | None:
    fitting = [t for t in tables if any(_matches(c, words) for c in t.columns)]
    named = [t for t in fitting if _matches(t.name, (*_TABLE_WORDS[role], *words))]
    return min(named, key=lambda t: _table_rank(t, role), default=None)


def _has_interactions(table: TableProfile) -> bool:
    times = _times(table)
    users = _named(table, _USER_WORDS, ids=True)
    items = _named(table, _ITEM_WORDS, ids=True)
    return bool(times) and bool(users) and bool(set(items) - set(users[:1]))


def _named(table: TableProfile, words: Sequence[str], *, ids: bool) -> list[str]:
    """Columns whose names hold one of some words; ids first, then by the order of the words."""

    def order(name: str) -> tuple[bool, int, int]:
        parts = words_of(name)
        is_id = parts[-1:] == ["id"] or len(parts) == 1
        return not is_id, _matches(name, words), len(parts)

    found = [
        name
        for name, column in table.columns.items()
        if _matches(name, words) and (column.is_key or not ids)
    ]
    found = [n for n in found if not ids or order(n)[0] is False]
    return sorted(found, key=order)


def _times(table: TableProfile) -> list[tuple[str, ClockUnit]]:
    """Columns that are times, best first, with their units."""
    found = []
    for name, column in table.columns.items():
        unit = time_unit(column)
        if unit is not None and _matches(name, _TIME_WORDS):
            whole_days = _are_dates(column)
            found.append((whole_days, -column.distinct, name, unit))
    return [(name, unit) for _, _, name, unit in sorted(found, key=lambda f: f[:3])]


def _are_dates(column: ColumnProfile) -> bool:
    return bool(pa.types.is_date(column.type))


def time_unit(column: ColumnProfile) -> ClockUnit | None:
    """Return the unit of a column of times since 1970, or None for other values.

    Args:
        column: The column.
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return "ms"
    if column.is_number and column.null_share == 1.0:
        return "ms"  # of events of which no sampled one has a time
    if not column.is_number or column.least is None or column.most is None:
        return None
    for unit, per_second in _UNITS:
        if _EARLIEST_S * per_second <= column.least and column.most < _LATEST_S * per_second:
            # 20220505 is a date written as a number, and within the range of seconds only by chance
            is_date = column.least >= 19_900_101 and column.most <= 21_000_101
            return None if unit == "s" and is_date else unit
    return None


def _label_columns(table: TableProfile) -> list[str]:
    """Columns of 0 and 1 that may be labels, shallow ones first."""
    binary = [name for name, column in table.columns.items() if column.is_binary]
    named = [n for n in binary if _matches(n, (*_CLICK_WORDS, *_DEEP_WORDS))]

    def order(name: str) -> tuple[int, int, int]:
        deep = _matches(name, _DEEP_WORDS)
        return int(deep > 0), _matches(name, _CLICK_WORDS), deep

    return sorted(named, key=order)


def find_roles(tables: TableRoles) -> Roles:
    """Say which columns have a meaning of their own.

    Args:
        tables: The tables by role.
    """
    impressions, events = tables.impressions, tables.events
    times = _times(impressions)
    clock, unit = times[0]
    user = _common(_named(impressions, _USER_WORDS, ids=True), events, tables.users)
    items = [n for n in _named(impressions, _ITEM_WORDS, ids=True) if n != user]
    item = _common(items, events, tables.items)
    roles = Roles(
        user=Guess(user, "by its name"),
        item=Guess(item, "by its name"),
        clock=Guess(clock, _clock_reason(impressions.columns[clock], unit)),
        unit=unit,
    )
    taken = {user, item, clock}
    _find_labels(impressions, taken, roles)
    _find_position(impressions, taken, roles)
    _find_request(impressions, taken, roles)
    if events is not None:
        event_times = [name for name, _ in _times(events)]
        if clock not in event_times and event_times:
            roles.event_clock = event_times[0]
        _find_action(events, roles)
    roles.valid_from = next(
        (
            name
            for table in (tables.items, tables.users)
            if table is not None
            for name in table.columns
            if words_of(name) == ["valid", "from"]
        ),
        None,
    )
    return roles


def _common(names: Sequence[str], *tables: TableProfile | None) -> str:
    """The first name that most of the other tables have too."""
    there = [t for t in tables if t is not None]
    return max(names, key=lambda n: (sum(n in t.columns for t in there), -names.index(n)))


def _clock_reason(column: ColumnProfile, unit: str) -> str:
    if not column.is_number:
        return f"its type is {column.type}"
    return f"its numbers are times since 1970 in {unit}"


def _find_labels(table: TableProfile, taken: set[str], roles: Roles) -> None:
    binary = [n for n, c in table.columns.items() if c.is_binary and n not in taken]
    candidates = [n for n in _label_columns(table) if n in binary] or binary
    if not candidates:
        return
    first = candidates[0]
    roles.labels.append(Guess(first, f"0 or 1, {_share(table, first):.1%} positive"))
    previous = first
    for name in candidates[1:]:
        if not _matches(name, (*_DEEP_WORDS, "long", "view", "finish", "complete")):
            continue
        values, of_previous = (_ones(table.columns[n]) for n in (name, previous))
        if values.any() and not (values & ~of_previous).any():
            reason = f"{_share(table, name):.1%} positive, only where {previous} is"
            roles.labels.append(Guess(name, reason))
            previous = name
    named = {guess.value for guess in roles.labels}
    roles.other_labels = [n for n in binary if n not in named]
    taken.update(binary)
    for guess in reversed(roles.labels):  # a time of orders is known only where clicks are, too
        positive = _ones(table.columns[guess.value])
        for name, column in table.columns.items():
            known = np.asarray(column.values.is_valid().to_numpy(zero_copy_only=False))
            is_time = name not in taken and time_unit(column) is not None and known.any()
            if is_time and not (known & ~positive).any():
                roles.available_at.setdefault(guess.value, name)
                taken.add(name)


def _share(table: TableProfile, name: str) -> float:
    numbers = table.columns[name].numbers()
    return float(numbers.mean()) if len(numbers) else 0.0


def _ones(column: ColumnProfile) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    numbers = column.values.cast(pa.float64(), safe=False).fill_null(0.0)
    return np.asarray(numbers.to_numpy(zero_copy_only=False) == 1.0)


def _find_position(table: TableProfile, taken: set[str], roles: Roles) -> None:
    for name, column in table.columns.items():
        small = column.least in (0, 1) and (column.most or 0) <= _MAX_POSITION
        if name not in taken and _matches(name, _POSITION_WORDS) and column.is_whole and small:
            roles.position = Guess(name, f"whole numbers from {column.least:g} to {column.most:g}")
            taken.add(name)
            return


def _find_request(table: TableProfile, taken: set[str], roles: Roles) -> None:
    """A column that several adjacent rows share, with one user and one time each."""
    together = (table.columns[roles.user.value].keys(), table.columns[roles.clock.value].keys())
    for name in sorted(table.columns, key=lambda n: _matches(n, _REQUEST_WORDS) or 100):
        column = table.columns[name]
        if name in taken or not _matches(name, _REQUEST_WORDS) or not column.is_key:
            continue
        keys = column.keys()
        if column.null_share > 0 or column.distinct >= len(keys):
            continue
        if all(equal_share(keys, other) == 1.0 for other in together):
            rows = len(keys) / column.distinct
            roles.request_id = Guess(name, f"one user and time each, {rows:.1f} rows on average")
            taken.add(name)
            return


def _find_action(events: TableProfile, roles: Roles) -> None:
    for name in sorted(events.columns, key=lambda n: _matches(n, _ACTION_WORDS) or 100):
        column = events.columns[name]
        fits = column.is_key and 1 <= column.distinct <= _MAX_ACTIONS
        if _matches(name, _ACTION_WORDS) and words_of(name)[-1] != "id" and fits:
            roles.action = Guess(name, f"{column.distinct} values: {_examples(column)}")
            return


def _examples(column: ColumnProfile) -> str:
    values = column.values.drop_null().unique().to_pylist()[:4]
    return ", ".join(map(str, values))


def columns_by_role(roles: Roles) -> Mapping[str, str]:
    """Return the columns of the impressions that are no features, with their role."""
    known = {roles.user.value: "user", roles.item.value: "item", roles.clock.value: "time"}
    known |= {guess.value: "label" for guess in roles.labels}
    known |= dict.fromkeys(roles.other_labels, "another label")
    known |= dict.fromkeys(roles.available_at.values(), "when a label became known")
    for guess, role in ((roles.request_id, "request"), (roles.position, "position")):
        if guess is not None:
            known[guess.value] = role
    return known
