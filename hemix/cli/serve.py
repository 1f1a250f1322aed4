"""Commands of the ranking server, its store and its log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hemix import api
from hemix.cli.command import add_command, given_values
from hemix.cli.flags import (
    SERVE,
    Imports,
    Json,
    LogFolder,
    LogsFolder,
    OutFolder,
    ServedRun,
)
from hemix.cli.output import console, print_result
from hemix.serving.config import ServeConfig, load_config

__all__ = ["commands"]

commands = typer.Typer()
store = typer.Typer(help="The server's store of live events.", no_args_is_help=True)
log = typer.Typer(help="The server's log of rankings and events.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class ServeFlags:
    """Flags of ``hemix serve`` that are no fields of ServeConfig."""

    run: Annotated[
        Path,
        typer.Argument(help="Run folder, or a registry name/version/ of them.", show_default=False),
    ]
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="YAML file with these options; flags and HEMIX_SERVE_* variables override it.",
            show_default="HEMIX_SERVE_CONFIG",
        ),
    ] = None
    import_: Imports = None
    json_: Json = False


@add_command(
    commands,
    panel=SERVE,
    example="hemix serve runs/a --port 8080",
    settings=ServeConfig.model_fields,
)
def serve(flags: ServeFlags, context: typer.Context) -> None:
    """Serve a run over HTTP: events in, rankings out, a playground at /."""
    config = load_config(given_values(context, ServeConfig.model_fields), file=flags.config)
    api.serve(flags.run, config, on_ready=partial(_print_ready, flags.run, flags.json_))


def _print_ready(run: Path, as_json: bool, url: str, seconds: dict[str, float]) -> None:
    """Print the server's URL and the seconds that its start took."""
    if as_json:
        print(json.dumps({"url": url, "seconds": seconds}), flush=True)
        return
    from hemix.display import serving_banner
    from hemix.schema import Schema
    from hemix.serving.playground import known_ids
    from hemix.serving.run_folders import find_runs

    [(_, _, folder), *_] = find_runs(run)
    known = known_ids(folder, Schema.load(folder / "schema.yaml"))
    print(serving_banner(url, run, seconds, known), flush=True)


@dataclass(frozen=True, kw_only=True)
class StoreLoadFlags:
    """Flags of ``hemix store load``."""

    logs: LogsFolder
    store: Annotated[
        str,
        typer.Option(
            "--store",
            help="Store URL: sqlite:///FILE or redis://HOST:PORT/DB.",
            show_default=False,
        ),
    ]
    json_: Json = False


_LIMITS = {
    name: ServeConfig.model_fields[name]
    for name in ("history_cap", "history_ttl_days", "item_ttl_days")
}


@add_command(
    store,
    name="load",
    panel=SERVE,
    example="hemix store load logs --store sqlite:///events.db",
    settings=_LIMITS,
)
def store_load(flags: StoreLoadFlags, context: typer.Context) -> None:
    """Load the events of logs into the server's store. A second call adds only new events.

    Use the limits of the server.
    """
    from hemix.display import Display, counts_line

    with Display(console()) as display:
        counts = api.store_load(
            flags.logs,
            flags.store,
            **{name: context.params[name] for name in _LIMITS},
            on_progress=display.progress,
        )
    print_result(counts, flags.json_, f"{flags.logs}: {counts_line(counts)}")


@dataclass(frozen=True, kw_only=True)
class LogExportFlags:
    """Flags of ``hemix log export``."""

    log: LogFolder
    run: ServedRun
    out: OutFolder
    json_: Json = False


@add_command(
    log,
    name="export",
    panel=SERVE,
    example="hemix log export runs/a/served/a-1-SCHEMA --run runs/a --out rows",
)
def log_export(flags: LogExportFlags) -> None:
    """Write logged rankings as impressions, labelled by the events that followed."""
    from hemix.display import counts_line

    counts = api.log_export(flags.log, flags.run, flags.out)
    left_out = counts.pop("positions_left_out", 0)
    if left_out:
        console().print(
            f"{flags.log}: positions of {left_out:,} events are no whole numbers of at least 0; "
            "their rows keep the position in the ranking"
        )
    content = counts | ({"positions_left_out": left_out} if left_out else {})
    print_result(content, flags.json_, f"{flags.out}: {counts_line(counts)}")


@dataclass(frozen=True, kw_only=True)
class LogReplayFlags:
    """Flags of ``hemix log replay``."""

    log: LogFolder
    run: ServedRun
    import_: Imports = None
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="The server's store URL: sqlite:///FILE or redis://HOST:PORT/DB.",
            show_default="the log's events",
        ),
    ] = None
    json_: Json = False


@add_command(
    log,
    name="replay",
    panel=SERVE,
    example="hemix log replay runs/a/served/a-1-SCHEMA --run runs/a",
)
def log_replay(flags: LogReplayFlags) -> None:
    """Rank logged requests again and print the largest difference of a score."""
    result = api.log_replay(flags.log, flags.run, flags.store)
    text = (
        f"{flags.log}: {result['rankings']:,} rankings of {result['candidates']:,} candidates; "
        f"largest difference of a score {result['max_abs_difference']:.1e}"
    )
    if result["with_scores_on_one_side_only"]:
        text += (
            f"; {result['with_scores_on_one_side_only']:,} rankings have a score on one side only"
        )
    if result["with_incomplete_histories"]:
        text += (
            f"; {result['with_incomplete_histories']:,} rankings left out: events of their "
            "histories are missing"
        )
    print_result(result, flags.json_, text)


commands.add_typer(store, name="store", rich_help_panel=SERVE)
commands.add_typer(log, name="log", rich_help_panel=SERVE)
