"""Options and commands that had another name: the refusal of the old name has the new one."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from hemix.errors import UsageError

__all__ = ["RENAMED_COMMANDS", "RENAMED_OPTIONS", "CommandGroup", "renamed_option"]

RENAMED_OPTIONS = {
    "--draws": "--recall-size",
    "--final": "--evaluate-test",
    "--forget-days": "--vocabulary-ttl-days",
    "--from": "--init-from",
    "--history-days": "--history-ttl-days",
    "--item-days": "--item-ttl-days",
    "--patience": "--arm-timeout",
}
RENAMED_COMMANDS = {
    "served": "log",
    "served replay": "log replay",
    "served rows": "log export",
}


class CommandGroup(TyperGroup):
    """Commands, of which the old names are refused with the new ones."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command.

        Args:
            ctx: Click's context.
            args: The words after the program's name.

        Raises:
            UsageError: The words are the old name of a command.
        """
        for old in (" ".join(args[:2]), args[0]):
            if old in RENAMED_COMMANDS:
                new = RENAMED_COMMANDS[old]
                raise UsageError(f"No such command '{old}'", field=old, hint=f"renamed to '{new}'")
        return super().resolve_command(ctx, args)


def renamed_option(error: Exception) -> str | None:
    """Return the present name of the option that an error of click names.

    None if the option had no other name, or the command does not have the present one.
    """
    new = RENAMED_OPTIONS.get(getattr(error, "option_name", None) or "")
    context = getattr(error, "ctx", None)
    if new is None or context is None:
        return None
    return new if any(new in option.opts for option in context.command.params) else None
