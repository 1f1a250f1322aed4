"""Functions of the ranking server, its store and its log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemix.api.types import PathLike, Progress, ignore_progress
from hemix.errors import MissingExtra

if TYPE_CHECKING:
    from hemix.serving.config import ServeConfig

__all__ = ["log_export", "log_replay", "serve", "store_load"]


def serve(
    run: PathLike,
    config: ServeConfig | None = None,
    *,
    on_ready: Callable[[str, dict[str, float]], None] | None = None,
) -> None:
    """Serve over HTTP until SIGTERM or Ctrl-C.

    Args:
        run: A run folder, or a registry of them (``name/version/``).
        config: The configuration; None: the defaults. :func:`hemix.serving.config.load_config`
            reads it from a file and the environment.
        on_ready: Called with the URL, and the seconds that parts of the start took, when the
            server answers.

    Raises:
        UsageError: A setting cannot be used.
        RunError: A run cannot be served.
        StoreError: The store cannot be opened.
        MissingExtra: The extra ``serve`` is not installed.
    """
    try:
        from hemix.serving.config import ServeConfig
        from hemix.serving.server import run_server
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "hemix":
            raise
        raise MissingExtra(missing.name or "a package", "serve", "the ranking server") from missing
    run_server(Path(run), config or ServeConfig(), on_ready or (lambda _url, _seconds: None))


def store_load(
    logs: PathLike,
    store: str,
    *,
    history_cap: int = 10_000,
    history_ttl_days: int = 90,
    item_ttl_days: int = 365,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Load the events of logs into a server's store; events that it has are not added again.

    The limits must be those of the server, :class:`hemix.ServeConfig`.

    Args:
        logs: A folder of logs with a schema.yaml.
        store: URL of the store, ``sqlite:///FILE`` or ``redis://HOST:PORT/DB``.
        history_cap: Maximum events of a user; the oldest ones are dropped.
        history_ttl_days: Days after which an inactive user is deleted; 0: never.
        item_ttl_days: Days after which an item's live features are deleted; 0: never.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        Counts and the duration in seconds.

    Raises:
        DataError: A value of the logs cannot be used; no event is loaded then.
        UsageError: The URL is not a store that can be loaded.
        StoreError: The store fails.
    """
    from hemix.backfill import load
    from hemix.serving.stores.base import DAY_MS

    return load(
        Path(logs),
        store,
        cap=history_cap,
        ttl_ms=history_ttl_days * DAY_MS or None,
        item_ttl_ms=item_ttl_days * DAY_MS or None,
        progress=on_progress,
    )


def log_export(log: PathLike, run: PathLike, out: PathLike) -> dict[str, int]:
    """Write logged rankings as impressions, labelled by the events that followed.

    Args:
        log: Folder NAME-VERSION-SCHEMA of the log of ``hemix serve``.
        run: The run that was served.
        out: The new folder.

    Returns:
        The number of rows by table, and how many positions were left out.

    Raises:
        UsageError: ``out`` is not new.
        DataError: The log cannot be used.
    """
    from hemix.schema import Schema
    from hemix.serving.ranking_log.training_rows import write_training_rows

    return write_training_rows(log, out, Schema.load(Path(run) / "schema.yaml"))


def log_replay(log: PathLike, run: PathLike, store: str | None = None) -> dict[str, Any]:
    """Rank logged requests again and measure the differences of the scores.

    Args:
        log: Folder NAME-VERSION-SCHEMA of the log of ``hemix serve``.
        run: The run that was served.
        store: URL of a store with the events; None: the events of the log.

    Returns:
        Counts, and ``max_abs_difference`` of a score.

    Raises:
        DataError: The log cannot be used.
        RunError: The run cannot be used.
        StoreError: The store fails.
    """
    from hemix.serving.ranking_log.replay import replay_log

    return replay_log(Path(log), Path(run), store)
