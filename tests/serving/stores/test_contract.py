"""What every store promises, each test once for memory, SQLite and a real redis-server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hemix.data.spec import TIMELESS_MS
from hemix.errors import SettingsError, StoreError
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Event, LiveFeatures, StoredHistory
from tests.refusals import raises
from tests.serving.stores.conftest import Open
from tests.serving.stores.events import NOON_MS, did, ids, says


def wait_for(true: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


# -- histories -------------------------------------------------------------------------------------


def test_an_event_comes_back_as_it_was(opened: Open) -> None:
    store = opened(impressions=True)
    events = (
        Event(
            id="t",
            kind="interaction",
            time_ms=TIMELESS_MS,
            user="ü\u2028'\"\0",
            item="",
            received_ms=1,
        ),
        did(
            "a",
            0,
            "ü\u2028'\"\0",
            item="Käse/1",
            action=None,
            ranking="r:1",
            received_ms=NOON_MS + 5,
            fields={
                "price": 12.1,
                "n": 2**53 + 1,
                "tags": ["x", None],
                "e": [],
                "o": {},
                "on": True,
                "no": None,
                "ключ": "😀",
            },
        ),
        did("b", 1, "ü\u2028'\"\0", kind="impression"),
    )
    assert store.append(events) == [True] * 3
    assert store.history(events[0].user or "", limit=10).events == events
    assert store.history("u", limit=10) == StoredHistory() == StoredHistory(0, ())


def test_a_late_event_is_sorted_in(opened: Open) -> None:
    store = opened()
    store.append([did("c", 30), did("a", 10)])
    store.append([did("b", 20), did("d", 30)])
    store.append([did("z", 10)])
    assert ids(store.history("u", limit=10)) == ["a", "z", "b", "c", "d"]


def test_the_newest_and_since(opened: Open) -> None:
    store = opened()
    store.append([did(str(n), n) for n in range(8)] + [did("timeless", time_ms=TIMELESS_MS)])
    assert ids(store.history("u", limit=3)) == ["5", "6", "7"]
    assert ids(store.history("u", limit=9, since_ms=NOON_MS + 6)) == ["6", "7"]
    assert ids(store.history("u", limit=1, since_ms=NOON_MS + 6)) == ["7"]
    assert ids(store.history("u", limit=9)) == ["timeless", *"01234567"]
    after = store.history("u", limit=9, since_ms=NOON_MS + 60)
    assert after.events == () and after.revision > 0


def test_an_id_counts_once(opened: Open) -> None:
    store = opened()
    assert store.append([did("a"), did("a", 5), did("b")]) == [True, False, True]
    assert store.append([did("b", 9, action="order"), did("c")]) == [False, True]
    assert [e.time_ms - NOON_MS for e in store.history("u", limit=9).events] == [0, 0, 0]
    assert store.append([did("a", user="v"), says("a", 0, "item", "i", x=1)]) == [
        True,
        True,
    ]  # an id is its user's, or its item's
    assert store.append([says("a", 0, "user", "u", x=1), says("a", 1, "item", "i", x=2)]) == [
        False,
        False,
    ]
    assert store.append([]) == []


def test_the_cap_drops_the_oldest_and_knows_them_still(opened: Open) -> None:
    store = opened(cap=3)
    store.append([did(str(n), n) for n in range(5)])
    assert ids(store.history("u", limit=9)) == ["2", "3", "4"]
    assert store.append([did("0", 0), did("1", 1)]) == [False, False]
    assert store.append([did("late", 0)]) == [True]  # accepted, and the oldest at once
    assert store.append([did("middle", 3)]) == [True]
    assert ids(store.history("u", limit=9)) == ["3", "middle", "4"]
    assert store.append([did("late"), did("2")]) == [False, False]


def test_ids_are_remembered_within_bounds(opened: Open) -> None:
    store = opened(cap=2, duplicate_window=2, item_duplicate_window=1)
    for n in range(6):
        store.append([did(str(n), n)])
    assert store.append([did(n) for n in "5432"]) == [False] * 4  # two kept, two remembered
    assert store.append([did("0", 0)]) == [True]
    for n in range(3):
        store.append([says(f"p{n}", n, "item", "i", price=n)])
    assert store.append([says("p2", 9, "item", "i", price=9)]) == [False]
    assert store.append([says("p0", 0, "item", "i", price=9)]) == [True]
    assert store.items(["i"])["i"].values == {"price": 2}


@pytest.mark.parametrize("wanted", [False, True])
def test_impressions_enter_histories_where_they_are_the_history(opened: Open, wanted: bool) -> None:
    store = opened(impressions=wanted)
    assert store.append([did("a"), did("b", kind="impression")]) == [True, True]
    assert ids(store.history("u", limit=9)) == (["a", "b"] if wanted else ["a"])
    assert store.append([did("b", kind="impression"), did("b")]) == [False, False]


# -- revisions -------------------------------------------------------------------------------------


def test_every_write_moves_the_revision(opened: Open) -> None:
    store = opened(cap=2)
    seen = [store.history("u", limit=9).revision]
    for event in (did("a", 5), did("b", 6), did("late", 1), did("c", 7)):
        store.append([event])
        seen.append(store.history("u", limit=9).revision)
    assert seen[0] == 0 and sorted(set(seen)) == seen
    store.append([did("c"), did("x", user="v"), says("f", 0, "user", "u", age=3)])
    assert store.history("u", limit=9).revision == seen[-1]


def test_a_known_history_is_not_read_again(opened: Open) -> None:
    store = opened()
    store.append([did("a")])
    known = store.history("u", limit=9).revision
    assert store.history("u", limit=9, known_revision=known) == StoredHistory(known, ())
    store.append([did("b", 1)])
    moved = store.history("u", limit=9, known_revision=known)
    assert (ids(moved), moved.after, moved.total_events) == (
        ["b"],
        known,
        2,
    ) and moved.revision > known
    assert store.history("nobody", limit=9, known_revision=known) == StoredHistory()


def test_of_a_known_history_only_what_is_new_is_read(opened: Open) -> None:
    store = opened(cap=4)
    store.append([did("b", 2), did("d", 4)])
    known = store.history("u", limit=3).revision
    store.append([did("c", 3), did("e", 5)])
    store.append([did("a", 1), did("f", 6)])  # beyond the cap: a goes at once, then b
    moved = store.history("u", limit=4, known_revision=known)
    assert (ids(moved), moved.after, moved.total_events) == (["c", "e", "f"], known, 4)
    assert ids(store.history("u", limit=4)) == ["c", "d", "e", "f"], (
        "the newest four of b, d and what is new"
    )
    whole = store.history("u", limit=3, known_revision=known)
    assert (ids(whole), whole.after) == (["d", "e", "f"], 0), (
        "as many are new as are asked for: all are read"
    )
    store.append([did("g", 7), did("h", 8)])
    whole = store.history("u", limit=9, known_revision=known)
    assert (ids(whole), whole.after) == (["e", "f", "g", "h"], 0), (
        "nothing is left of what was known"
    )


def test_of_a_user_who_was_forgotten_and_came_back_all_is_read(opened: Open) -> None:
    store = opened(ttl_ms=150)
    store.append([did("later", 99), did("old")])
    known = store.history("u", limit=9).revision
    wait_for(lambda: store.history("u", limit=9) == StoredHistory())
    store.append([did("a", 1)])
    back = store.history("u", limit=9, known_revision=known)
    assert back.after == 0 and (ids(back) == ["a"] or back == StoredHistory())


def test_a_user_unheard_of_is_forgotten(opened: Open) -> None:
    store = opened(ttl_ms=150)
    old = did("old", time_ms=NOON_MS - 400 * 86_400_000)  # its own time does not count
    store.append([old, says("f", 0, "user", "u", age=3), says("p", 0, "item", "i", price=1)])
    before = store.history("u", limit=9).revision
    assert before == 0 or ids(store.history("u", limit=9)) in (["old"], [])
    wait_for(lambda: store.history("u", limit=9) == StoredHistory())
    assert store.user("u") == LiveFeatures() and store.arrivals("u") == ()
    assert store.history("u", limit=9, known_revision=before) == StoredHistory()
    assert store.items(["i"])["i"].values == {"price": 1}, "an item has a time of its own"
    assert store.append([old, did("new")]) == [True, True]  # its ids are forgotten too
    assert store.history("u", limit=9).revision > before


def test_an_item_without_new_features_expires(opened: Open) -> None:
    store = opened(item_ttl_ms=150)
    features = says("p", 0, "item", "i", price=1, colour="red")
    store.append([features, did("a", item="i")])
    wait_for(lambda: store.items(["i"]) == {})
    assert ids(store.history("u", limit=9)) == ["a"]
    assert store.append([says("q", 1, "item", "i", price=2)]) == [True]
    assert store.items(["i"]).get("i", LiveFeatures(values={"price": 2})).values == {"price": 2}, (
        "nothing of before comes back"
    )
    wait_for(lambda: store.append([features]) == [True])  # its ids are forgotten too


@pytest.mark.parametrize("kind", ["user", "item"])
def test_the_newest_event_keeps_all(opened: Open, kind: str) -> None:
    """Where it came in time; a machine that was busy for longer than the time to live shows
    nothing.
    """
    store, names = opened(ttl_ms=2_000, item_ttl_ms=2_000), iter(range(10**6))
    first = says("first", 0, kind, "x", age=1)
    store.append([first])
    began = last = time.monotonic()
    longest = 0.0
    while time.monotonic() < began + 3.0:
        store.append([says(f"e{next(names)}", 0, kind, "x", seen=True)])
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        time.sleep(0.05)
    features = store.user("x") if kind == "user" else store.items(["x"]).get("x", LiveFeatures())
    assert longest > 1.5 or features.values == {"age": 1, "seen": True}


@pytest.mark.parametrize("kind", ["user", "item"])
def test_a_duplicate_keeps_nobody(opened: Open, kind: str) -> None:
    store = opened(ttl_ms=400, item_ttl_ms=400)
    event = says("f", 0, kind, "x", age=1)
    assert store.append([event]) == [True]
    wait_for(
        lambda: store.append([event]) == [True]
    )  # sent all the time, and forgotten all the same


@pytest.mark.parametrize("kind", ["user", "item"])
def test_columns_are_bounded_and_those_of_the_oldest_events_go(opened: Open, kind: str) -> None:
    store = opened(max_columns=3)

    def now() -> dict[str, object]:
        return dict((store.user("x") if kind == "user" else store.items(["x"])["x"]).values)

    store.append([says("1", 10, kind, "x", b=1, a=1, é=1, z=1)])
    assert now() == {"b": 1, "z": 1, "é": 1}, "at equal times the first by name"
    store.append([says("2", 5, kind, "x", late=2)])
    assert now() == {"b": 1, "z": 1, "é": 1}
    store.append([says("3", 20, kind, "x", new=3, b=None)])
    assert now() == {"b": None, "new": 3, "é": 1}
    store.append([says(f"n{n}", 30 + n, kind, "x", **{f"c{n}": n}) for n in range(20)])
    assert now() == {"c17": 17, "c18": 18, "c19": 19}
    revision = store.append_with_revision(
        [says("wide", 99, kind, "x", **{f"w{n:04}": n for n in range(5_000)})]
    )[1]
    assert now() == {"w4997": 4997, "w4998": 4998, "w4999": 4999}
    assert (store.user("x") if kind == "user" else store.items(["x"])["x"]).revision == revision


def test_a_body_tells_the_revision_that_it_made(opened: Open) -> None:
    store = opened()
    accepted, first = store.append_with_revision(
        [did("a"), did("a"), says("f", 0, "user", "u", age=1)]
    )
    assert (
        accepted == [True, False, True]
        and first == store.history("u", limit=9).revision == store.user("u").revision
    )
    accepted, second = store.append_with_revision([did("b")])
    assert accepted == [True] and second > first and second == store.history("u", limit=9).revision
    assert store.append_with_revision([]) == ([], 0)


def test_the_log_as_it_arrived(opened: Open) -> None:
    store = opened()
    revisions = []
    for body in (
        [did("c", 30), did("a", 10)],
        [did("b", 20)],
        [did("v", user="v")],
        [did("late", 1)],
    ):
        store.append(body)
        revisions.append(store.history("u", limit=9).revision)
    assert [e.id for e in store.arrivals("u")] == ["c", "a", "b", "late"]
    assert [[e.id for e in store.arrivals("u", until=r)] for r in (0, *revisions)] == [
        [],
        ["c", "a"],
        ["c", "a", "b"],
        ["c", "a", "b"],
        ["c", "a", "b", "late"],
    ]


# -- features --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["user", "item"])
def test_of_every_column_the_newest_value(opened: Open, kind: str) -> None:
    store = opened()

    def now() -> LiveFeatures:
        return (
            store.user("x") if kind == "user" else store.items(["x", "y"]).get("x", LiveFeatures())
        )

    assert now() == LiveFeatures()
    store.append([says("1", 10, kind, "x", price=1.25, name="a", gone=3)])
    first = now()
    assert (
        first.values == {"price": 1.25, "name": "a", "gone": 3} and first.since_ms == NOON_MS + 10
    )
    store.append(
        [says("2", 5, kind, "x", price=9.0, colour=["red"]), says("3", 20, kind, "x", gone=None)]
    )
    assert now().values == {"price": 1.25, "name": "a", "gone": None, "colour": ["red"]}
    assert now().since_ms == NOON_MS + 20 and now().revision > first.revision
    store.append([says("4", 10, kind, "x", name="b")])
    assert now().values["name"] == "b"  # at equal times the later arrival
    before = now()
    store.append([says("4", 99, kind, "x", name="c"), did("click", user="x")])
    assert now() == before
    assert store.history("x", limit=9).revision > 0 or kind == "item"


def test_features_of_many_items(opened: Open) -> None:
    store = opened()
    store.append([says(f"e{n}", 0, "item", f"i{n}", n=n) for n in range(0, 1200, 2)])
    features = store.items([f"i{n}" for n in range(1200)])
    assert {name: f.values["n"] for name, f in features.items()} == {
        f"i{n}": n for n in range(0, 1200, 2)
    }
    assert store.items([]) == {}


# -- threads, ends, misuse -------------------------------------------------------------------------


def test_many_threads(opened: Open) -> None:
    store = opened()
    accepted: list[bool] = []

    def write(thread: int) -> None:
        for n in range(10):
            accepted.extend(store.append([did(f"{thread}-{n}", n), did(f"shared-{n}", n)]))
            seen = store.history("u", limit=1000)
            assert f"{thread}-{n}" in ids(seen)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(accepted) == 50 and len(accepted) == 80
    assert len(set(ids(store.history("u", limit=1000)))) == 50


def test_a_closed_store_says_so(opened: Open) -> None:
    store = opened()
    store.ping()
    store.close()
    store.close()
    for call in (
        store.ping,
        lambda: store.append([did("a")]),
        lambda: store.history("u", limit=1),
        lambda: store.items(["i"]),
    ):
        with raises(StoreError, code="store_closed"):
            call()


def test_an_event_of_nobody_is_our_own_mistake(opened: Open) -> None:
    store = opened()
    with pytest.raises(ValueError) as caught:
        store.append([did("b"), did("a", user=None)])  # type: ignore[arg-type]
    assert "'a'" in str(caught.value)
    assert store.history("u", limit=9) == StoredHistory()  # none of them


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cap", 0),
        ("ttl_ms", 0),
        ("item_ttl_ms", 0),
        ("max_columns", 0),
        ("duplicate_window", -1),
        ("timeout_s", 0),
        ("append_timeout_s", 0),
    ],
)
def test_limits_out_of_range(name: str, value: int) -> None:
    with raises(SettingsError, field=name):
        StoreLimits(**{name: value})  # type: ignore[arg-type]
