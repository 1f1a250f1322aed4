"""kill -9 at random moments: what append had returned for is there, and every body is there whole or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hemix.errors import StoreError
from hemix.serving.store import Limits, Store, open_store
from tests.serving.redis_server import RedisServer
from tests.serving.store.events import did

WRITE = """
import sys
from hemix.serving.store import Limits, open_store
from tests.serving.store.events import did
store = open_store(sys.argv[1], Limits(cap=10**6))
for body in range(int(sys.argv[2]), 10**9):
    store.append([did(f"{body}-{n}", body, f"u{n % 7}") for n in range(50)])
    print(body, flush=True)
"""
SEED = 5


def bodies(store: Store) -> dict[int, int]:
    """How many events of each body are there."""
    found: dict[int, int] = {}
    for user in range(7):
        for event in store.history(f"u{user}", limit=10**6).events:
            body = int(event.id.split("-")[0])
            found[body] = found.get(body, 0) + 1
    return found


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_sqlite_accepted(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    url, accepted = f"sqlite:///{tmp_path / 'store.db'}", -1
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, url, str(accepted + 1)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        accepted = int(writer.stdout.readline())  # it writes
        timer = threading.Timer(rng.uniform(0.05, 0.6), writer.kill)
        timer.start()
        for line in writer.stdout:
            accepted = int(line)
        writer.wait(30)
        store = open_store(url)
        found = bodies(store)
        store.close()
        assert set(found.values()) == {50}
        assert sorted(found) == list(range(len(found)))
        assert len(found) - 1 >= accepted
        accepted = len(found) - 1
    assert accepted > 100


@pytest.mark.slow
def test_a_killed_redis_loses_nothing_that_it_accepted(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    server = RedisServer(tmp_path / "redis", fsync="always")
    store = open_store(server.url, Limits(cap=10**6))
    body, accepted = 0, -1
    try:
        for _ in range(8):
            server.start()
            timer = threading.Timer(rng.uniform(0.05, 0.6), server.kill)
            timer.start()
            try:
                while True:
                    store.append([did(f"{body}-{n}", body, f"u{n % 7}") for n in range(50)])
                    accepted, body = body, body + 1
            except StoreError:
                timer.join()
            server.start()
            found = bodies(store)
            server.stop()
            assert set(found.values()) == {50}
            assert sorted(found) == list(range(len(found)))
            assert len(found) - 1 >= accepted
            body = len(found)
    finally:
        store.close()
        server.stop()
    assert accepted > 100
