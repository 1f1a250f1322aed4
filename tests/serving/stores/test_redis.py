"""A redis-server that is down, slow, full or emptied, under a store that is open."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from hemix.errors import StoreError
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import StoredHistory
from tests.refusals import raises
from tests.serving.redis_server import RedisServer
from tests.serving.stores.events import did, ids

LIMITS = StoreLimits(timeout_s=0.3, append_timeout_s=0.4)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One's own, not started."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


def test_down_at_the_start_down_later_and_back(server: RedisServer) -> None:
    store = open_store(server.url, LIMITS)
    with raises(StoreError, f"redis://127.0.0.1:{server.port}/0"):
        store.ping()
    server.start()
    store.ping()
    store.append([did("a")])
    server.kill()
    for call in (store.ping, lambda: store.append([did("b")]), lambda: store.history("u", limit=9)):
        began = time.monotonic()
        with raises(StoreError, server.port):
            call()
        assert time.monotonic() - began < 5
    server.start()
    assert ids(store.history("u", limit=9)) == ["a"]
    assert store.append([did("a"), did("b", 1)]) == [False, True]
    store.close()


def test_another_layout_of_keys_is_refused_and_left_alone(server: RedisServer) -> None:
    server.start()
    first = open_store(server.url, LIMITS)
    first.ping()
    first.append([did("a")])
    with redis.Redis.from_url(server.url) as client:
        assert client.get("hemix:format_version") == b"2"
        client.set("hemix:format_version", "3")
        before = sorted(client.keys())
        second = open_store(server.url, LIMITS)
        for call in (
            second.ping,
            lambda: second.append([did("b")]),
            lambda: second.history("u", limit=9),
        ):
            with raises(StoreError, 2, 3, code="wrong_format_version", field=server.url):
                call()
        assert sorted(client.keys()) == before
    assert ids(first.history("u", limit=9)) == ["a"]
    first.close()
    second.close()


def test_a_slow_one_is_waited_for_within_bounds(server: RedisServer) -> None:
    server.start()
    store = open_store(server.url, LIMITS)
    store.append([did("a")])
    server.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        for call in (store.ping, lambda: store.history("u", limit=9)):
            with raises(StoreError, "0.3 s", code="store_timeout"):
                call()
        with raises(StoreError, "0.4 s", code="store_timeout"):
            store.append([did("b")])
        assert time.monotonic() - began < 10
    finally:
        server.send(signal.SIGCONT)
    assert set(ids(store.history("u", limit=9))) <= {"a", "b"}  # the reply for b was lost
    store.append([did("b")])
    assert set(ids(store.history("u", limit=9))) == {"a", "b"}
    store.close()


def test_a_full_one_takes_nothing(server: RedisServer) -> None:
    server.start()
    store = open_store(server.url, LIMITS)
    store.append([did("a")])
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1mb")
        with raises(StoreError, server.url, code="store_full"):
            store.append([did("b", 1), did("c", 2)])
        client.config_set("maxmemory", "0")
    assert ids(store.history("u", limit=9)) == ["a"]
    store.close()


def test_a_revision_does_not_come_back_where_data_is_lost(server: RedisServer) -> None:
    server.start()
    store = open_store(server.url, LIMITS)
    store.append([did("a")])
    before = store.history("u", limit=9).revision
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
    assert store.history("u", limit=9, known_revision=before) == StoredHistory()
    store.append([did("b")])
    assert store.history("u", limit=9).revision > before
    store.close()


def test_a_writer_without_a_time_to_live_removes_it(server: RedisServer) -> None:
    server.start()
    store, forever = (open_store(server.url, StoreLimits(ttl_ms=ttl)) for ttl in (300, None))
    store.append([did("a"), did("b", user="v")])
    forever.append([did("c", 1)])
    until = time.monotonic() + 20
    while store.history("v", limit=9) != StoredHistory():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert ids(store.history("u", limit=9)) == ["a", "c"]
    assert store.append([did("a"), did("c")]) == [False, False]
    for one in (store, forever):
        one.close()


@pytest.mark.parametrize(
    "url", ["redis://me:secret@127.0.0.1:1/0", "redis://me:secret@127.0.0.1:port/0"]
)
def test_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(url, LIMITS).ping()
    assert "secret" not in str(refused.value) and "127.0.0.1" in str(refused.value)


def test_a_wrong_password_is_reported(server: RedisServer) -> None:
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "secret")
    store = open_store(server.url, LIMITS)
    with raises(StoreError, server.url, code="store_unauthorized"):
        store.ping()
    store.close()
    store = open_store(server.url.replace("redis://", "redis://:secret@"), LIMITS)
    store.ping()
    store.close()
