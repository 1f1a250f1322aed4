"""`hemix bench serve`: a server in one process, driven from another, open loop at fixed rates.

Without a run one is made: a small simulated city, a model of size tiny trained for a moment,
histories up to 5,000 events. What its weights say does not matter here; what it costs does not
depend on them.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.errors import HemixError, UsageError
from hemix.lab.benchmarks.drive import Plan, Stream
from hemix.lab.benchmarks.memory import Memory
from hemix.measure import machine, stolen_seconds
from hemix.runs import Run
from hemix.serving.playground import suggested_values
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Event

__all__ = ["run"]

_SECONDS, _WARM_UP_S = 30.0, 5.0
_SHORT, _LONG = 1_000, 5_000
_USERS = 12
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class _World:
    """A run and users with histories of known lengths."""

    run: Path
    store: Path
    short: tuple[str, ...]
    long: tuple[str, ...]
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

    They are rankings of 500 items at 1,000 and 5,000 events, always of users with a new event; at
    1,000 with the user's state kept; events in bodies of 50; and a mix. Each gives a case a
    stream: latency from the moment that a request was due, the server's own stages, errors, its
    memory with the trend after the first fifth, and the processor time that other machines took.

    Args:
        scale: Times the lengths of histories and the seconds.
        run: The run to serve; None: a new one.
        seconds: The mix alone for so long, as for a soak. Its users have histories as long as the
            model reads: shorter ones would grow by the mix's events, and with them the states.
        device: Where the server scores.
        threads: PyTorch's threads of each worker.

    Raises:
        UsageError: For seconds that are not above 0.
        HemixError: If a stream got no answer.
    """
    soak = seconds is not None
    lasting = seconds if seconds is not None else max(_SECONDS * scale, 1.0)
    if lasting <= 0:
        raise UsageError(f"--seconds {lasting:g}: expected more than 0")
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = Path(temporary)
        world = _world(folder, run, max(int(400 * scale), 60), scale, full=soak)
        loads = _loads(world, scale)
        if soak:
            loads = {"mix": loads["mix"]}
        cases: list[dict[str, Any]] = []
        with _server(world, folder, threads, device) as (port, pid, ready_seconds):
            for number, (name, streams) in enumerate(loads.items()):
                plan = Plan(
                    seed=number,
                    port=port,
                    seconds=lasting,
                    warm_up_seconds=min(_WARM_UP_S, lasting / 3),
                    streams=streams,
                    items=world.items,
                    actions=world.actions,
                    context=world.context,
                )
                cases += _measure(name, plan, pid)
    return {
        "schema_version": 1,
        "cases": cases,
        "ready_seconds": ready_seconds,
        "threads": threads,
        "device": device,
        "machine": machine(),
    }


def _loads(world: _World, scale: float) -> dict[str, tuple[Stream, ...]]:
    """The streams of every load by its name."""
    short = Stream(kind="rank", per_second=10, size=500, users=world.short, fresh=True)
    long = Stream(kind="rank", per_second=5, size=500, users=world.long, fresh=True)
    mix = (
        Stream(kind="rank", per_second=2, size=500, users=world.short),
        Stream(kind="rank", per_second=5, size=50, users=world.short),
        Stream(kind="events", per_second=5, size=10, users=world.short),
    )
    kept = dataclasses.replace(short, fresh=False)
    return {
        f"rank 500, {_length(_SHORT, scale)} events": (short,),
        f"rank 500, {_length(_LONG, scale)} events": (long,),
        f"rank 500, {_length(_SHORT, scale)} events, state kept": (kept,),
        "events 50": (Stream(kind="events", per_second=40, size=50, users=world.short),),
        "mix": mix,
    }


def _measure(name: str, plan: Plan, pid: int) -> list[dict[str, Any]]:
    """A case a stream of one load on the server of process ``pid``."""
    stolen, began = stolen_seconds(), time.monotonic()
    with Memory(pid) as memory:
        streams = _drive(plan)
    stolen_share = (stolen_seconds() - stolen) / (time.monotonic() - began) / (os.cpu_count() or 1)
    for stream in streams:
        if not stream["answered_per_second"]:
            kind, errors = stream["stream"], stream["errors"]
            raise HemixError(f"bench serve: no {kind} was answered: {errors}")
    rest = {**memory.figures(), "stolen_share": round(stolen_share, 3)}
    return [{"name": f"serve {name}", **stream, **rest} for stream in streams]


def _drive(plan: Plan) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "hemix.lab.benchmarks.drive"],
        input=json.dumps(dataclasses.asdict(plan)),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise HemixError(f"bench serve: the driver failed: {done.stderr.strip().splitlines()[-1:]}")
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


@contextmanager
def _server(
    world: _World, folder: Path, threads: int, device: str
) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(port, process id, seconds until ready) of a server that ends with the block."""
    command = [
        sys.executable,
        "-m",
        "hemix",
        "serve",
        str(world.run),
        "--port",
        "0",
        "--json",
        "--threads",
        str(threads),
    ]
    command += [
        "--device",
        device,
        "--store",
        f"sqlite:///{world.store}",
        "--log",
        str(folder / "served"),
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        waited, _, _ = select.select([process.stdout], [], [], 120)
        line = process.stdout.readline() if waited else ""
        if not line:
            said = (folder / "server.log").read_text().strip().splitlines()[-1:]
            raise HemixError(f"bench serve: the server did not start: {said}")
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


# -- what is served --------------------------------------------------------------------------------


def _world(folder: Path, run: Path | None, users: int, scale: float, *, full: bool) -> _World:
    made = run if run is not None else _small_run(folder, users)
    loaded = Run.load(made)
    names = suggested_values(made, loaded.schema)
    items = tuple(names["items"]) or tuple(f"item-{i}" for i in range(1000))
    some = tuple(names["users"]) or tuple(f"user-{i}" for i in range(2 * _USERS))
    half = min(_USERS, max(len(some) // 2, 1))
    store = folder / "events.db"
    world = _World(
        run=made,
        store=store,
        short=some[:half],
        long=some[half : 2 * half] or some[:half],
        items=items,
        actions=tuple(names["actions"]) or ("click",),
        context=names["context"],
    )
    lengths = loaded.schema.history.global_length + loaded.schema.history.realtime_length
    filled = open_store(
        f"sqlite:///{store}", StoreLimits(ttl_ms=None, cap=max(lengths, StoreLimits.cap))
    )
    for user in dict.fromkeys((*world.short, *world.long)):
        length = lengths if full else _length(_LONG if user in world.long else _SHORT, scale)
        filled.append(_past(user, length, world))
    filled.close()
    return world


def _length(events: int, scale: float) -> int:
    return max(int(events * min(scale, 1.0)), 20)


def _past(user: str, length: int, world: _World) -> Sequence[Event]:
    """Events of the last sixty days."""
    rng, now_ms = random.Random(user), int(time.time() * 1000)
    times = sorted(now_ms - rng.randrange(2 * _DAY_MS, 60 * _DAY_MS) for _ in range(length))
    return [
        Event(
            id=f"{user}-{n}",
            kind="interaction",
            time_ms=at,
            user=user,
            item=rng.choice(world.items),
            action=rng.choice(world.actions),
            received_ms=at,
        )
        for n, at in enumerate(times)
    ]


def _small_run(folder: Path, users: int) -> Path:
    """A model of size tiny on a small city with long histories."""
    from hemix.data.dataset import Dataset
    from hemix.lab.simulator import simulate
    from hemix.preparation import prepare
    from hemix.settings import build_settings
    from hemix.training.loop import train

    simulate(folder / "logs", users=users, days=3, seed=0)
    schema = folder / "logs" / "schema.yaml"
    schema.write_text(schema.read_text().replace("global_length: 1000", f"global_length: {_LONG}"))
    prepare(folder / "logs", folder / "data")
    settings = build_settings(overrides={"train.epochs": 1})
    return train(Dataset(folder / "data"), folder / "run", settings)
