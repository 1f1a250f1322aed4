"""Stores of every kind, empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hemix.serving.stores import Store, StoreLimits, open_store
from tests.serving.redis_server import RedisServer

Open = Callable[..., Store]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that every test leaves as it found it, but for its data."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens an empty store, again (where it outlives its process) the same one; arguments are those
    of StoreLimits.
    """
    match request.param:
        case "memory":
            url = "memory://"
        case "sqlite":
            url = f"sqlite:///{tmp_path / 'store.db'}"
        case _:
            server = request.getfixturevalue("redis_server")
            empty(server)
            url = server.url
    stores: list[Store] = []

    def open_(**limits: Any) -> Store:
        stores.append(open_store(url, StoreLimits(**limits)))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def empty(server: RedisServer) -> None:
    """Forget everything in it."""
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushall()
