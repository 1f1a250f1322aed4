"""A schema as YAML with a comment for every guess."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hemix.schema_draft.features import LevelDraft

__all__ = ["YamlText", "flow"]


class YamlText:
    """Lines of YAML with comments."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def comment(self, text: str, indent: int = 0) -> None:
        """Add a line that is a comment."""
        self._lines.append(f"{' ' * indent}# {text}")

    def blank(self) -> None:
        """Add an empty line."""
        self._lines.append("")

    def key(self, key: str, value: str, comment: str | None = None, indent: int = 0) -> None:
        """Add a key.

        Args:
            key: Its name.
            value: Its value as YAML; empty: the lines that follow.
            comment: What stands behind it.
            indent: Spaces before it.
        """
        line = f"{' ' * indent}{_scalar(key)}:{' ' * bool(value)}{value}"
        self._lines.append(line if comment is None else f"{line}  # {comment}")

    def level(self, name: str, draft: LevelDraft) -> None:
        """Add the features of a level; columns that are none become comments.

        Args:
            name: The level.
            draft: Its features.
        """
        if not draft.features and not draft.left_out:
            return
        if draft.features:
            self.key(name, "", indent=2)
        for feature in draft.features:
            self.key(feature.name, flow(feature.keys), feature.reason, indent=4)
        for column, reason in draft.left_out:
            self.comment(f"{column}: left out: {reason}", indent=4)

    def text(self) -> str:
        """Return all lines."""
        return "\n".join(self._lines) + "\n"


def flow(value: Any) -> str:
    """Return a value as YAML on one line.

    Args:
        value: A scalar, a sequence or a mapping.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return _scalar(value)
    return json.dumps(value)


def _scalar(text: str) -> str:
    """Text without quotes where YAML reads it as the same text."""
    plain = text.replace("_", "a").replace("-", "a").replace(".", "a").replace("/", "a")
    reserved = text.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"}
    safe = plain.isascii() and plain.isalnum() and not text[0].isdigit() and not reserved
    return text if safe and text[0] not in "-." else json.dumps(text, ensure_ascii=False)
