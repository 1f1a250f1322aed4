"""Match counts: worked out by hand at every edge, and against a naive double loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hemix.data.entities import MatchColumns
from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY
from hemix.data.spec import FIRST, MISSING, TIMELESS_MS, UNKNOWN
from hemix.errors import SchemaError
from hemix.features.match_counter import MatchCounter
from hemix.features.match_counts import MatchCounts, fit_windows, match_names, match_total_names
from hemix.features.match_index import MatchKeys, keys_of_ids
from hemix.features.seen_events import SeenEvents
from hemix.schema import Schema
from tests.refusals import raises

Array = npt.NDArray[Any]

NOW_MS = 1_770_000_000_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
TEN_YEARS_HOURS = 10 * 8760
VIEW, ORDER = FIRST, FIRST + 1
ACTIONS = {"view": VIEW, "order": ORDER}
DAY_MS = 24 * HOUR_MS
WINDOWS = ("15min", "1h", "7d", "realtime", "all")
WINDOWS_MS = (15 * MINUTE_MS, HOUR_MS, 7 * DAY_MS)

A, B, C = 2**63 + 11, 2**63 + 12, 7
"""Keys as xxh64 gives them; no vocabulary is asked."""
ITEMS = np.array([(A, 31), (B, 31), (C, 32), (A, NULL_KEY), (NULL_KEY, 31)], np.uint64)
"""Two columns: item and kind."""


@dataclass(frozen=True)
class Matches:
    """Whole numbers and ages out of the numbers of some candidates."""

    names: list[str]
    numbers: Array
    totals: dict[str, list[int]]
    """Action -> all visible events by window"""

    def count(self, candidate: int, column: str, group: str) -> list[int]:
        """The counts of one candidate by window."""
        at = [self.names.index(f"match_counts.{column}.{group}.{w}") for w in WINDOWS]
        return np.expm1(self.numbers[candidate, at]).round().astype(int).tolist()

    def last(self, candidate: int, column: str, group: str | None = None) -> int:
        """Whether the newest event of a group, or of all, matches."""
        name = f"match_last.{column}"
        if group is not None:
            name = f"match_counts.{column}.{group}.last"
        value = self.numbers[candidate, self.names.index(name)]
        return int(np.expm1(value).round()) if group is not None else int(value)

    def age(self, candidate: int, column: str) -> float | None:
        """Hours since the last match; None where there is none."""
        at = self.names.index(f"match_age.{column}")
        value, missing = self.numbers[candidate, [at, at + 1]].tolist()
        assert missing in (0, 1) and (not missing or value == 0)
        return None if missing else float(np.expm1(value * np.log1p(TEN_YEARS_HOURS)))


def keys(values: Array) -> MatchKeys:
    return MatchKeys(values=values)


def seen(time_ms: np.ndarray, ranges: np.ndarray, now_ms: np.ndarray) -> SeenEvents:
    """Events whose ids no match count reads."""
    return SeenEvents(
        event_ids=np.zeros((len(time_ms), 0), np.int32),
        time_ms=time_ms,
        history_ranges=ranges,
        request_time_ms=now_ms,
    )


def matches(
    events: list[tuple[float | None, int, int]],
    *,
    realtime: int = 0,
    hidden: int = 0,
    early: int = 0,
    actions: dict[str, int] = ACTIONS,
    candidates: Array = ITEMS,
) -> Matches:
    """Matches of one request's candidates.

    Args:
        events: (minutes ago or None, item, action id), by time.
        realtime: How many of the newest visible events are of the real-time part.
        hidden: How many of the newest events are not visible yet.
        early: How many of the oldest events are not visible any more.
        actions: Those that are counted apart.
        candidates: uint64 [N, 2].
    """
    counts = MatchCounts()
    counter = MatchCounter(counts, 2, actions, WINDOWS_MS)
    item = np.array([i for _, i, _ in events], np.int64)
    action = np.array([a for *_, a in events], np.int64)
    time_ms = np.array(
        [TIMELESS_MS if m is None else NOW_MS - round(m * MINUTE_MS) for m, *_ in events], np.int64
    )
    end = len(events) - hidden
    index = counter.index(keys(ITEMS), item, counter.groups(action))
    requested = seen(time_ms, np.array([[early, end - realtime, end]]), np.array([NOW_MS]))
    numbers = counter.numbers(
        index, requested, keys(candidates), np.zeros(len(candidates), np.int64)
    )
    totals = counter.totals(index, requested)
    assert numbers.dtype == totals.dtype == np.float32
    names = match_total_names(actions, WINDOWS_MS)
    whole = np.expm1(totals[0]).round().astype(int).tolist()
    assert len(names) == len(whole)
    return Matches(
        match_names(counts, ("item", "kind"), actions, WINDOWS_MS),
        numbers,
        {
            name.split(".")[1]: whole[at : at + len(WINDOWS)]
            for at, name in enumerate(names)
            if name.endswith(WINDOWS[0])
        },
    )


def test_counts_by_column_action_and_window() -> None:
    counts = matches(
        [
            (None, 0, ORDER),  # A of kind 31, without a time
            (8 * 24 * 60, 1, VIEW),
            (7 * 24 * 60, 0, VIEW),
            (60, 2, VIEW),
            (15, 0, VIEW),
            (1, 1, ORDER),
        ],
        realtime=3,
    )
    assert counts.count(0, "item", "view") == [1, 1, 2, 1, 2]
    assert counts.count(0, "item", "order") == [0, 0, 0, 0, 1]
    assert counts.count(0, "kind", "view") == [1, 1, 2, 1, 3]
    assert counts.count(0, "kind", "order") == [1, 1, 1, 1, 2]
    assert counts.count(1, "item", "view") == [0, 0, 0, 0, 1]
    assert counts.count(1, "item", "order") == [1, 1, 1, 1, 1]
    assert counts.count(2, "item", "view") == [0, 1, 1, 1, 1]
    assert counts.count(2, "kind", "view") == [0, 1, 1, 1, 1]
    assert counts.count(0, "item", "other") == [0] * 5
    assert counts.totals == {
        "view": [1, 2, 3, 2, 4],
        "order": [1, 1, 1, 1, 2],
        "other": [0] * 5,
    }


@pytest.mark.parametrize(("window", "minutes"), [(0, 15), (1, 60), (2, 7 * 24 * 60)])
def test_a_window_holds_the_event_at_its_edge_and_none_before(window: int, minutes: int) -> None:
    millisecond = 1 / MINUTE_MS
    at_edge = matches([(minutes, 0, VIEW)])
    before = matches([(minutes + millisecond, 0, VIEW)])
    assert at_edge.count(0, "item", "view")[window] == 1
    assert before.count(0, "item", "view")[window] == 0
    assert before.count(0, "item", "view")[-1] == 1


def test_a_request_s_history_ends_and_begins_where_its_ranges_say() -> None:
    """A delay hides the newest event, a length the oldest one."""
    events = [(30.0, 0, VIEW), (20.0, 0, VIEW), (2.0, 0, VIEW)]
    assert matches(events).count(0, "item", "view") == [1, 3, 3, 0, 3]
    late = matches(events, hidden=1)
    assert late.count(0, "item", "view") == late.totals["view"] == [0, 2, 2, 0, 2]
    assert late.age(0, "item") == pytest.approx(20 / 60, rel=1e-6)
    assert matches(events, early=2).count(0, "item", "view") == [1, 1, 1, 0, 1]
    none = matches(events, hidden=3)
    assert none.count(0, "item", "view") == [0] * 5 and none.age(0, "item") is None


def test_the_real_time_part_is_counted_apart_from_durations() -> None:
    events = [(5.0, 0, VIEW), (4.0, 0, VIEW), (3.0, 0, VIEW)]
    for realtime in range(4):
        counts = matches(events, realtime=realtime)
        assert counts.count(0, "item", "view") == [3, 3, 3, realtime, 3]


def test_a_missing_value_matches_nothing() -> None:
    counts = matches([(3, 3, VIEW), (2, 4, VIEW), (1, 3, VIEW)])  # kind, then item missing
    assert counts.count(3, "kind", "view") == [0] * 5 and counts.age(3, "kind") is None
    assert counts.count(4, "item", "view") == [0] * 5 and counts.age(4, "item") is None
    assert counts.count(3, "item", "view") == [2, 2, 2, 0, 2]
    assert counts.count(4, "kind", "view") == [1, 1, 1, 0, 1]
    assert counts.totals["view"] == [3, 3, 3, 0, 3], "it is an event all the same"


def test_a_value_that_no_event_holds() -> None:
    strange = np.array([(5, 31), (2**64 - 1, 2**64 - 1)], np.uint64)
    counts = matches([(1, 0, VIEW)], candidates=strange)
    assert counts.count(0, "item", "view") == [0] * 5 and counts.count(0, "kind", "view")[0] == 1
    assert not np.expm1(counts.numbers[1]).round().any() or counts.age(1, "kind") is None


def test_other_actions_are_counted_together() -> None:
    """Rarer, unknown and missing ones; and one that training forgot is none of them apart."""
    events = [(n, 0, action) for n, action in enumerate((VIEW, ORDER, 77, UNKNOWN, MISSING))][::-1]
    one = matches(events, actions={"view": VIEW})
    assert one.count(0, "item", "view")[0] == 1 and one.count(0, "item", "other")[0] == 4
    assert one.age(0, "item") == 0
    none = matches(events, actions={})
    assert none.count(0, "item", "other")[0] == 5
    forgotten = matches(events, actions={"view": -1, "order": ORDER})
    assert [forgotten.count(0, "item", g)[0] for g in ("view", "order", "other")] == [0, 1, 4]
    own = matches(events, actions={"other": ORDER, "view": VIEW})
    assert [own.count(0, "item", g)[0] for g in ("other", "view")] == [4, 1]


def test_the_age_of_the_last_match() -> None:
    counts = matches([(None, 2, VIEW), (90, 0, ORDER), (30, 0, VIEW), (0.5, 1, VIEW)])
    assert counts.age(0, "item") == pytest.approx(0.5, rel=1e-6)
    assert counts.age(1, "kind") == counts.age(0, "kind") == pytest.approx(0.5 / 60, rel=1e-4)
    assert counts.age(2, "item") == pytest.approx(10 * 8760, rel=1e-5), "no time: as ten years ago"
    assert matches([(1, 0, VIEW)]).age(2, "item") is None


def test_whether_the_newest_event_of_an_action_and_of_all_matches() -> None:
    counts = matches(
        [(9, 0, ORDER), (5, 2, VIEW), (4, 0, VIEW), (2, 1, 77), (1, 2, ORDER)], hidden=1
    )
    # the newest view is A of kind 31, the newest order too (that of C is hidden), 77 is B of 31
    assert [counts.last(0, "item", g) for g in ("view", "order", "other")] == [1, 1, 0]
    assert [counts.last(1, "item", g) for g in ("view", "order", "other")] == [0, 0, 1]
    assert [counts.last(0, "kind", g) for g in ("view", "order", "other")] == [1, 1, 1]
    assert [counts.last(2, c, g) for c in ("item", "kind") for g in ("view", "order")] == [0] * 4
    assert [counts.last(n, "item") for n in range(3)] == [0, 1, 0]
    assert [counts.last(n, "kind") for n in range(3)] == [1, 1, 0]


def test_the_newest_event_is_one_that_the_request_sees_and_one_with_a_value() -> None:
    early = matches([(9, 0, ORDER), (5, 2, VIEW)], early=1)
    assert early.last(0, "item", "order") == 0 and early.last(2, "item") == 1
    missing = matches([(9, 0, VIEW), (5, 4, VIEW)])  # the newest has no item, but a kind
    assert missing.last(0, "item") == missing.last(4, "item", "view") == 0
    assert missing.last(0, "kind") == missing.last(4, "kind", "view") == 1
    assert matches([]).last(0, "item") == 0


def test_events_of_one_time_all_count() -> None:
    counts = matches([(15, 0, VIEW), (15, 1, VIEW), (15, 0, ORDER), (15, 0, VIEW)])
    assert counts.count(0, "item", "view") == [2, 2, 2, 0, 2]
    assert counts.count(0, "item", "order") == [1, 1, 1, 0, 1]


def test_an_empty_history() -> None:
    counts = matches([])
    assert [counts.age(n, c) for n in range(5) for c in ("item", "kind")] == [None] * 10
    assert not counts.numbers[:, : 2 * 3 * 5].any()
    assert counts.totals == {name: [0] * 5 for name in ("view", "order", "other")}
    assert matches([(1, 0, VIEW)], candidates=ITEMS[:0]).numbers.shape == (0, len(counts.names))


def test_users_do_not_mix_and_requests_of_one_user_see_their_own() -> None:
    counter = MatchCounter(MatchCounts(), 2, ACTIONS, WINDOWS_MS)
    item, times = np.array([0, 0, 1, 0]), NOW_MS - MINUTE_MS * np.array([9, 5, 8, 7])
    index = counter.index(keys(ITEMS), item, counter.groups(np.full(4, VIEW)))
    names = match_names(MatchCounts(), ("item", "kind"), ACTIONS, WINDOWS_MS)
    # events 0 and 1 of one user, 2 and 3 of another
    ranges = np.array([[0, 2, 2], [2, 4, 4], [0, 1, 1]])
    numbers = counter.numbers(
        index,
        seen(times, ranges, np.full(3, NOW_MS)),
        keys(ITEMS[[0, 0, 0, 1]]),
        np.array([0, 1, 2, 1]),
    )
    counts = Matches(names, numbers, {})
    assert [counts.count(n, "item", "view")[-1] for n in range(4)] == [2, 1, 1, 1]
    assert [counts.count(n, "kind", "view")[-1] for n in range(4)] == [2, 2, 1, 2]
    ages = [counts.age(n, "item") for n in range(4)]
    assert ages == pytest.approx([5 / 60, 7 / 60, 9 / 60, 8 / 60], rel=1e-5)


def test_the_index_of_the_docstring() -> None:
    counter = MatchCounter(MatchCounts(), 1, {}, ())
    items, event_item = np.array([[70], [50]], np.uint64), np.array([0, 1, 0])
    index = counter.index(keys(items), event_item, np.zeros(3, np.uint8))
    assert [distinct.tolist() for distinct in index.distinct_keys] == [[50, 70]]
    assert index.bits == 2
    assert [entries.tolist() for entries in index.key_and_position] == [[1, 4, 6]]
    events = seen(np.array([1, 2, 3]), np.array([[0, 1, 3]]), np.array([4]))
    numbers = counter.numbers(index, events, keys(np.array([[70]], np.uint64)), np.array([0]))
    realtime, everything = np.expm1(numbers[0, :2]).round()
    assert (realtime, everything) == (1, 2)


def test_an_index_gives_back_its_keys_and_may_leave_out_what_is_not_wanted() -> None:
    counter = MatchCounter(MatchCounts(), 2, ACTIONS, WINDOWS_MS)
    item = np.array([3, 0, 4, 2, 0])
    groups = counter.groups(np.full(5, VIEW))
    index = counter.index(keys(ITEMS), item, groups)
    assert (index.event_keys().values == ITEMS[item]).all()
    assert index.nbytes() >= 2 * 5 * 8
    few = counter.index(keys(ITEMS), item, groups, wanted=np.array([2]))
    assert few.event_keys().values.tolist() == [[0, 0]] * 3 + [[C, 32]] + [[0, 0]]


def naive(
    counts: MatchCounts,
    windows_ms: tuple[int, ...],
    actions: dict[str, int],
    events: dict[str, Array],
    ranges: Array,
    now_ms: Array,
    candidates: Array,
    request: Array,
) -> Array:
    """The numbers by two loops over candidates and events."""
    names = [*dict.fromkeys([*actions, "other"])]
    rows = []
    for keys, q in zip(candidates.tolist(), request.tolist(), strict=True):
        begin, middle, end = ranges[q].tolist()
        table = np.zeros((len(keys), len(names), len(windows_ms) + 3))
        ages: list[float] = []
        last_matches: list[float] = []
        for column, key in enumerate(keys):
            last, newest_group, newest_of_all = None, dict[int, int](), -1
            for e in range(begin, end):
                named = [n for n, i in actions.items() if i == events["action"][e]]
                group = names.index(named[0] if named else "other")
                newest_group[group] = newest_of_all = int(events["keys"][e, column])
                if key == 0 or int(events["keys"][e, column]) != key:
                    continue
                age = int(now_ms[q]) - int(events["time"][e])
                within = [age <= window for window in windows_ms]
                table[column, group, :-1] += [*within, e >= middle, True]
                last = age
            hours = 0 if last is None else min(last / HOUR_MS, TEN_YEARS_HOURS)
            for group, newest in newest_group.items():
                table[column, group, -1] = newest == key != 0
            last_matches.append(float(newest_of_all == key != 0))
            ages += [np.log1p(hours) / np.log1p(TEN_YEARS_HOURS), float(last is None)]
        counted = table if counts.last else table[..., :-1]
        others = [*last_matches * counts.last, *ages * counts.recency]
        rows.append([*np.log1p(counted).ravel(), *others])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(40))
def test_as_a_double_loop_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = np.unique(rng.integers(1, 40, rng.integers(0, 4))) * HOUR_MS
    windows_ms = tuple(int(w) for w in windows)
    counts = MatchCounts(recency=bool(seed % 2), last=bool(seed // 2 % 2))
    actions = {f"a{n}": FIRST + int(n) for n in rng.permutation(4)[: rng.integers(0, 4)]}
    columns, users = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    lengths = rng.integers(0, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = [NOW_MS - HOUR_MS * np.sort(rng.integers(0, 50, n))[::-1] for n in lengths]
    items = rng.integers(0, 4, (9, columns)).astype(np.uint64)
    items[items > 1] += np.uint64(2**63)
    E, Q, N = int(offsets[-1]), int(rng.integers(1, 5)), int(rng.integers(0, 30))
    event_item, user = rng.integers(0, 9, E), rng.integers(0, users, Q)
    ranges = offsets[user][:, None] + np.sort(
        (rng.random((Q, 3)) * (lengths[user] + 1)[:, None]).astype(np.int64), axis=1
    )
    time_ms = np.concatenate([*times, np.zeros(0)]).astype(np.int64)
    timeless = offsets[:-1][(lengths > 0) & (rng.random(users) < 0.3)]
    time_ms[timeless] = TIMELESS_MS
    now_ms = NOW_MS + HOUR_MS * rng.integers(0, 3, Q)
    item, request = rng.integers(0, 9, N), np.sort(rng.integers(0, Q, N))
    action = rng.integers(0, 6, E)
    counter = MatchCounter(counts, columns, actions, windows_ms)
    expected = naive(
        counts,
        windows_ms,
        actions,
        {"keys": items[event_item], "action": action, "time": time_ms},
        ranges,
        now_ms,
        items[item],
        request,
    )
    requested = seen(time_ms, ranges, now_ms)
    for wanted in (None, item):
        index = counter.index(keys(items), event_item, counter.groups(action), wanted=wanted)
        numbers = counter.numbers(index, requested, keys(items[item]), request)
        names = match_names(counts, [f"c{c}" for c in range(columns)], actions, windows_ms)
        assert numbers.shape == (N, len(names))
        np.testing.assert_allclose(numbers, expected.reshape(numbers.shape), rtol=1e-6, atol=1e-7)
        # where all events and one candidate a request hold one key, the totals are its counts
        ones = np.ones((9, 1), np.uint64)
        one = MatchCounter(MatchCounts(last=False), 1, actions, windows_ms)
        same = one.index(keys(ones), event_item, counter.groups(action))
        counted = one.numbers(same, requested, keys(ones[np.zeros(Q, int)]), np.arange(Q))
        totals = counter.totals(index, requested)
        assert (totals == counted[:, : totals.shape[1]]).all()
        assert totals.shape[1] == len(match_total_names(actions, windows_ms))


@pytest.mark.parametrize(
    ("span_ms", "windows_ms"),
    [
        (0, ()),
        (2 * MINUTE_MS - 1, ()),
        (2 * MINUTE_MS, (MINUTE_MS,)),
        (HOUR_MS, (5 * MINUTE_MS, 15 * MINUTE_MS)),
        (2 * DAY_MS, (15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS)),
        (8 * DAY_MS, (15 * MINUTE_MS, HOUR_MS, 2 * DAY_MS)),
        (14 * DAY_MS, WINDOWS_MS),
        (4000 * DAY_MS, WINDOWS_MS),
    ],
)
def test_windows_are_at_most_half_of_the_log(span_ms: int, windows_ms: tuple[int, ...]) -> None:
    assert fit_windows(span_ms) == windows_ms


# -- lists -----------------------------------------------------------------------------------------

TAGS = keys_of_ids(
    JaggedArray.from_lists(
        [[5, 6], [6, 7, 6], [UNKNOWN], [MISSING], [8], [], [5, 6, 7, 8]], dtype=np.int32
    )
)
"""Ids of items 0 to 6"""


def test_an_event_that_shares_any_value_of_a_list_counts_once() -> None:
    counts = MatchCounts(recency=True)
    counter = MatchCounter(counts, 2, ACTIONS, (HOUR_MS,))
    kinds = np.array([[31]] * 6 + [[32]], np.uint64)
    items = MatchKeys(values=kinds, lists=(TAGS,))
    item = np.array([4, 0, 1, 2, 3, 5, 1])
    minutes = np.array([90, 80, 50, 40, 30, 20, 10])
    actions = np.array([VIEW, ORDER, VIEW, VIEW, VIEW, VIEW, ORDER])
    index = counter.index(items, item, counter.groups(actions))
    requested = seen(
        NOW_MS - MINUTE_MS * minutes, np.array([[0, 6, 7], [1, 3, 3]]), np.full(2, NOW_MS)
    )
    candidate, request = np.array([0, 1, 2, 5, 6, 6]), np.array([0, 0, 0, 0, 0, 1])
    numbers = counter.numbers(index, requested, items.select(candidate), request)
    names = match_names(counts, ("kind", "tags"), ACTIONS, (HOUR_MS,))

    def of(name: str) -> list[float]:
        return numbers[:, names.index(name)].tolist()

    def count(name: str) -> list[int]:
        return [round(np.expm1(value)) for value in of(f"match_counts.tags.{name}")]

    # 1h, realtime, all, newest; candidates 0, 1, 2 (unknown), 5 (empty) and 6 twice
    assert count("view.1h") == [1, 1, 0, 0, 1, 1]
    assert count("view.all") == [1, 1, 0, 0, 2, 1]
    assert count("order.all") == [2, 2, 0, 0, 2, 1]
    assert count("order.realtime") == [1, 1, 0, 0, 1, 0]
    assert count("order.last") == [1, 1, 0, 0, 1, 1]
    assert count("view.last") == [0, 0, 0, 0, 0, 1], "the newest view of the first has no tags"
    assert of("match_last.tags") == [1, 1, 0, 0, 1, 1]
    assert of("match_age.tags.missing") == [0, 0, 1, 1, 0, 0]
    hours = np.expm1(np.array(of("match_age.tags")) * np.log1p(TEN_YEARS_HOURS))
    np.testing.assert_allclose(hours[[0, 1, 4, 5]], np.array([10, 10, 10, 50]) / 60, rtol=1e-5)
    # the column of one value is counted as without lists
    single = MatchCounter(counts, 1, ACTIONS, (HOUR_MS,))
    alone = single.numbers(
        single.index(keys(kinds), item, counter.groups(actions)),
        requested,
        keys(kinds[candidate]),
        request,
    )
    own = [n for n, name in enumerate(names) if ".kind" in name]
    assert (numbers[:, own] == alone).all()


def test_lists_are_counted_as_a_set_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counter = MatchCounter(MatchCounts(), 1, {}, ())
    drawn = [rng.integers(0, 7, rng.integers(0, 5)).tolist() for _ in range(30)]
    tags = keys_of_ids(JaggedArray.from_lists(drawn, dtype=np.int32))
    items = MatchKeys(values=np.zeros((30, 0), np.uint64), lists=(tags,))
    item, request = rng.integers(0, 30, 40), np.sort(rng.integers(0, 3, 25))
    ranges = np.array([[0, 5, 12], [12, 12, 30], [33, 38, 40]])
    candidate, groups = rng.integers(0, 30, 25), counter.groups(np.zeros(40, np.int64))
    requested = seen(np.arange(40), ranges, np.full(3, 50))
    known = [{tag for tag in each if tag >= FIRST} for each in drawn]
    everything = [
        sum(bool(known[c] & known[item[e]]) for e in range(ranges[q, 0], ranges[q, 2]))
        for c, q in zip(candidate.tolist(), request.tolist(), strict=True)
    ]
    index = counter.index(items, item, groups)
    again = counter.index(index.event_keys(), np.arange(40), groups)
    few = counter.index(items, item, groups, wanted=candidate)
    for cells in (1 << 24, 1):
        monkeypatch.setattr("hemix.features.match_counter._CELLS", cells)
        for each in (index, again, few):
            numbers = counter.numbers(each, requested, items.select(candidate), request)
            assert np.expm1(numbers[:, 1]).round().astype(int).tolist() == everything


# -- schema ----------------------------------------------------------------------------------------

SCHEMA = """
name: counted
features:
  item:
    item_id: {type: categorical}
    kind: {type: categorical}
    tags: {type: categorical, multi: true}
    price: {type: numeric, encoding: standardise}
    size: {type: numeric, buckets: 4}
  cross: {way: {type: categorical}}
labels: {click: {}}
split: {valid: 2026-01-07, test: 2026-01-08}
"""


def schema(section: str | None, text: str = SCHEMA) -> Schema:
    return Schema.parse(text if section is None else f"{text}history: {{match_counts: {section}}}")


def test_on_by_default_in_the_columns_that_events_carry() -> None:
    for section in (None, "true", "{}"):
        parsed = schema(section)
        assert parsed.match_columns == ("item_id", "kind", "size")
        assert parsed.history.match_counts == MatchCounts()
    assert MatchCounts().windows_ms is None and MatchCounts().last
    nothing = "name: n\nlabels: {click: {}}\nsplit: {valid: 2026-01-07, test: 2026-01-08}"
    assert Schema.parse(nothing).match_columns == ()


def test_lists_and_hashed_ids_are_compared_where_the_schema_names_them() -> None:
    hashed = SCHEMA.replace(
        "kind: {type: categorical}", "kind: {type: categorical, hash: {rows: 9}}"
    )
    parsed = schema("{columns: [tags, kind]}", hashed)
    assert parsed.match_columns == ("kind", "tags"), "lists follow"
    assert MatchColumns.of(parsed) == MatchColumns(keys=[0], jagged=[0])


def test_off_is_remembered() -> None:
    for section in ("false", "null"):
        parsed = schema(section)
        assert parsed.history.match_counts is None and parsed.match_columns == ()
        again = Schema.parse(parsed.to_yaml())
        assert again == parsed and again.fingerprint() == parsed.fingerprint()
    assert parsed.fingerprint() != schema(None).fingerprint()


def test_settings_are_read_and_written() -> None:
    parsed = schema(
        "{columns: [kind], actions: [order, 7], windows: [90s, 2h, 1d], recency: false, "
        "last: false}"
    )
    counts = parsed.history.match_counts
    assert counts is not None and parsed.match_columns == ("kind",)
    assert counts.actions == ("order", "7") and not counts.recency
    assert counts.windows_ms == (90_000, 2 * HOUR_MS, 24 * HOUR_MS)
    assert Schema.parse(parsed.to_yaml()) == parsed
    assert match_names(counts, parsed.match_columns, ("order", "7"), counts.windows_ms) == [
        f"match_counts.kind.{group}.{window}"
        for group in ("order", "7", "other")
        for window in ("90s", "2h", "1d", "realtime", "all")
    ]
    assert match_names(MatchCounts(), ("kind",), (), ()) == [
        "match_counts.kind.other.realtime",
        "match_counts.kind.other.all",
        "match_counts.kind.other.last",
        "match_last.kind",
        "match_age.kind",
        "match_age.kind.missing",
    ]


@pytest.mark.parametrize(
    ("section", "key", "values"),
    [
        ("{columns: [kindd]}", "columns", ["'kindd'", "did you mean kind?"]),
        ("{columns: [way]}", "columns", ["'way'"]),
        ("{columns: [price]}", "columns", ["price"]),
        ("{columns: [kind, kind]}", "columns", ["kind, kind"]),
        ("{columns: []}", "columns", []),
        ("{windows: [0]}", "windows", [0]),
        ("{windows: [2h, 1h]}", "windows", ["2h, 1h"]),
        ("{windows: [1h, 60min]}", "windows", ["1h, 1h"]),
        ("{windows: [60]}", "windows.0", [60]),
        ("{actions: -1}", "actions", [0, 100, -1]),
        ("{actions: [a, a]}", "actions", [0, 100, "['a', 'a']"]),
        ("{actions: true}", "actions", [0, 100, "True"]),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(
    section: str, key: str, values: list[object]
) -> None:
    with raises(SchemaError, *values, field=f"history.match_counts.{key}"):
        schema(section)


def test_an_unknown_key_is_refused() -> None:
    with raises(SchemaError, code="unknown_key", field="history.match_counts.recent"):
        schema("{recent: true}")


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("cross", "match_counts"),
        ("cross", "match_last"),
        ("cross", "match_age"),
        ("context", "match_totals"),
    ],
)
def test_the_numbers_names_are_reserved(level: str, name: str) -> None:
    text = SCHEMA.replace("cross: {way:", f"{level}: {{{name}:")
    with raises(SchemaError, "history.match_counts", field=name):
        schema(None, text)
    assert schema("false", text).match_columns == ()
