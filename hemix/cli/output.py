"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

__all__ = ["console", "print_result"]


def console() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_result(content: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result of a command.

    Args:
        content: The result for a machine.
        as_json: Print ``content``, not ``text``.
        text: The result for people.
    """
    print(json.dumps(content, indent=1, ensure_ascii=False) if as_json else text)
