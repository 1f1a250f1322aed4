"""``hemix bench serve``: latency of a server under an open-loop load from another process.

Without a run, a model of size tiny is trained briefly on a small simulated city. Its cost does not
depend on the quality of its weights.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.errors import HemixError, UsageError
from hemix.lab.benchmarks.common import last_line
from hemix.lab.benchmarks.load_generator import LoadPlan, RequestStream
from hemix.lab.benchmarks.memory import MemorySampler
from hemix.measure import machine, stolen_seconds
from hemix.runs import Run
from hemix.serving.playground import suggested_values
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Event

__all__ = ["run"]

_SECONDS, _WARM_UP_SECONDS = 30.0, 5.0
_SHORT_HISTORY, _LONG_HISTORY = 1_000, 5_000
_USERS = 12
"""Users of each history length"""
_CITY_USERS = 400
_START_SECONDS_MAX = 120
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class _TestBed:
    """A run, and an event store with histories of known lengths."""

    run: Path
    store: Path
    short_users: tuple[str, ...]
    """Users with a short history"""
    long_users: tuple[str, ...]
    """Users with a long history"""
    items: tuple[str, ...]
    actions: tuple[str, ...]
    context: dict[str, Any]


def run(
    *,
    scale: float = 1.0,
    run: Path | None = None,
    seconds: float | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> dict[str, Any]:
    """Measure a server under five loads of 30 seconds each.

    Two loads rank 500 items for users with 1,000 and 5,000 events and a new event each time. The
    others are rankings at 1,000 events with a cached user state, bodies of 50 events, and a mix.

    Args:
        scale: Factor of history lengths and seconds.
        run: The run to serve; None: a new one.
        seconds: Run only the mix, for so many seconds, as a soak test. Histories then have the
            model's maximum length, so that the events of the mix do not lengthen them.
        device: The device that scores.
        threads: PyTorch threads of each worker.

    Returns:
        The figures, a case per stream. They hold the latency since the due time, the server's
        stages, errors, and the server's memory with its trend. They also hold the processor time
        stolen by other virtual machines.
    """
    is_soak = seconds is not None
    duration = seconds if seconds is not None else max(_SECONDS * scale, 1.0)
    if duration <= 0:
        raise UsageError(f"--seconds {duration:g}: expected more than 0", field="--seconds")
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = Path(temporary)
        served_run = run if run is not None else _train_small_run(folder, scale)
        bed = _make_test_bed(folder, served_run, scale, full_histories=is_soak)
        loads = _loads(bed, scale)
        if is_soak:
            loads = {"mix": loads["mix"]}
        cases: list[dict[str, Any]] = []
        with _server(bed, folder, threads, device) as (port, pid, ready_seconds):
            for seed, (name, streams) in enumerate(loads.items()):
                plan = _make_plan(bed, streams, port, duration, seed)
                cases += _measure(name, plan, pid)
    return {
        "schema_version": 1,
        "cases": cases,
        "ready_seconds": ready_seconds,
        "threads": threads,
        "device": device,
        "machine": machine(),
    }


def _loads(bed: _TestBed, scale: float) -> dict[str, tuple[RequestStream, ...]]:
    """Return the streams of every load by its name."""
    short = RequestStream(kind="rank", per_second=10, size=500, users=bed.short_users, fresh=True)
    long = RequestStream(kind="rank", per_second=5, size=500, users=bed.long_users, fresh=True)
    cached = dataclasses.replace(short, fresh=False)
    events = RequestStream(kind="events", per_second=40, size=50, users=bed.short_users)
    mix = (
        RequestStream(kind="rank", per_second=2, size=500, users=bed.short_users),
        RequestStream(kind="rank", per_second=5, size=50, users=bed.short_users),
        RequestStream(kind="events", per_second=5, size=10, users=bed.short_users),
    )
    short_events, long_events = (
        _scaled_length(events, scale) for events in (_SHORT_HISTORY, _LONG_HISTORY)
    )
    return {
        f"rank 500, {short_events} events": (short,),
        f"rank 500, {long_events} events": (long,),
        f"rank 500, {short_events} events, state kept": (cached,),
        "events 50": (events,),
        "mix": mix,
    }


def _make_plan(
    bed: _TestBed, streams: tuple[RequestStream, ...], port: int, seconds: float, seed: int
) -> LoadPlan:
    return LoadPlan(
        seed=seed,
        port=port,
        seconds=seconds,
        warm_up_seconds=min(_WARM_UP_SECONDS, seconds / 3),
        streams=streams,
        items=bed.items,
        actions=bed.actions,
        context=bed.context,
    )


def _measure(name: str, plan: LoadPlan, pid: int) -> list[dict[str, Any]]:
    """Run one load on the server of process ``pid``; returns a case per stream."""
    stolen_before, start = stolen_seconds(), time.monotonic()
    with MemorySampler(pid) as memory:
        streams = _generate_load_in_process(plan)
    elapsed = time.monotonic() - start
    stolen_fraction = (stolen_seconds() - stolen_before) / elapsed / (os.cpu_count() or 1)
    for stream in streams:
        if not stream["answered_per_second"]:
            kind, errors = stream["stream"], stream["errors"]
            raise HemixError(
                f"bench serve: stream {kind} got no response: {errors}", code="no_answer"
            )
    server = {**memory.figures(), "stolen_share": round(stolen_fraction, 3)}
    return [{"name": f"serve {name}", **stream, **server} for stream in streams]


def _generate_load_in_process(plan: LoadPlan) -> list[dict[str, Any]]:
    process = subprocess.run(
        [sys.executable, "-m", "hemix.lab.benchmarks.load_generator"],
        input=json.dumps(dataclasses.asdict(plan)),
        capture_output=True,
        text=True,
    )
    if process.returncode != 0:
        cause = last_line(process.stderr, process.returncode)
        raise HemixError(f"bench serve: the load generator failed: {cause}", code="process_failed")
    results: list[dict[str, Any]] = json.loads(process.stdout)
    return results


@contextmanager
def _server(
    bed: _TestBed, folder: Path, threads: int, device: str
) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Start a server for the block; yields port, process id and the seconds until it was ready."""
    flags = {
        "--port": "0",
        "--threads": str(threads),
        "--device": device,
        "--store": f"sqlite:///{bed.store}",
        "--log": str(folder / "served"),
    }
    command = [sys.executable, "-m", "hemix", "serve", str(bed.run), "--json"]
    command += [text for flag in flags.items() for text in flag]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], _START_SECONDS_MAX)
        line = process.stdout.readline() if readable else ""
        if not line:
            cause = last_line((folder / "server.log").read_text(), process.poll() or 0)
            raise HemixError(
                f"bench serve: the server did not start: {cause}", code="process_failed"
            )
        ready = json.loads(line)
        yield int(ready["url"].rpartition(":")[2]), process.pid, ready["seconds"]
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _make_test_bed(folder: Path, run: Path, scale: float, *, full_histories: bool) -> _TestBed:
    """Select users and items that the run knows, and write the users' histories to a store."""
    schema = Run.load(run).schema
    names = suggested_values(run, schema)
    users = tuple(names["users"]) or tuple(f"user-{i}" for i in range(2 * _USERS))
    half = min(_USERS, max(len(users) // 2, 1))
    store = folder / "events.db"
    bed = _TestBed(
        run=run,
        store=store,
        short_users=users[:half],
        long_users=users[half : 2 * half] or users[:half],
        items=tuple(names["items"]) or tuple(f"item-{i}" for i in range(1000)),
        actions=tuple(names["actions"]) or ("click",),
        context=names["context"],
    )
    history_max = schema.history.global_length + schema.history.realtime_length
    limits = StoreLimits(ttl_ms=None, cap=max(history_max, StoreLimits.cap))
    event_store = open_store(f"sqlite:///{store}", limits)
    for user in dict.fromkeys((*bed.short_users, *bed.long_users)):
        length = _LONG_HISTORY if user in bed.long_users else _SHORT_HISTORY
        count = history_max if full_histories else _scaled_length(length, scale)
        event_store.append(_random_events(user, count, bed))
    event_store.close()
    return bed


def _scaled_length(events: int, scale: float) -> int:
    return max(int(events * min(scale, 1.0)), 20)


def _random_events(user: str, count: int, bed: _TestBed) -> list[Event]:
    """Draw events of a user within the last sixty days, in the order of time."""
    rng, now_ms = random.Random(user), int(time.time() * 1000)
    times = sorted(now_ms - rng.randrange(2 * _DAY_MS, 60 * _DAY_MS) for _ in range(count))
    return [
        Event(
            id=f"{user}-{n}",
            kind="interaction",
            time_ms=time_ms,
            user=user,
            item=rng.choice(bed.items),
            action=rng.choice(bed.actions),
            received_ms=time_ms,
        )
        for n, time_ms in enumerate(times)
    ]


def _train_small_run(folder: Path, scale: float) -> Path:
    """Train a model of size tiny on a small city, with histories up to the long length."""
    from hemix.data.dataset import Dataset
    from hemix.lab.simulator import simulate
    from hemix.preparation import prepare
    from hemix.settings import build_settings
    from hemix.training.loop import train

    users = max(int(_CITY_USERS * scale), 60)
    simulate(folder / "logs", users=users, days=3, seed=0)
    schema = folder / "logs" / "schema.yaml"
    schema.write_text(
        schema.read_text().replace("global_length: 1000", f"global_length: {_LONG_HISTORY}")
    )
    prepare(folder / "logs", folder / "data")
    settings = build_settings(overrides={"train.epochs": 1})
    return train(Dataset(folder / "data"), folder / "run", settings)
