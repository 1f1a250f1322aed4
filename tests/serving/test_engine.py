"""What a ranking sees, when a user's state is made anew, and what becomes of values, stores and
requests that are not as usual.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.spec import TIMELESS_MS
from hemix.errors import RequestError, SettingsError, StoreError
from hemix.runs import Run
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.http.rank import encode_ranking
from hemix.serving.ranking_log import RankingLog
from hemix.serving.ranking_log.replay import replay
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import (
    Candidate,
    Event,
    HistoryOverride,
    LiveFeatures,
    Ranking,
    RankRequest,
    StoredHistory,
)
from tests.planted import DAY_MS, START_MS
from tests.refusals import raises

NOW = START_MS + 4 * DAY_MS + 9 * 3_600_000
ITEMS = tuple(Candidate(f"i{n}") for n in range(20))
CONTEXT = {"lat": 31.05, "lon": 121.05}


def event(number: int, item: str, time_ms: int, user: str = "u1", **changes: Any) -> Event:
    return Event(
        **{
            **dict(
                id=f"e{number}",
                kind="interaction",
                time_ms=time_ms,
                user=user,
                item=item,
                action="view",
            ),
            **changes,
        }
    )


def request(
    time_ms: int = NOW, user: str = "u1", items: Sequence[Candidate] = ITEMS, **changes: Any
) -> RankRequest:
    return RankRequest(
        **{
            **dict(id="r", user=user, time_ms=time_ms, items=tuple(items), context=CONTEXT),
            **changes,
        }
    )


def scores(ranking: Ranking) -> dict[str, float]:
    return {item.id: item.score for item in ranking.items}


@pytest.fixture(scope="module")
def run(planted_run: Path) -> Run:
    return Run.load(planted_run)


@pytest.fixture
def store() -> Iterator[Store]:
    store = open_store("memory://", StoreLimits(ttl_ms=None))
    yield store
    store.close()


@pytest.fixture
def engine(run: Run, store: Store) -> Iterator[Engine]:
    engine = Engine(run, store, ServeConfig(store_timeout=5), name="feed", version="7")
    yield engine
    engine.close()


def fresh(run: Run, store: Store, ranked: RankRequest) -> Ranking:
    """What an engine that has kept nothing says."""
    engine = Engine(run, store, ServeConfig(cache_mib=0, store_timeout=5))
    try:
        return engine.rank([ranked])[0]
    finally:
        engine.close()


def same(a: Ranking, b: Ranking, rel_tol: float = 1e-9) -> bool:
    ours, theirs = scores(a), scores(b)
    pairs = [(ours[i], theirs.get(i, math.inf)) for i in ours]
    close = all(
        math.isclose(x, y, rel_tol=rel_tol, abs_tol=1e-6) or (math.isnan(x) and math.isnan(y))
        for x, y in pairs
    )
    return ours.keys() == theirs.keys() and close and a.history_ranges == b.history_ranges


# -- what is seen ----------------------------------------------------------------------------------


def test_either_side_of_midnight_without_a_new_event(
    engine: Engine, run: Run, store: Store
) -> None:
    midnight = START_MS + 5 * DAY_MS
    store.append([event(n, f"i{n}", midnight - 60_000 * (n + 1)) for n in range(4)])
    before, after = (engine.rank([request(midnight + shift)])[0] for shift in (-1, 1))
    assert (before.history_ranges, after.history_ranges) == ((0, 0, 4), (0, 4, 4)), (
        "today's events are yesterday's a moment later"
    )
    assert before.cache == "miss" and after.cache == "hit"
    assert not same(before, after)
    assert same(after, fresh(run, store, request(midnight + 1)))


def test_an_event_is_in_the_next_ranking_and_in_its_because(engine: Engine, store: Store) -> None:
    store.append([event(1, "i3", NOW - 3_600_000)])
    first = engine.rank([request(explain=True)])[0]
    assert {because.item for item in first.items for because in item.attributions} == {"i3"}
    store.append([event(2, "never-seen", NOW - 1_000, action="never-seen-either")])
    second = engine.rank([request(explain=True)])[0]
    assert second.cache == "extended" and second.history_revision > first.history_revision
    assert second.history_ranges == (0, 0, 2) and second.newest_event_ms == NOW - 1_000
    for item in second.items:
        by_item = {because.item: because for because in item.attributions}
        assert by_item.keys() == {"i3", "never-seen"}
        assert (
            by_item["never-seen"].age_seconds == 1
            and by_item["never-seen"].action == "never-seen-either"
        )
        assert 0 < sum(because.weight for because in item.attributions) < 1, (
            "the null event has the rest"
        )
    third = engine.rank([request(explain=True)])[0]
    assert third.cache == "hit" and repr(third.items) == repr(second.items)
    assert all(item.attributions == () for item in engine.rank([request()])[0].items)


def test_the_newest_event_is_in_because_among_many(engine: Engine, store: Store) -> None:
    store.append([event(n, f"i{n % 15}", NOW - 3_600_000 + n) for n in range(60)])
    store.append([event(99, "just-now", NOW - 1)])
    for item in engine.rank([request(explain=True)])[0].items:
        weights = [because.weight for because in item.attributions]
        assert "just-now" in [because.item for because in item.attributions]
        assert len(weights) in (5, 6) and weights == sorted(weights, reverse=True)


def test_a_request_too_far_in_the_past_says_so(engine: Engine, run: Run, store: Store) -> None:
    most = run.schema.history.global_length + run.schema.history.realtime_length
    store.append([event(n, f"i{n % 15}", NOW - 10 * DAY_MS + n) for n in range(most)])
    store.append([event(most + n, f"i{n % 15}", NOW - DAY_MS + n) for n in range(128)])
    past = NOW - 2 * DAY_MS
    assert engine.rank([request(past)])[0].degraded == (), (
        "as many lie after it as are read beyond what it sees"
    )
    store.append([event(10_000, "i1", NOW - DAY_MS + 500)])
    assert engine.rank([request(past)])[0].degraded == ("early_history",)
    assert engine.rank([request()])[0].degraded == ()


def test_many_that_ask_at_once_find_a_healthy_store(run: Run, store: Store) -> None:
    class Slow:
        """Ten milliseconds a reading."""

        def __getattr__(self, name: str) -> Any:
            if name == "history":
                time.sleep(0.01)
            return getattr(store, name)

    config = ServeConfig(store_timeout=5, workers=2)
    engine = Engine(run, Slow(), config, dynamic_batching=True)  # type: ignore[arg-type]
    with ThreadPoolExecutor(40) as many:
        rankings = list(many.map(lambda n: engine.rank([request(user=f"u{n % 7}")])[0], range(80)))
    assert {ranking.degraded for ranking in rankings} == {()}
    engine.close()


def test_a_late_event_and_one_from_the_future(engine: Engine, run: Run, store: Store) -> None:
    store.append([event(n, f"i{n}", NOW - DAY_MS + n) for n in range(3)])
    engine.rank([request()])
    store.append(
        [
            event(10, "i9", NOW - 3 * DAY_MS),
            event(11, "i8", NOW),
            event(12, "i7", NOW + 1),
            event(13, "i6", TIMELESS_MS),
        ]
    )
    late = engine.rank([request()])[0]
    assert late.cache == "extended" and late.history_ranges == (0, 5, 5), (
        "the late one and the timeless one are seen, those at and after the request are not"
    )
    assert same(late, fresh(run, store, request()))
    later = engine.rank([request(NOW + 2)])[0]
    assert later.cache == "hit" and later.history_ranges == (0, 5, 7)


@pytest.mark.parametrize("cap", [6, 300])
def test_a_state_that_is_extended_is_the_one_made_anew(run: Run, cap: int) -> None:
    """Events in and out of order, of items and users of which something is said in between; with a
    cap, the oldest go.
    """
    random, store = Random(cap), open_store("memory://", StoreLimits(ttl_ms=None, cap=cap))
    engine, seen = Engine(run, store, ServeConfig(store_timeout=5)), Counter[str]()
    for step in range(60):
        at = NOW - random.choice((DAY_MS, 60_000, 1_000)) + random.randrange(1_000)
        what = random.choice(("event", "event", "event", "timeless", "item", "user", "nothing"))
        if what in ("event", "timeless"):
            at = TIMELESS_MS if what == "timeless" else at
            store.append(
                [
                    event(1_000 * step + n, f"i{random.randrange(25)}", at + n)
                    for n in range(random.randrange(1, 4))
                ]
            )
        elif what == "item":
            name, category = f"i{random.randrange(25)}", f"c{random.randrange(4)}"
            store.append(
                [
                    Event(
                        id=f"p{step}",
                        kind="item",
                        time_ms=at,
                        item=name,
                        fields={"category": category},
                    )
                ]
            )
        elif what == "user":
            store.append(
                [
                    Event(
                        id=f"u{step}",
                        kind="user",
                        time_ms=at,
                        user="u1",
                        fields={"age": random.randrange(90)},
                    )
                ]
            )
        ranking = engine.rank([request()])[0]
        # scores of about 2: a matrix product of few rows rounds otherwise than one of many
        assert same(ranking, fresh(run, store, request()), rel_tol=2e-6), (
            step,
            what,
            ranking.cache,
        )
        assert ranking.history_revision == store.history("u1", limit=1).revision
        seen[ranking.cache] += 1
    assert min(seen[cache] for cache in ("hit", "extended", "miss")) >= 5, seen
    engine.close()
    store.close()


def test_features_of_an_item_and_of_a_user_arrive_as_events(
    engine: Engine, run: Run, store: Store
) -> None:
    store.append([event(1, "i3", NOW - 60_000)])
    before = engine.rank([request()])[0]
    store.append([Event(id="p", kind="item", time_ms=NOW - 10, item="i5", fields={"price": 1000})])
    dearer = engine.rank([request()])[0]
    changed = {
        i
        for i, score in scores(dearer).items()
        if not math.isclose(score, scores(before)[i], abs_tol=1e-7)
    }
    assert changed - {"i7"} == {"i5"} and dearer.cache == "hit", (
        "no event carries a price: the user's state holds"
    )
    store.append(
        [Event(id="c", kind="item", time_ms=NOW - 9, item="i3", fields={"category": "c2"})]
    )
    moved = engine.rank([request()])[0]
    assert moved.cache == "miss" and same(moved, fresh(run, store, request()))
    assert any(abs(scores(moved)[i] - scores(dearer)[i]) > 1e-7 for i in ("i1", "i2")), (
        "the event of i3 is another now"
    )
    store.append([Event(id="u", kind="user", time_ms=NOW - 8, user="u1", fields={"age": 69.0})])
    aged = engine.rank([request()])[0]
    assert (
        aged.cache == "miss" and same(aged, fresh(run, store, request())) and not same(aged, moved)
    )
    assert engine.rank([request()])[0].cache == "hit"


def test_unknown_users_and_items_are_ranked_by_their_features(engine: Engine, store: Store) -> None:
    items = (
        Candidate("new"),
        Candidate("i1"),
        Candidate("from_event"),
        Candidate("from_request", {"category": "c1", "price": 3}),
    )
    store.append(
        [
            Event(
                id="t",
                kind="item",
                time_ms=NOW - 5,
                item="from_event",
                fields={"category": "c1", "price": 3},
            )
        ]
    )
    ranking = engine.rank([request(user="nobody", items=items)])[0]
    assert not ranking.user_known
    assert {item.id: item.status for item in ranking.items} == {
        "new": "UNKNOWN_ITEM",
        "i1": "OK",
        "from_event": "OK",
        "from_request": "UNKNOWN_ITEM",
    }
    by_item = scores(ranking)
    assert math.isnan(by_item["new"]) and ranking.items[-1].id == "new", (
        "without a price there is no score: last"
    )
    assert all(0 < value < 1 for item in ranking.items for value in item.outputs.values())
    assert by_item["from_event"] == pytest.approx(by_item["from_request"], abs=1e-7), (
        "an event and the request give the same features"
    )
    store.append([Event(id="u", kind="user", time_ms=NOW - 5, user="nobody", fields={"age": 30})])
    assert engine.rank([request(user="nobody", items=items)])[0].user_known


def test_the_request_goes_before_events_and_events_before_the_table(
    engine: Engine, store: Store
) -> None:
    table = scores(engine.rank([request(items=[Candidate("i4")])])[0])["i4"]
    store.append([Event(id="p", kind="item", time_ms=NOW - 5, item="i4", fields={"price": 40})])
    from_event = scores(engine.rank([request(items=[Candidate("i4")])])[0])["i4"]
    from_request = scores(engine.rank([request(items=[Candidate("i4", {"price": 4})])])[0])["i4"]
    assert from_event > table and from_request == pytest.approx(table, abs=1e-7), (
        "the table's price of i4 is 4"
    )
    missing = scores(engine.rank([request(items=[Candidate("i4", {"price": None})])])[0])["i4"]
    assert math.isnan(missing)


@pytest.mark.parametrize(
    ("expression", "first"),
    [("click / price", "i1"), ("log(price) + click", "i19"), ("-click^-1 / price", "i19")],
)
def test_items_without_a_score_go_last_and_say_so(
    run: Run, store: Store, tmp_path: Path, expression: str, first: str
) -> None:
    """Price 0 gives an infinite value either way, and i7 has no price; a stranger's status says
    more.
    """
    free = dataclasses.replace(run, schema=run.schema.model_copy(update={"score": expression}))
    log = RankingLog(tmp_path / "served", free.schema)
    engine = Engine(free, store, ServeConfig(store_timeout=5), name="feed", version="1", log=log)
    mixed = request(
        items=[Candidate("i0"), Candidate("i7"), Candidate("new"), *ITEMS[1:7], Candidate("i19")]
    )
    ranking = engine.rank([mixed])[0]
    assert ranking.items[0].id == first
    assert [(i.id, i.status) for i in ranking.items[-3:]] == [
        ("i0", "NO_SCORE"),
        ("i7", "NO_SCORE"),
        ("new", "UNKNOWN_ITEM"),
    ]
    assert {item.status for item in ranking.items[:-3]} == {"OK"} and all(
        math.isfinite(item.score) for item in ranking.items[:-3]
    )
    answered = json.loads(encode_ranking(ranking, explain=False))["items"]
    assert [item["score"] is None for item in answered] == [False] * 7 + [True] * 3
    log.close()
    logged = pq.read_table(log.folder / "rankings")
    assert logged["served_score"].null_count == 3
    assert set(logged["served_status"].to_pylist()) == {"OK", "NO_SCORE", "UNKNOWN_ITEM"}
    [again] = replay(log.folder, engine)
    assert again.difference < 1e-6
    engine.close()


def test_scores_of_older_logs_that_are_not_finite_are_none(
    run: Run, store: Store, tmp_path: Path
) -> None:
    log = RankingLog(tmp_path / "served", run.schema)
    engine = Engine(run, store, ServeConfig(store_timeout=5), name="feed", version="1", log=log)
    engine.rank([request(items=[Candidate("i1"), Candidate("i7")])])
    log.close()
    [path] = (log.folder / "rankings").glob("*.parquet")
    table = pq.read_table(path)
    for missing in (math.nan, math.inf, -math.inf):
        values = [
            missing if score is None else score for score in table["served_score"].to_pylist()
        ]
        pq.write_table(
            table.set_column(
                table.column_names.index("served_score"), "served_score", pa.array(values)
            ),
            path,
        )
        [again] = replay(log.folder, engine)
        assert again.difference < 1e-6
    engine.close()


# -- order -----------------------------------------------------------------------------------------


def test_equal_scores_stay_in_the_order_of_the_request(engine: Engine) -> None:
    ranking = engine.rank(
        [request(items=[Candidate("x2"), Candidate("x1"), Candidate("x2"), Candidate("i5")])]
    )[0]
    assert [item.id for item in ranking.items] == ["i5", "x2", "x1", "x2"]
    assert (ranking.model, ranking.version, ranking.id) == ("feed", "7", "r")


@pytest.mark.parametrize("slots", [None, 1, 2])
def test_many_threads_get_their_own_answers(run: Run, store: Store, slots: int | None) -> None:
    engine = Engine(
        run, store, ServeConfig(store_timeout=5, workers=slots), dynamic_batching=slots is not None
    )
    store.append(
        [event(n, f"i{n % 30}", NOW - 60_000 * n, user=f"u{n % 12}") for n in range(1, 100)]
    )
    requests = [
        request(user=f"u{n % 12}", id=f"r{n}", items=ITEMS[n % 5 : n % 5 + 7], explain=n % 10 == 0)
        for n in range(60)
    ]
    expected = {one.id: engine.rank([one])[0] for one in requests}
    assert all(same(expected[one.id], fresh(run, store, one)) for one in requests[::7])
    with ThreadPoolExecutor(8) as pool:
        for one, ranking in zip(
            requests, pool.map(lambda one: engine.rank([one])[0], requests), strict=True
        ):
            assert ranking.id == one.id and same(ranking, expected[one.id])
            assert all(bool(item.attributions) == one.explain for item in ranking.items)
    engine.close()


def test_some_of_several_are_explained(engine: Engine, store: Store) -> None:
    store.append([event(n, f"i{n}", NOW - n * 1000, user=f"u{n % 3}") for n in range(1, 10)])
    requests = [request(user=f"u{n}", id=f"r{n}", explain=n == 1) for n in range(3)]
    together = engine.rank(requests)
    alone = engine.rank([requests[1]])[0]
    assert [any(item.attributions for item in ranking.items) for ranking in together] == [
        False,
        True,
        False,
    ]
    for a, b in zip(together[1].items, alone.items, strict=True):
        assert [one.item for one in a.attributions] == [one.item for one in b.attributions]
        assert [one.weight for one in a.attributions] == pytest.approx(
            [one.weight for one in b.attributions], abs=1e-6
        )
    assert engine.rank([]) == []


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"context": {"lat": "north", "lon": 1.0}}, "context.lat", "expected degrees"),
        (
            {"context": {"lat": 91, "lon": 1.0}},
            "context.lat",
            "expected degrees from -90 to 90, found 91",
        ),
        (
            {"items": (Candidate("i1"), Candidate("i2", {"price": "dear"}))},
            "items[1].fields.price",
            "expected a finite number",
        ),
        (
            {"items": (Candidate("i1", {"price": math.inf}),)},
            "items[0].fields.price",
            "expected a finite number up to 1e+30, found inf",
        ),
        (
            {"items": (Candidate("i1", {"price": 10**400}),)},
            "items[0].fields.price",
            "expected a finite number",
        ),
        (
            {"items": (Candidate("i1", {"price": 1.1e30}),)},
            "items[0].fields.price",
            "finite number up to 1e+30, found 1.1e+30",
        ),
        ({"items": (Candidate("i1", {"tags": "t1"}),)}, "items[0].fields.tags", "expected a list"),
        (
            {"history": HistoryOverride(realtime=(event(1, "i1", NOW),))},
            "history.realtime[0].timestamp",
            f"expected a time before the request's {NOW}, found {NOW}",
        ),
        (
            {
                "history": HistoryOverride(
                    global_=(event(1, "i1", NOW - 1), event(2, "i1", NOW - 2))
                )
            },
            "history.global[1].timestamp",
            "expected events by time",
        ),
        (
            {
                "history": HistoryOverride(
                    global_=(event(1, "i1", NOW - 1),), realtime=(event(2, "i1", NOW - 2),)
                )
            },
            "history.realtime[0].timestamp",
            "expected events by time",
        ),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name(
    engine: Engine, changes: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(RequestError) as refused:
        engine.rank([request(**changes)])
    assert (
        refused.value.field == field
        and problem in str(refused.value)
        and "\n" not in str(refused.value)
    )


def test_what_was_stored_and_cannot_be_used_counts_as_missing(engine: Engine, store: Store) -> None:
    """The store may hold what another schema took."""
    store.append(
        [
            Event(
                id="p",
                kind="item",
                time_ms=NOW - 5,
                item="i4",
                fields={"price": "dear", "tags": 3, "lat": 1e9},
            ),
            Event(id="u", kind="user", time_ms=NOW - 5, user="u1", fields={"age": [1]}),
            event(1, "i1", NOW - 5, fields={"hour": "noon"}),
        ]
    )
    ranking = engine.rank([request(items=[Candidate("i4"), Candidate("i5")])])[0]
    assert (
        ranking.degraded == () and math.isnan(scores(ranking)["i4"]) and scores(ranking)["i5"] > 0
    )


@pytest.mark.parametrize("price", [1e30, -1e30, 12_345_678.9])
def test_accepted_numbers_give_finite_outputs(engine: Engine, store: Store, price: float) -> None:
    store.append(
        [
            Event(id="p", kind="item", time_ms=NOW - 5, item="i4", fields={"price": price}),
            Event(id="u", kind="user", time_ms=NOW - 5, user="u1", fields={"age": price}),
            event(1, "i4", NOW - 4),
        ]
    )
    ranking = engine.rank(
        [request(items=[Candidate("i4"), Candidate("i5", {"price": price}), Candidate("i6")])]
    )[0]
    assert all(0 <= value <= 1 for item in ranking.items for value in item.outputs.values())
    assert all(math.isfinite(item.score) for item in ranking.items)


def test_a_model_that_gives_no_number_is_not_served(planted_run: Path, store: Store) -> None:
    engine = Engine(planted_run, store, ServeConfig(store_timeout=5))
    for parameter in engine.run.model.parameters():
        parameter.data.fill_(math.nan)
    with raises(RequestError, "click", field="items[0]"):
        engine.warm_up()
    engine.close()


@pytest.mark.parametrize("slots", [None, 1, 2])
def test_a_closed_engine_gives_its_model_back_at_once(
    planted_run: Path, store: Store, slots: int | None
) -> None:
    """A server's collector is frozen, so nothing may need it."""
    gc.collect()
    gc.disable()
    try:
        engine = Engine(
            planted_run,
            store,
            ServeConfig(store_timeout=5, workers=slots),
            dynamic_batching=slots is not None,
        )
        engine.warm_up()
        gc.freeze()
        engine.rank([request(items=ITEMS * 20)])
        model, itself = weakref.ref(engine.run.model), weakref.ref(engine)
        engine.close()
        assert model() is None
        engine.close()
        del engine
        assert itself() is None
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_device_that_is_not_there(run: Run, store: Store) -> None:
    for name in ("abacus", "cuda:99"):
        with raises(SettingsError, name, field="device"):
            Engine(run, store, ServeConfig(device=name))


# -- a store that fails ----------------------------------------------------------------------------


class Failing:
    """A store in front of another one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.mode = "well"
        self.reads = 0
        self.release = threading.Event()

    def _fail(self) -> None:
        self.reads += 1
        if self.mode == "down":
            raise StoreError("store: cannot be reached")
        if self.mode == "slow":
            self.release.wait(20)

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known_revision: int = 0
    ) -> StoredHistory:
        self._fail()
        return self._store.history(
            user, limit=limit, since_ms=since_ms, known_revision=known_revision
        )

    def user(self, user: str) -> LiveFeatures:
        self._fail()
        return self._store.user(user)

    def items(self, ids: Sequence[str]) -> dict[str, LiveFeatures]:
        return self._store.items(ids)


@pytest.mark.parametrize("mode", ["down", "slow"])
def test_a_store_that_is_down_or_slow(run: Run, store: Store, mode: str) -> None:
    store.append([event(n, f"i{n}", NOW - n) for n in range(1, 5)])
    failing = Failing(store)
    engine = Engine(run, failing, ServeConfig(store_timeout=0.1))  # type: ignore[arg-type]
    well = engine.rank([request()])[0]
    failing.mode = mode
    began = time.monotonic()
    lost = [engine.rank([request()])[0] for _ in range(20)]
    assert time.monotonic() - began < 5, "twenty rankings do not wait twenty times"
    assert all(
        ranking.degraded == ("history", "features") and ranking.history_ranges == (0, 0, 0)
        for ranking in lost
    )
    assert all(len(ranking.items) == len(ITEMS) and ranking.cache == "miss" for ranking in lost)
    assert (
        1 <= failing.reads <= 8
    )  # a busy machine takes longer than the rest that a lost store is given

    own = HistoryOverride(realtime=(event(1, "i1", NOW - 1),))
    assert engine.rank([request(history=own)])[0].degraded == ("features",)
    failing.mode = "well"
    failing.release.set()
    until = time.monotonic() + 20
    while (again := engine.rank([request()])[0]).degraded and time.monotonic() < until:
        time.sleep(0.05)
    assert same(again, well) and again.history_ranges == (0, 0, 4), "it recovers by itself"
    engine.close()


def test_a_made_up_ranking_asks_no_store(run: Run, store: Store) -> None:
    failing = Failing(store)
    engine = Engine(run, failing)  # type: ignore[arg-type]
    engine.warm_up()
    assert failing.reads == 0 and len(engine.cache) == 0
    engine.close()


# -- the cache -------------------------------------------------------------------------------------


def test_the_least_recently_used_go_first(run: Run, store: Store) -> None:
    store.append([event(n, f"i{n % 30}", NOW - n, user=f"u{n % 6}") for n in range(1, 300)])
    roomy = Engine(run, store, ServeConfig(store_timeout=5))
    for n in range(6):
        roomy.rank([request(user=f"u{n}")])
    each = roomy.cache.bytes / 6
    cached = [roomy.cache.get(f"u{n}") for n in range(6)]
    assert all(one is not None for one in cached) and roomy.cache.bytes == sum(
        one.bytes() for one in cached if one is not None
    )
    state = cached[0].state  # type: ignore[union-attr]
    of_events = (1 + 49) * (
        8 + 3 * 32 * 4
    )  # times, vectors, keys and values of u0's 49 events and the null event
    assert each > of_events and state.global_keys_values.shape == (50, 64)

    tight = Engine(run, store, ServeConfig(cache_mib=3.5 * each / 2**20, store_timeout=5))
    for user in ("u0", "u1", "u2", "u0", "u3"):
        tight.rank([request(user=user)])
    assert [tight.rank([request(user=user)])[0].cache == "hit" for user in ("u0", "u3", "u1")] == [
        True,
        True,
        False,
    ]
    assert len(tight.cache) == 3 and tight.cache.bytes <= tight.cache.budget
    for engine in (roomy, tight):
        engine.close()


def test_bf16_is_near(run: Run, store: Store) -> None:
    store.append([event(n, f"i{n}", NOW - n) for n in range(1, 5)])
    exact, near = (
        Engine(run, store, ServeConfig(precision=p, store_timeout=5)) for p in ("fp32", "bf16")
    )  # type: ignore[arg-type]
    ours, theirs = (
        {item.id: item.outputs["click"] for item in engine.rank([request()])[0].items}
        for engine in (exact, near)
    )
    assert ours != theirs and all(abs(ours[i] - theirs[i]) < 0.03 for i in ours)
    for engine in (exact, near):
        engine.close()


def test_a_ranking_reports_its_stages_and_outputs(engine: Engine, store: Store) -> None:
    store.append([event(1, "i1", NOW - 1)])
    ranking = dataclasses.asdict(engine.rank([request()])[0])
    assert (
        set(ranking["stages_ms"]) == {"store", "user", "encode", "wait", "score"}
        and ranking["took_ms"] > 0
    )
    assert set(ranking["items"][0]["outputs"]) == {"click", "order", "order_given_click"}
