"""How a command ends with an error: one line on stderr, and the exit code of the error's class."""

from __future__ import annotations

import os
import sys

import typer

from hemix.cli.renamed import renamed_option
from hemix.errors import HemixError, Interrupted, ProcessLost, UsageError
from hemix.files import storage_error

__all__ = ["COMMAND_ERRORS", "CommandError", "report", "to_hemix_error"]

_ClickUsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""click's UsageError: typer exports only this subclass of it, of its own click or of the package"""

CommandError = Exception | KeyboardInterrupt
COMMAND_ERRORS: tuple[type[CommandError], ...] = (
    HemixError,
    OSError,
    KeyboardInterrupt,
    typer.Abort,
    _ClickUsageError,
)
"""What a command may raise for a wrong input, or because of its environment"""


def to_hemix_error(error: CommandError) -> HemixError:
    """Return the error of this package for one of :data:`COMMAND_ERRORS`."""
    if isinstance(error, HemixError):
        return error
    if isinstance(error, OSError):
        return storage_error(error, "files")
    if isinstance(error, _ClickUsageError):
        return _usage_error(error)
    nothing_left = "" if isinstance(error, typer.Abort) else "; nothing half-written was left"
    return Interrupted(f"interrupted{nothing_left}")


def _usage_error(error: Exception) -> UsageError:
    """Name the option or argument of an error of click, whose classes have these attributes."""
    field: str | None = getattr(error, "option_name", None)
    new = renamed_option(error)
    if new is not None:
        return UsageError(f"No such option: {field}", field=field, hint=f"renamed to {new}")
    parameter = getattr(error, "param", None)
    if field is None and parameter is not None:
        field = max(parameter.opts, key=len) if parameter.opts else parameter.name
    message: str = getattr(error, "format_message", error.__str__)()
    return UsageError(message.rstrip("."), field=field)


def report(error: HemixError) -> int:
    """Print an error as one line on stderr.

    Nothing is printed after click's help, which replaces the message, nor where the launcher of
    several processes names the one that failed.

    Returns:
        The exit code.
    """
    message = str(error)
    if message and not _reported_by_launcher(error):
        print(f"hemix: {message}", file=sys.stderr)
    return error.exit_code


def _reported_by_launcher(error: HemixError) -> bool:
    if not isinstance(error, ProcessLost):
        return False
    from hemix.training.launch import LAUNCHED

    return bool(os.environ.get(LAUNCHED))
