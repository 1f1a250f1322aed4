"""Commands that draft and check the schema of logs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hemix import api
from hemix.cli.command import add_command
from hemix.cli.flags import DATA, Json, LogsFolder
from hemix.cli.output import console, print_result

__all__ = ["commands"]

commands = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class InitFlags:
    """Flags of ``hemix init``."""

    logs: Annotated[
        Path, typer.Argument(help="Folder of Parquet files without a schema.", show_default=False)
    ]
    out: Annotated[
        Path | None, typer.Option("--out", help="New file.", show_default="LOGS/schema.yaml")
    ] = None
    json_: Json = False


@add_command(commands, panel=DATA, example="hemix init logs")
def init(flags: InitFlags) -> None:
    """Write a first schema.yaml from the types, names and values of Parquet files."""
    from hemix.display import command_line

    with console().status(f"reading {flags.logs}"):
        out = api.init(flags.logs, flags.out)
    next_command = command_line("check", flags.logs)
    text = f"{out}: a draft, with a reason for every guess: read it\nNext: {next_command}"
    print_result({"out": str(out)}, flags.json_, text)


@dataclass(frozen=True, kw_only=True)
class CheckFlags:
    """Flags of ``hemix check``."""

    logs: LogsFolder
    processes: Annotated[int, typer.Option(min=1, help="Processes of this machine.")] = 1
    json_: Json = False


@add_command(commands, panel=DATA, example="hemix check logs")
def check(flags: CheckFlags) -> None:
    """Check logs as hemix prepare does, and print join rates and missing values."""
    from hemix.display import Display, check_summary

    with Display(console()) as display:
        manifest = api.check(flags.logs, processes=flags.processes, on_progress=display.progress)
    print_result(manifest, flags.json_, check_summary(manifest, flags.logs))


@dataclass(frozen=True, kw_only=True)
class SchemaFlags:
    """Flags of ``hemix schema``."""


@add_command(commands, panel=DATA, example="hemix schema")
def schema(flags: SchemaFlags) -> None:  # noqa: ARG001
    """Print the JSON Schema of schema.yaml, for editors."""
    print(json.dumps(api.json_schema(), indent=1))
