"""Commands that make logs and datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hemix import api
from hemix.api.types import DatasetName, DerivedLogName, EngineName, ProtocolName
from hemix.cli.command import add_command
from hemix.cli.flags import DATA, Json, LogsFolder, OutFolder, Seed
from hemix.cli.output import console, print_result

__all__ = ["commands"]

commands = typer.Typer()


def _print_logs(counts: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print what logs hold, and the command that prepares them."""
    from hemix.display import command_line, counts_line

    next_command = command_line("prepare", out, "--out", "DATA")
    print_result(counts, as_json, f"{out}: {counts_line(counts)}\nNext: {next_command}")


@dataclass(frozen=True, kw_only=True)
class SimulateFlags:
    """Flags of ``hemix simulate``."""

    out: OutFolder
    users: Annotated[int, typer.Option(min=1, help="Number of users of the city.")] = 3000
    days: Annotated[
        int, typer.Option(min=3, help="Days of impressions; days with events only precede them.")
    ] = 8
    seed: Seed = 0
    json_: Json = False


@add_command(commands, panel=DATA, example="hemix simulate --out logs --users 500 --days 5")
def simulate(flags: SimulateFlags) -> None:
    """Write the logs of a simulated city, and the true probabilities in OUT/truth."""
    from hemix.display import Display

    with Display(console()) as display:
        counts = api.simulate(
            flags.out,
            users=flags.users,
            days=flags.days,
            seed=flags.seed,
            on_progress=display.progress,
        )
    _print_logs(counts, flags.out, flags.json_)


@dataclass(frozen=True, kw_only=True)
class ImportFlags:
    """Flags of ``hemix import``."""

    name: Annotated[DatasetName, typer.Argument(help="Data set.", show_default=False)]
    raw: Annotated[Path, typer.Argument(help="Folder of the raw files.", show_default=False)]
    out: OutFolder
    random_log: Annotated[
        bool,
        typer.Option(
            "--random-log",
            help="KuaiRand: add the randomly exposed impressions; with --protocol, test on them.",
        ),
    ] = False
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(help="KuaiRand: days and label of a public comparison.", show_default=False),
    ] = None
    json_: Json = False


@add_command(
    commands, name="import", panel=DATA, example="hemix import movielens ml-20m --out logs"
)
def import_(flags: ImportFlags) -> None:
    """Convert the raw files of a public data set to logs with a schema."""
    with console().status(f"importing {flags.name} from {flags.raw}"):
        counts = api.import_logs(
            flags.name,
            flags.raw,
            flags.out,
            random_log=flags.random_log,
            protocol=flags.protocol,
        )
    _print_logs(counts, flags.out, flags.json_)


@dataclass(frozen=True, kw_only=True)
class DeriveFlags:
    """Flags of ``hemix derive``."""

    name: Annotated[DerivedLogName, typer.Argument(help="Kind of log.", show_default=False)]
    logs: LogsFolder
    out: OutFolder
    max_rows: Annotated[
        int | None,
        typer.Option(
            "--max-rows",
            min=1,
            help="Most impressions of LOGS to use, by whole users.",
            show_default="30,000 to 90,000, by the kind",
        ),
    ] = None
    seed: Seed = 0
    json_: Json = False


@add_command(commands, panel=DATA, example="hemix derive daily_items logs --out logs-daily")
def derive(flags: DeriveFlags) -> None:
    """Make a log of a special kind from others, such as one with new items every day."""
    with console().status(f"deriving {flags.name} from {flags.logs}"):
        counts = api.derive(
            flags.name, flags.logs, flags.out, max_rows=flags.max_rows, seed=flags.seed
        )
    _print_logs(counts, flags.out, flags.json_)


@dataclass(frozen=True, kw_only=True)
class PrepareFlags:
    """Flags of ``hemix prepare``."""

    logs: LogsFolder
    out: OutFolder
    shift_days: Annotated[
        int | None,
        typer.Option(
            "--shift-days",
            max=-1,
            help="Move the split by so many days, for another test period: -2 is two days earlier.",
            show_default=False,
        ),
    ] = None
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            help="Reuse and extend the vocabularies of this dataset or run, for a later day.",
            show_default=False,
        ),
    ] = None
    vocabulary_ttl_days: Annotated[
        int | None,
        typer.Option(
            "--vocabulary-ttl-days",
            help="With --init-from: drop values that no train row has had for so many days.",
            show_default="never",
        ),
    ] = None
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Partitions of the users; part of the dataset. By default 8 to 64, by its rows.",
            show_default=False,
        ),
    ] = None
    processes: Annotated[
        int, typer.Option(min=1, help="Processes of this machine; they change no byte.")
    ] = 1
    engine: Annotated[EngineName, typer.Option(help="Who does the work; it changes no byte.")] = (
        "local"
    )
    spark_master: Annotated[
        str | None,
        typer.Option(
            "--spark-master",
            help="With --engine spark: master URL, such as local[4] or spark://HOST:7077.",
            show_default="spark-defaults.conf, or local[*]",
        ),
    ] = None
    json_: Json = False


@add_command(commands, panel=DATA, example="hemix prepare logs --out data --processes 4")
def prepare(flags: PrepareFlags) -> None:
    """Encode, sort and split logs into a dataset folder."""
    from hemix.display import Display, manifest_summary

    with Display(console()) as display:
        manifest = api.prepare(
            flags.logs,
            flags.out,
            shift_days=flags.shift_days,
            init_from=flags.init_from,
            engine=flags.engine,
            options=api.PrepareOptions(
                vocabulary_ttl_days=flags.vocabulary_ttl_days,
                partitions=flags.partitions,
                processes=flags.processes,
                spark_master=flags.spark_master,
            ),
            on_progress=display.progress,
        )
    print_result(manifest, flags.json_, manifest_summary(manifest, flags.out))
