"""A server that has started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["serving_banner"]


def serving_banner(url: str, run: Path, seconds: Mapping[str, float]) -> str:
    """Where a server listens, and example requests.

    Args:
        url: The server's address.
        run: Folder of the run that it serves.
        seconds: Start-up time: ``torch`` for its import, ``rest``.

    Returns:
        Several lines.
    """
    events = '[{"event": "interaction", "id": "e1", "user": "u1", "item": "i1", "type": "click"}]'
    ranking = '{"user": "u1", "items": [{"id": "i1"}, {"id": "i2"}], "explain": true}'
    return (
        f"{run}: serving at {url} ({seconds['rest']:.1f} s, and {seconds['torch']:.1f} s for "
        "torch's import)\n"
        f"Playground: {url}/   API: {url}/docs   Stop: Ctrl-C\n"
        f"  curl {url}/v1/events -d '{events}'\n"
        f"  curl {url}/v1/rank -d '{ranking}'"
    )
