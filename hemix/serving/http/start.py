"""From a run folder, a store and a few settings to a server that listens.

Loads torch; the rest of this room does not.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hemix.errors import UsageError
from hemix.measure import give_freed_memory_back, keep_freed_memory, processors
from hemix.schema import Schema
from hemix.serving.http.access import Access, check_host, read_token
from hemix.serving.http.app import make_app
from hemix.serving.http.logs import configure
from hemix.serving.http.server import bind, serve
from hemix.serving.http.service import Limits, Service
from hemix.serving.models import Load, Models, Ranker, check_histories, find_runs
from hemix.serving.quiet import Quiet
from hemix.serving.served import LoggedStore, ServedLog, ServedLogs
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.stores.base import DAY_MS

__all__ = ["ServeOptions", "run_server"]

_READING = 4
"""Rankings under way for each that is scored: while one is, others read and encode, and small ones
are joined
"""
_ARENAS = 2
"""Heaps that all threads share: with one each, memory that one thread has freed is no other's"""
_GIVE_BACK_SECONDS, _QUIET_SECONDS = 60.0, 5.0
_COLLECTOR_THRESHOLDS = (50_000, 20, 50)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `hemix serve` can be told."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: a free one"""
    store: str | None = None
    """URL; by default SQLite in events.db beside the run's files"""
    token_file: Path | None = None
    admin_token_file: Path | None = None
    registry: Path | None = None
    """Folder name/version/ of versions that may be loaded; by default the folder served, where it
    is one
    """
    threads: int = 1
    """torch's threads of each worker"""
    workers: int | None = None
    """Rankings, or parts of a large one, scored at a time; by default the cores over ``threads``"""
    device: str = "cpu"
    cache_mib: int = 256
    """For users' states"""
    log: Path | None = None
    """Folder for what is served, as training rows; by default ``served`` beside the run's files"""
    keep_log: bool = True
    served_keep_days: float | None = None
    """Files of that log are deleted after so long; None: never"""
    history_cap: int = StoreLimits.cap
    """Most events of one user"""
    history_days: int | None = 90
    """A user unheard of for so long is forgotten; None: never"""
    item_days: int | None = 365
    """What events said of an item is forgotten after so long without a word of it; None: never"""
    strict: bool = False
    """Refuse users, items and columns that the run does not know"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the model's dense part"""
    max_items: int = Limits.items
    """Of a ranking"""
    max_body_mib: int = Limits.body_bytes // 2**20
    queue: int = Limits.waiting
    """Rankings, and bodies of events, that may wait; what comes then is refused"""
    deadline_seconds: float = Limits.deadline_seconds
    """For an answer"""
    store_timeout_seconds: float = 0.25
    """For a ranking's reading of the store; after it the ranking goes on without"""


def run_server(
    run: Path, options: ServeOptions, on_ready: Callable[[str, dict[str, float]], None]
) -> None:
    """Serve ``run`` (a run folder or a registry) until SIGTERM or Ctrl-C.

    ``on_ready(url, seconds)`` is called once it answers, with what took how long. Raises
    UsageError, RunError, StoreError before it listens.
    """
    began = time.perf_counter()
    check_host(options.host, token=options.token_file is not None)
    if options.threads < 1 or (options.workers is not None and options.workers < 1):
        raise UsageError(
            f"--threads {options.threads} --workers {options.workers}: expected at least 1"
        )
    tokens = [
        read_token(path, flag) if path is not None else None
        for path, flag in (
            (options.token_file, "--token-file"),
            (options.admin_token_file, "--admin-token-file"),
        )
    ]
    runs = find_runs(run)
    registry = options.registry or (run if runs[0][2] != run else None)
    if registry is not None and not registry.is_dir():
        raise UsageError(f"--registry {registry}: no such folder")
    bound = bind(options.host, options.port)

    kept, quiet, logs = _limits([folder for _, _, folder in runs], options), Quiet(), None
    if options.keep_log:
        logs = ServedLogs(
            options.log or run / "served",
            limits=kept,
            keep_days=options.served_keep_days,
            quiet=quiet,
        )
    store = open_store(options.store or f"sqlite:///{run.absolute() / 'events.db'}", kept)
    if logs is not None:
        store = LoggedStore(store, logs)
    at = time.perf_counter()
    import torch

    torch_seconds = time.perf_counter() - at
    torch.set_num_threads(options.threads)
    keep_freed_memory(arenas=_ARENAS)
    workers = options.workers or max(processors() // options.threads, 1)
    models = Models(_loader(store, kept, logs, options, workers), registry, strict=options.strict)
    for name, version, folder in runs:
        models.put(name, version, folder)
    service = Service(
        models=models,
        store=store,
        access=Access(*tokens),
        quiet=quiet,
        limits=Limits(
            body_bytes=options.max_body_mib * 2**20,
            all_bodies_bytes=max(Limits.all_bodies_bytes, options.max_body_mib * 2**20),
            items=options.max_items,
            deadline_seconds=options.deadline_seconds,
            waiting=options.queue,
            workers=_READING * workers,
            strict=options.strict,
        ),
    )
    if logs is not None:
        service.metrics.watch_log(lambda: logs.left_out)
    configure()
    host, port = bound.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def ready() -> None:
        _collect_seldom()
        threading.Thread(
            target=_give_back_often, args=(quiet,), name="hemix-trim", daemon=True
        ).start()
        on_ready(url, {"torch": torch_seconds, "rest": time.perf_counter() - began - torch_seconds})

    serve(make_app(service), bound, ready)


def _collect_seldom() -> None:
    """Python's collector looks at everything that lives, modules and models too, each time that
    enough objects were made; a ranking that reads a long history makes thousands, and would wait
    for it. What lives now is set aside; the rest is looked at seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


def _give_back_often(quiet: Quiet) -> None:
    """What a burst of rankings needed stays free for the next one, but not for ever: memory would
    creep up with each new coincidence.
    """
    while give_freed_memory_back():
        time.sleep(_GIVE_BACK_SECONDS)
        quiet.wait(_QUIET_SECONDS)


def _limits(folders: list[Path], options: ServeOptions) -> StoreLimits:
    """The store's, large enough for the longest history of these runs."""
    schemas = [Schema.load(folder / "schema.yaml") for folder in folders]
    longest = max(
        schema.history.global_length + schema.history.realtime_length for schema in schemas
    )
    return StoreLimits(
        cap=max(options.history_cap, longest),
        ttl_ms=options.history_days * DAY_MS if options.history_days is not None else None,
        item_ttl_ms=options.item_days * DAY_MS if options.item_days is not None else None,
        impressions=any(schema.history_source == "impressions" for schema in schemas),
    )


def _loader(
    store: Store, kept: StoreLimits, logs: ServedLogs | None, options: ServeOptions, workers: int
) -> Load:
    def load(folder: Path, name: str, version: str) -> Ranker:
        from hemix.serving.engine import Engine, EngineConfig

        schema = Schema.load(folder / "schema.yaml")
        check_histories(schema, kept, f"{name}/{version}")
        log = logs.open(name, version, schema) if logs is not None else None
        try:
            engine = Engine(
                folder,
                store,
                EngineConfig(
                    name=name,
                    version=version,
                    cache_bytes=options.cache_mib * 2**20,
                    device=options.device,
                    precision=options.precision,
                    store_timeout_s=options.store_timeout_seconds,
                    slots=workers,
                ),
                log=log,
            )
        except BaseException:
            if logs is not None and log is not None:
                logs.close_one(log)
            raise
        return engine if logs is None or log is None else _Logged(engine, logs, log)

    return load


class _Logged:
    """An engine whose log ends with it."""

    def __init__(self, engine: Ranker, logs: ServedLogs, log: ServedLog) -> None:
        self._engine, self._logs, self._log = engine, logs, log
        self.schema = engine.schema
        self.rank, self.warm_up = engine.rank, engine.warm_up

    def close(self) -> None:
        self._engine.close()
        self._logs.close_one(self._log)
