"""kill -9 at random moments: what append had returned for is there, and every body is there whole
or not at all.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from hemix import api
from hemix.errors import StoreError
from hemix.serving.stores import Store, StoreLimits, open_store
from tests.data.small import ONE_EACH, at, write
from tests.serving.redis_server import RedisServer
from tests.serving.stores.events import did

WRITE = """
import sys
from hemix.serving.stores import StoreLimits, open_store
from tests.serving.stores.events import did
store = open_store(sys.argv[1], StoreLimits(cap=10**6))
for body in range(int(sys.argv[2]), 10**9):
    store.append([did(f"{body}-{n}", body, f"u{n % 7}") for n in range(50)])
    print(body, flush=True)
"""
SEED = 5


def bodies(store: Store) -> dict[int, int]:
    """How many events of each body are there."""
    counts: dict[int, int] = {}
    for user in range(7):
        for event in store.history(f"u{user}", limit=10**6).events:
            body = int(event.id.split("-")[0])
            counts[body] = counts.get(body, 0) + 1
    return counts


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_sqlite_accepted(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    url, accepted = f"sqlite:///{tmp_path / 'store.db'}", -1
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE, url, str(accepted + 1)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        accepted = int(writer.stdout.readline())  # it writes
        timer = threading.Timer(rng.uniform(0.05, 0.6), writer.kill)
        timer.start()
        for line in writer.stdout:
            accepted = int(line)
        writer.wait(30)
        store = open_store(url)
        counts = bodies(store)
        store.close()
        assert set(counts.values()) == {50}
        assert sorted(counts) == list(range(len(counts)))
        assert len(counts) - 1 >= accepted
        accepted = len(counts) - 1
    assert accepted > 100


@pytest.mark.slow
def test_a_killed_redis_loses_nothing_that_it_accepted(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    server = RedisServer(tmp_path / "redis", fsync="always")
    store = open_store(server.url, StoreLimits(cap=10**6))
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
            counts = bodies(store)
            server.stop()
            assert set(counts.values()) == {50}
            assert sorted(counts) == list(range(len(counts)))
            assert len(counts) - 1 >= accepted
            body = len(counts)
    finally:
        store.close()
        server.stop()
    assert accepted > 100


@pytest.mark.slow
def test_a_killed_load_goes_on_by_being_repeated(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    rows = 30_000
    logs = write(
        tmp_path / "logs",
        "{name: big, tables: {events: events.parquet}, labels: {click: {}}, split: {valid: "
        "2026-01-06, test: 2026-01-07}}",
        impressions=ONE_EACH,
        events={
            "user_id": [f"u{n % 7}" for n in range(rows)],
            "item_id": [n % 50 for n in range(rows)],
            "time_ms": pa.array(
                [None if n % 90 == 0 else at(0) + rng.randrange(50_000) for n in range(rows)],
                pa.int64(),
            ),
            "action": [f"a{n % 3}" for n in range(rows)],
        },
    )
    whole, part = (f"sqlite:///{tmp_path / name}.db" for name in ("whole", "part"))
    counts = api.store_load(logs, whole)
    for _ in range(3):
        loader = subprocess.Popen(
            [sys.executable, "-m", "hemix", "store", "load", str(logs), "--store", part]
        )
        while not (tmp_path / "part.db").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0.1, 1.0))
        loader.kill()
        loader.wait(30)
    accepted = api.store_load(logs, part)["accepted"]
    assert accepted < counts["accepted"]  # what was loaded before the kills was there
    stores = [open_store(url) for url in (whole, part)]
    for user in range(7):
        one, two = (
            [(e.id, e.time_ms, e.item) for e in s.history(f"u{user}", limit=10**6).events]
            for s in stores
        )
        assert one == two and len(one) > 4_000
    for store in stores:
        store.close()
