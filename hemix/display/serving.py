"""A server that has started."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hemix.serving.playground import KnownIds

__all__ = ["serving_banner"]


def serving_banner(url: str, run: Path, seconds: Mapping[str, float], known: KnownIds) -> str:
    """Where a server listens, and example requests with ids of the run.

    Args:
        url: The server's address.
        run: Folder of the run that it serves.
        seconds: Start-up time: ``torch`` for its import, ``rest``.
        known: Ids that the run knows.

    Returns:
        Several lines.
    """
    user = next(iter(known["users"]), "u1")
    items = [*known["items"][:2]] or ["i1", "i2"]
    action = next(iter(known["actions"]), "click")
    event = {"event": "interaction", "id": "e1", "user": user, "item": items[0], "type": action}
    ranking = {"user": user, "items": [{"id": item} for item in items], "explain": True}
    return (
        f"{run}: serving at {url} ({seconds['rest']:.1f} s, and {seconds['torch']:.1f} s for "
        "torch's import)\n"
        f"Playground: {url}/   API: {url}/docs   Stop: Ctrl-C\n"
        f"  curl {url}/v1/events -d {_shell_json([event])}\n"
        f"  curl {url}/v1/rank -d {_shell_json(ranking)}"
    )


def _shell_json(value: object) -> str:
    return shlex.quote(json.dumps(value, ensure_ascii=False))
