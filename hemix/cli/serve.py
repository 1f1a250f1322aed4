"""Commands of the ranking server, its store and its log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from hemix import api
from hemix.cli.command import add_command, given_values
from hemix.cli.flags import (
    SERVE,
    HistoryCap,
    HistoryTtlDays,
    Imports,
    ItemTtlDays,
    Json,
    LogFolder,
    LogsFolder,
    OutFolder,
    ServedRun,
    TokenFile,
)
from hemix.cli.output import console, print_result

__all__ = ["commands"]

commands = typer.Typer()
store = typer.Typer(help="The server's store of live events.", no_args_is_help=True)
log = typer.Typer(help="The server's log of rankings and events.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class ServeFlags:
    """Flags of ``hemix serve``: the fields of ServeConfig, and where they come from."""

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
    host: Annotated[
        str, typer.Option(help="Address; one that other machines reach needs a token.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 8080
    store: Annotated[
        str | None,
        typer.Option(
            help="Store URL: memory://, sqlite:///file.db or redis://HOST:PORT/DB.",
            show_default="SQLite, RUN/events.db",
        ),
    ] = None
    token_file: TokenFile = None
    admin_token_file: Annotated[
        Path | None,
        typer.Option(
            "--admin-token-file",
            help="File with the token for loading versions.",
            show_default=False,
        ),
    ] = None
    registry: Annotated[
        Path | None,
        typer.Option(
            help="Folder name/version/ of versions that may be loaded.",
            show_default="RUN, if it is a registry",
        ),
    ] = None
    threads: Annotated[int, typer.Option(min=1, help="PyTorch threads of each worker.")] = 1
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that score; a large ranking is divided among free ones.",
            show_default="cores / threads",
        ),
    ] = None
    device: Annotated[str, typer.Option(help="Device that scores: cpu, cuda or cuda:N.")] = "cpu"
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Folder of the ranking logs.", show_default="RUN/served"),
    ] = None
    no_log: Annotated[bool, typer.Option("--no-log", help="Do not log rankings.")] = False
    served_keep_days: Annotated[
        float | None,
        typer.Option(
            "--served-keep-days",
            min=0.01,
            help="Days after which files of the log are deleted.",
            show_default="never",
        ),
    ] = None
    cache_mib: Annotated[
        int, typer.Option("--cache-mib", min=0, help="Memory for cached user states, in MiB.")
    ] = 256
    history_cap: HistoryCap = 10_000
    history_ttl_days: HistoryTtlDays = 90
    item_ttl_days: ItemTtlDays = 365
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse users, items, columns that the run does not know."),
    ] = False
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Precision of the dense layers.")
    ] = "fp32"
    max_items: Annotated[
        int, typer.Option("--max-items", min=1, help="Maximum number of items of a ranking.")
    ] = 2_000
    max_body_mib: Annotated[
        int, typer.Option("--max-body-mib", min=1, help="Maximum decompressed body, in MiB.")
    ] = 8
    queue: Annotated[
        int, typer.Option(min=0, help="Maximum number of rankings that wait; then 503.")
    ] = 64
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Maximum seconds for an answer; then 504.")
    ] = 5.0
    store_timeout: Annotated[
        float,
        typer.Option(
            "--store-timeout",
            min=0.01,
            help="Maximum seconds to read the store; then ranked without.",
        ),
    ] = 0.25
    import_: Imports = None
    json_: Json = False


@add_command(commands, panel=SERVE, example="hemix serve runs/a --port 8080")
def serve(flags: ServeFlags, context: typer.Context) -> None:
    """Serve a run over HTTP: events in, rankings out, a playground at /."""
    from hemix.serving.config import ServeConfig, load_config

    config = load_config(given_values(context, ServeConfig.model_fields), file=flags.config)
    api.serve(flags.run, config, on_ready=partial(_print_ready, flags.run, flags.json_))


def _print_ready(run: Path, as_json: bool, url: str, seconds: dict[str, float]) -> None:
    """Print the server's URL and the seconds that its start took."""
    from hemix.display import serving_banner

    ready = {"url": url, "seconds": seconds}
    print(json.dumps(ready) if as_json else serving_banner(url, run, seconds), flush=True)


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
    history_cap: HistoryCap = 10_000
    history_ttl_days: HistoryTtlDays = 90
    item_ttl_days: ItemTtlDays = 365
    json_: Json = False


@add_command(
    store,
    name="load",
    panel=SERVE,
    example="hemix store load logs --store sqlite:///events.db",
)
def store_load(flags: StoreLoadFlags) -> None:
    """Load the events of logs into the server's store. A second call adds only new events.

    Use the limits of the server.
    """
    from hemix.display import Display, counts_line

    with Display(console()) as display:
        counts = api.store_load(
            flags.logs,
            flags.store,
            history_cap=flags.history_cap,
            history_ttl_days=flags.history_ttl_days,
            item_ttl_days=flags.item_ttl_days,
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
