"""All commands of the command line, by the words that call them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from hemix.cli.app import app


def _walk(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS: dict[str, Any] = dict(_walk(typer.main.get_command(app)))
