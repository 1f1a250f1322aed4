"""How objects look in Python's console and in notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["html_table", "one_line"]


def one_line(kind: str, facts: Mapping[str, object]) -> str:
    """Return one line, such as ``Run(model=hemix, folder=runs/a)``.

    Args:
        kind: Name of the class.
        facts: Values by name; those that are None are left out.
    """
    values = ", ".join(
        f"{name}={_text(value)}" for name, value in facts.items() if value is not None
    )
    return f"{kind}({values})"


def html_table(kind: str, facts: Mapping[str, object]) -> str:
    """Return an HTML table with a row for each fact.

    Args:
        kind: Name of the class.
        facts: Values by name; those that are None are left out.
    """
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<table><caption>{escape(kind)}</caption>{rows}</table>"


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
