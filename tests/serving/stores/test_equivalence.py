"""SQLite and Redis against the memory store, over random bodies of events: whatever is asked, the
same answers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hemix.data.spec import TIMELESS_MS
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import Event, LiveFeatures, StoredHistory
from tests.serving.redis_server import RedisServer
from tests.serving.stores.conftest import empty
from tests.serving.stores.events import NOON_MS

LIMITS = StoreLimits(cap=4, impressions=True, max_columns=4)
NAMES = st.sampled_from(["u", "v"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.lists(st.text(max_size=2), max_size=2),
)
TIMES = st.one_of(st.integers(0, 6).map(lambda n: NOON_MS + n), st.just(TIMELESS_MS))


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind: Any = draw(st.sampled_from(["interaction", "interaction", "impression", "user", "item"]))
    name = draw(NAMES)
    return Event(
        id=draw(st.sampled_from("abcdefghij")),
        kind=kind,
        time_ms=draw(TIMES),
        user=None if kind == "item" else name,
        item=name if kind == "item" else None if kind == "user" else draw(NAMES),
        action=draw(st.sampled_from([None, "click"])),
        fields=draw(st.dictionaries(st.sampled_from("uvwxyz"), VALUES, max_size=3)),
    )


def continued(before: StoredHistory, moved: StoredHistory, limit: int) -> tuple[Event, ...]:
    """What was read before, with what a store says has come since."""
    if not moved.after:
        return before.events if moved.revision == before.revision else moved.events
    both = sorted(
        (*before.events, *moved.events), key=lambda event: event.time_ms
    )  # at equal times the new ones follow
    return tuple(both[-min(limit, moved.total_events) :])


class Same(RuleBasedStateMachine):
    """``other`` is set by the test."""

    other: Store
    model: Store
    revisions: dict[str, tuple[int, int]]
    read_before: dict[tuple[int, str, int], StoredHistory]

    @initialize()
    def begin(self) -> None:
        self.model, self.other = open_store("memory://", LIMITS), self.open_other()
        self.revisions, self.read_before = {}, {}

    def open_other(self) -> Store:
        raise NotImplementedError

    @rule(body=st.lists(events(), max_size=5))
    def append(self, body: list[Event]) -> None:
        assert self.other.append(body) == self.model.append(body)

    @rule(user=NAMES, limit=st.integers(0, 5), since=st.one_of(st.none(), TIMES))
    def read(self, user: str, limit: int, since: int | None) -> None:
        model, other = (
            store.history(user, limit=limit, since_ms=since) for store in (self.model, self.other)
        )
        assert other.events == model.events
        for store, now in ((self.model, model), (self.other, other)):
            assert store.history(user, limit=limit, known_revision=now.revision) == StoredHistory(
                now.revision
            )
            whole = store.history(user, limit=limit)
            before = self.read_before.get((id(store), user, limit), StoredHistory())
            assert (
                continued(
                    before, store.history(user, limit=limit, known_revision=before.revision), limit
                )
                == whole.events
            )
            self.read_before[id(store), user, limit] = whole

    @invariant()
    def the_same(self) -> None:
        for user in ("u", "v"):
            assert self.other.arrivals(user) == self.model.arrivals(user)
            model, other = self.model.history(user, limit=9), self.other.history(user, limit=9)
            assert other.events == model.events
            before = self.revisions.get(user, (0, 0))
            assert (other.revision != before[0]) == (
                model.revision != before[1]
            )  # they move together, upwards
            assert other.revision >= before[0] and (other.revision == 0) == (model.revision == 0)
            self.revisions[user] = (other.revision, model.revision)
            self.same_features(self.other.user(user), self.model.user(user))
        ours, theirs = self.model.items(["u", "v", "w"]), self.other.items(["u", "v", "w"])
        assert set(ours) == set(theirs)
        for name in ours:
            self.same_features(theirs[name], ours[name])

    @staticmethod
    def same_features(other: LiveFeatures, model: LiveFeatures) -> None:
        assert (other.values, other.since_ms, other.revision == 0) == (
            model.values,
            model.since_ms,
            model.revision == 0,
        )

    def teardown(self) -> None:
        self.other.close()


def walk(machine: type[Same], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def sqlite_walk(folder: Path, examples: int) -> None:
    class SQLite(Same):
        def open_other(self) -> Store:
            return open_store(f"sqlite:///{tempfile.mkdtemp(dir=folder)}/store.db", LIMITS)

    walk(SQLite, examples)


def redis_walk(server: RedisServer, examples: int) -> None:
    class Redis(Same):
        def open_other(self) -> Store:
            empty(server)
            return open_store(server.url, LIMITS)

    walk(Redis, examples)


def test_sqlite_is_as_memory(tmp_path: Path) -> None:
    sqlite_walk(tmp_path, 15)


def test_redis_is_as_memory(redis_server: RedisServer) -> None:
    redis_walk(redis_server, 15)


@pytest.mark.slow
def test_sqlite_is_as_memory_at_length(tmp_path: Path) -> None:
    sqlite_walk(tmp_path, 400)


@pytest.mark.slow
def test_redis_is_as_memory_at_length(redis_server: RedisServer) -> None:
    redis_walk(redis_server, 400)
