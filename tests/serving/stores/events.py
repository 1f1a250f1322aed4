"""Events in a few letters."""

from __future__ import annotations

from typing import Any

from hemix.serving.types import Event, StoredHistory

NOON_MS = 1_770_000_000_000


def did(id: str, at: int = 0, user: str = "u", **more: Any) -> Event:
    """A click ``at`` ms after noon."""
    return Event(
        **{
            "id": id,
            "kind": "interaction",
            "time_ms": NOON_MS + at,
            "user": user,
            "item": "i",
            "action": "click",
            **more,
        }
    )


def says(id: str, at: int, kind: str, who: str, /, **fields: Any) -> Event:
    """New features of a user or an item."""
    return Event(**{"id": id, "kind": kind, "time_ms": NOON_MS + at, kind: who, "fields": fields})


def ids(history: StoredHistory) -> list[str]:
    return [event.id for event in history.events]
