"""The command line's part for the ranking server: `hemix serve`, `hemix store` and `hemix served`.

Parses, calls the API, prints.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hemix import api
from hemix.errors import UsageError

__all__ = ["Imports", "experiment", "serve", "served", "store"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


def _import_models(files: list[Path] | None) -> list[Path] | None:
    if files:
        api.import_models(files)
    return files


Imports = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        callback=_import_models,
        help="Python file with a model of your own; may be repeated.",
        show_default=False,
    ),
]

store = typer.Typer(help="The server's store of live events.", no_args_is_help=True)
served = typer.Typer(help="The server's log of rankings and events.", no_args_is_help=True)


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with these options; flags and HEMIX_SERVE_* variables override it.",
        show_default="HEMIX_SERVE_CONFIG",
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        help="memory://, sqlite:///file.db or redis://HOST:PORT/DB.",
        show_default="SQLite, RUN/events.db",
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the token.", show_default=False),
]
AdminTokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        help="File with the token for loading versions.",
        show_default=False,
    ),
]
RegistryOption = Annotated[
    Path | None,
    typer.Option(help="Folder name/version/ to load from.", show_default="RUN, where it is one"),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads that score; a large ranking is divided among free ones.",
        show_default="cores / threads",
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log",
        help="Folder of the ranking logs.",
        show_default="RUN/served",
    ),
]
ServedKeepDaysOption = Annotated[
    float | None,
    typer.Option(
        "--served-keep-days",
        min=0.01,
        help="Days after which files of the log are deleted.",
        show_default="never",
    ),
]
StoreTimeoutOption = Annotated[
    float,
    typer.Option(
        "--store-timeout", min=0.01, help="Maximum seconds to read the store; then ranked without."
    ),
]
Precision = Annotated[str, typer.Option(help="fp32, or bf16 for the dense layers.")]


def serve(
    context: typer.Context,
    run: Annotated[
        Path,
        typer.Argument(help="Run folder, or a registry name/version/ of them.", show_default=False),
    ],
    config: ConfigOption = None,
    host: Annotated[
        str, typer.Option(help="Address; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8080,
    store: StoreOption = None,
    token_file: TokenFileOption = None,
    admin_token_file: AdminTokenFileOption = None,
    registry: RegistryOption = None,
    threads: Annotated[int, typer.Option(min=1, help="PyTorch's threads of each worker.")] = 1,
    workers: WorkersOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    log: LogOption = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Do not log rankings.")] = False,
    served_keep_days: ServedKeepDaysOption = None,
    cache_mib: Annotated[
        int, typer.Option("--cache-mib", min=0, help="MiB for cached user states.")
    ] = 256,
    history_cap: Annotated[
        int, typer.Option("--history-cap", min=1, help="Maximum events of a user.")
    ] = 10_000,
    history_days: Annotated[
        int,
        typer.Option(
            "--history-days", min=0, help="Inactive users expire after so many days; 0: never."
        ),
    ] = 90,
    item_days: Annotated[
        int, typer.Option("--item-days", min=0, help="Items' live features likewise; 0: never.")
    ] = 365,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse users, items, columns that the run does not know."),
    ] = False,
    precision: Precision = "fp32",
    max_items: Annotated[
        int, typer.Option("--max-items", min=1, help="Maximum items of a ranking.")
    ] = 2_000,
    max_body_mib: Annotated[
        int, typer.Option("--max-body-mib", min=1, help="Maximum decompressed body.")
    ] = 8,
    queue: Annotated[int, typer.Option(min=0, help="Maximum rankings that wait; then 503.")] = 64,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Maximum seconds for an answer; then 504.")
    ] = 5.0,
    store_timeout: StoreTimeoutOption = 0.25,
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Serve a run over HTTP: events in, rankings out, a playground at /."""
    from hemix.serving.config import load_config

    server_config = load_config(_given_flags(context), file=config)
    api.serve(run, server_config, on_ready=partial(_print_ready, run, json_))


def _given_flags(context: typer.Context) -> dict[str, Any]:
    """Return the settings that the command line names, without those at their defaults."""
    from hemix.serving.config import ServeConfig

    sources = {name: context.get_parameter_source(name) for name in ServeConfig.model_fields}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def _print_ready(run: Path, as_json: bool, url: str, seconds: dict[str, float]) -> None:
    """Print the server's URL and the seconds that its start took."""
    from hemix.display import serving_banner

    ready = {"url": url, "seconds": seconds}
    print(json.dumps(ready) if as_json else serving_banner(url, run, seconds), flush=True)


@store.command(name="load")
def store_load(
    logs: Annotated[
        Path, typer.Argument(help="Folder of logs with a schema.yaml.", show_default=False)
    ],
    url: Annotated[
        str,
        typer.Option("--store", help="sqlite:///FILE or redis://HOST:PORT/DB.", show_default=False),
    ],
    history_cap: Annotated[
        int, typer.Option("--history-cap", min=1, help="Maximum events of a user; as the server's.")
    ] = 10_000,
    history_days: Annotated[
        int,
        typer.Option(
            "--history-days",
            min=0,
            help="Inactive users expire after so many days; 0: never; as the server's.",
        ),
    ] = 90,
    item_days: Annotated[
        int,
        typer.Option("--item-days", min=0, help="Items' live features likewise; as the server's."),
    ] = 365,
    json_: Json = False,
) -> None:
    """Load the events of logs into the server's store; again, and it adds only what is new."""
    from hemix.display import Display, counts_line

    with Display(Console(stderr=True, highlight=False, soft_wrap=True)) as display:
        counts = api.store_load(
            logs,
            url,
            history_cap=history_cap,
            history_days=history_days or None,
            item_days=item_days or None,
            on_progress=display.progress,
        )
    print(
        json.dumps(counts, indent=1, ensure_ascii=False)
        if json_
        else f"{logs}: {counts_line(counts)}"
    )


ServedLog = Annotated[
    Path,
    typer.Argument(help="Folder NAME-VERSION-SCHEMA of hemix serve's --log.", show_default=False),
]
OfRun = Annotated[Path, typer.Option("--run", help="The run that served it.", show_default=False)]


@served.command(name="rows")
def served_rows(
    log: ServedLog,
    run: OfRun,
    out: Annotated[Path, typer.Option("--out", help="New folder to write.", show_default=False)],
    json_: Json = False,
) -> None:
    """Write logged rankings as impressions, labelled by the events that answered."""
    from hemix.display import counts_line

    counts = api.served_rows(log, run, out)
    left_out = counts.pop("positions_left_out", 0)
    if left_out:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"{log}: positions of {left_out:,} events are no whole numbers of at least 0; their "
            "rows keep the position in the ranking"
        )
    counts |= {"positions_left_out": left_out} if left_out and json_ else {}
    print(json.dumps(counts, indent=1) if json_ else f"{out}: {counts_line(counts)}")


@served.command(name="replay")
def served_replay(
    log: ServedLog,
    run: OfRun,
    _import: Imports = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="The server's store, sqlite:///FILE or redis://HOST:PORT/DB.",
            show_default="the log's events",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Rank logged requests again; print the largest difference of a score."""
    result = api.served_replay(log, run, url)
    text = (
        f"{log}: {result['rankings']:,} rankings of {result['candidates']:,} candidates; "
        f"largest difference of a score {result['max_abs_difference']:.1e}"
    )
    if result["with_scores_on_one_side_only"]:
        text += (
            f"; {result['with_scores_on_one_side_only']:,} rankings have a score on one side only"
        )
    if result["with_incomplete_histories"]:
        text += (
            f"; {result['with_incomplete_histories']:,} rankings left out: not all events of their "
            "histories are there"
        )
    print(json.dumps(result, indent=1, ensure_ascii=False) if json_ else text)


def experiment(
    arm: Annotated[
        list[str],
        typer.Option(
            "--arm",
            help="NAME=URL, NAME=oracle or NAME=popularity; again for each.",
            show_default=False,
        ),
    ],
    logs: Annotated[
        Path,
        typer.Option("--logs", help="Logs of hemix simulate, with the users.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder to create or to continue.", show_default=False),
    ],
    users: Annotated[int, typer.Option("--users", min=1, help="Number of users.")] = 200,
    first_user: Annotated[
        int, typer.Option("--first-user", min=0, help="Index of the first one.")
    ] = 0,
    days: Annotated[int, typer.Option("--days", min=1, help="Days after the logs.")] = 2,
    design: Annotated[
        str, typer.Option("--design", help="paired: every user in every arm; split: each in one.")
    ] = "paired",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the split design.")] = 0,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            min=1,
            help="Recall draws per request; 130 give about 100.",
            show_default="56",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the servers' token.", show_default=False),
    ] = None,
    patience: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to wait for an arm.")
    ] = 30.0,
    json_: Json = False,
) -> None:
    """Run a simulated A/B test: the effects of rankers on clicks, orders and amounts."""
    from hemix.display import Display, experiment_table, power_line

    if design not in ("paired", "split"):
        raise UsageError(f"--design {design}: expected paired or split", field="--design")
    arms = dict[str, str]()
    for one in arm:
        name, equals, url = one.partition("=")
        if not equals or not name or not url or name in arms:
            raise UsageError(f"--arm {one}: expected NAME=URL, each name once", field="--arm")
        arms[name] = url
    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Display(console) as display:
        content = api.experiment(
            arms,
            out,
            logs=logs,
            users=users,
            days=days,
            first_user=first_user,
            design="split" if design == "split" else "paired",
            seed=seed,
            draws=draws,
            token=token,
            patience_seconds=patience,
            on_progress=display.progress,
            on_power=lambda found: console.print(power_line(found, design)),
        )
    text = f"{experiment_table(content)}\nReport: {out / 'report.html'}"
    print(json.dumps(content, indent=1, ensure_ascii=False) if json_ else text)
