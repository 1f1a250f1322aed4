"""Dates and times as people write them."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

__all__ = ["moment_ms"]


def moment_ms(text: str, timezone: str) -> int:
    """A local date or time such as ``2026-01-15`` or ``2026-01-15 06:00`` (or with an offset of its own) in ms UTC.

    Args:
        text: in ISO 8601, with or without seconds and offset.
        timezone: IANA name of the zone that a text without offset is of.

    Raises:
        ValueError: for other text.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    try:
        return round(moment.timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(f"{text!r} is beyond all dates") from error
