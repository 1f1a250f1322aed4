"""The server of a run or a registry: builds store, log, models and routes from a configuration.

This module loads torch; the HTTP modules do not.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hemix.errors import UsageError
from hemix.measure import give_freed_memory_back, keep_freed_memory
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.http.admission import Access, check_host
from hemix.serving.http.app import make_app
from hemix.serving.http.service import RequestLimits, Service
from hemix.serving.http.uvicorn_server import bind, serve
from hemix.serving.idle_maintenance import IdleMaintenance
from hemix.serving.json_logging import configure_logging
from hemix.serving.loaded_models import LoadedModels, LoadEngine, RankingEngine
from hemix.serving.ranking_log import LoggingStore, RankingLog, RankingLogSet
from hemix.serving.run_folders import check_histories, find_runs
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.token_file import read_token
from hemix.serving.types import Ranking, RankRequest

__all__ = ["engine_loader", "run_server"]

_REQUEST_THREADS_PER_WORKER = 4
"""While one request is scored, others decode and encode, and small ones are batched"""
_ARENAS = 2
"""malloc heaps that all threads share: with a heap each, freed memory is not reused by others"""
_TRIM_SECONDS, _TRIM_WAIT_SECONDS = 60.0, 5.0
_GC_THRESHOLDS = (50_000, 20, 50)


def run_server(
    run: Path, config: ServeConfig, on_ready: Callable[[str, dict[str, float]], None]
) -> None:
    """Serve a run folder or a registry until SIGTERM or Ctrl-C.

    Args:
        run: The folder.
        config: The configuration.
        on_ready: Called with the URL, and the seconds that parts of the start took, when the
            server answers.

    Raises:
        UsageError: A setting cannot be used.
        RunError: A run cannot be served.
        StoreError: The store cannot be opened.
    """
    started = time.perf_counter()
    check_host(config.host, token=config.token_file is not None)
    access = Access(
        read_token(config.token_file, "--token-file"),
        read_token(config.admin_token_file, "--admin-token-file"),
    )
    runs = find_runs(run)
    registry = _registry(run, runs[0][2], config)
    bound = bind(config.host, config.port)
    idle = IdleMaintenance()
    limits = config.store_limits(Schema.load(folder / "schema.yaml") for *_, folder in runs)
    log_set = None if config.no_log else _open_log_set(run, config, limits, idle)
    store = open_store(config.store or f"sqlite:///{run.absolute() / 'events.db'}", limits)
    if log_set is not None:
        store = LoggingStore(store, log_set)
    torch_seconds = _import_torch(config)
    load_engine = engine_loader(store, limits, log_set, config)
    models = LoadedModels(load_engine, registry, strict=config.strict)
    for name, version, folder in runs:
        models.put(name, version, folder)
    service = Service(
        models=models, store=store, access=access, idle=idle, limits=_request_limits(config)
    )
    if log_set is not None:
        service.metrics.watch_log(lambda: log_set.dropped)
    configure_logging()
    host, port = bound.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def ready() -> None:
        _tune_garbage_collector()
        threading.Thread(
            target=_trim_memory_regularly, args=(idle,), name="hemix-trim", daemon=True
        ).start()
        rest = time.perf_counter() - started - torch_seconds
        on_ready(url, {"torch": torch_seconds, "rest": rest})

    serve(make_app(service), bound, ready)


def _registry(run: Path, first_run: Path, config: ServeConfig) -> Path | None:
    """Return the folder of versions that may be loaded."""
    registry = config.registry or (run if first_run != run else None)
    if registry is not None and not registry.is_dir():
        raise UsageError(f"--registry {registry}: no such folder", field="--registry")
    return registry


def _open_log_set(
    run: Path, config: ServeConfig, limits: StoreLimits, idle: IdleMaintenance
) -> RankingLogSet:
    return RankingLogSet(
        config.log or run / "served",
        limits=limits,
        keep_days=config.served_keep_days,
        idle=idle,
    )


def _import_torch(config: ServeConfig) -> float:
    """Import and configure torch; return the seconds that the import took."""
    started = time.perf_counter()
    import torch

    seconds = time.perf_counter() - started
    torch.set_num_threads(config.threads)
    keep_freed_memory(arenas=_ARENAS)
    return seconds


def _request_limits(config: ServeConfig) -> RequestLimits:
    body_bytes = config.max_body_mib * 2**20
    return RequestLimits(
        body_bytes=body_bytes,
        all_bodies_bytes=max(RequestLimits.all_bodies_bytes, body_bytes),
        items=config.max_items,
        deadline_seconds=config.deadline,
        queue=config.queue,
        workers=_REQUEST_THREADS_PER_WORKER * config.scoring_workers,
        strict=config.strict,
    )


def _tune_garbage_collector() -> None:
    """Exclude what exists now from collections, and collect rarely.

    A ranking creates thousands of objects, so that it would often wait for a collection, which
    visits every module and model.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _trim_memory_regularly(idle: IdleMaintenance) -> None:
    """Return freed memory to the system, or each burst of requests would raise memory for good."""
    while give_freed_memory_back():
        time.sleep(_TRIM_SECONDS)
        idle.wait_until_idle(_TRIM_WAIT_SECONDS)


def engine_loader(
    store: Store, limits: StoreLimits, log_set: RankingLogSet | None, config: ServeConfig
) -> LoadEngine:
    """Return a function that loads a version's engine, with its log.

    Args:
        store: The store of events.
        limits: Limits of the store.
        log_set: The ranking logs; None: rankings are not logged.
        config: The configuration.
    """

    def load(folder: Path, name: str, version: str) -> RankingEngine:
        from hemix.serving.engine import Engine

        schema = Schema.load(folder / "schema.yaml")
        check_histories(schema, limits, f"{name}/{version}")
        log = log_set.open(name, version, schema) if log_set is not None else None
        try:
            engine = Engine(
                folder, store, config, name=name, version=version, log=log, dynamic_batching=True
            )
        except BaseException:
            if log_set is not None and log is not None:
                log_set.release(log)
            raise
        return engine if log_set is None or log is None else _LoggedEngine(engine, log_set, log)

    return load


class _LoggedEngine:
    """An engine that releases its log when it closes."""

    def __init__(self, engine: RankingEngine, log_set: RankingLogSet, log: RankingLog) -> None:
        self._engine, self._log_set, self._log = engine, log_set, log
        self.schema = engine.schema

    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        return self._engine.rank(requests, check)

    def warm_up(self) -> None:
        self._engine.warm_up()

    def close(self) -> None:
        self._engine.close()
        self._log_set.release(self._log)
