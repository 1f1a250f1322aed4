"""The application ``hemix``: its commands and their exit codes."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

import hemix
from hemix.cli import data, schemas, serve, study, tools, train
from hemix.cli.errors import COMMAND_ERRORS, report, to_hemix_error
from hemix.cli.renamed import CommandGroup
from hemix.errors import Interrupted
from hemix.openmp import choose_wait_policy

__all__ = ["app", "main"]

_QUICK = {"--help", "-h", "--version"}
"""Arguments with which no command runs"""

app = typer.Typer(
    name="hemix",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (schemas, data, train, study, serve, tools):
    app.add_typer(group.commands)


def _print_version(is_set: bool) -> None:
    if is_set:
        print(f"hemix {hemix.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """HeMix: from impression logs to a trained, evaluated ranking model."""


def main() -> None:
    """Run a command and end with its exit code, or that of its error."""
    signal.signal(signal.SIGTERM, _terminate)
    if not _QUICK.intersection(sys.argv[1:]) and len(sys.argv) > 1:
        choose_wait_policy()
    try:
        code = app(standalone_mode=False)
        if code == Interrupted.exit_code:  # newer versions of typer return it after Ctrl-C
            raise KeyboardInterrupt
    except typer.Exit as end:
        code = end.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except COMMAND_ERRORS as error:
        code = report(to_hemix_error(error))
    code = code if isinstance(code, int) else 0
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # threads of a process group may abort an interpreter that is being torn down
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # SIGTERM leaves nothing half-written, as Ctrl-C does
