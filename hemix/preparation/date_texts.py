"""Dates and times as text: whether their order as text is their order in time."""

from __future__ import annotations

import re
from datetime import date, datetime

from hemix.moments import offset_of

__all__ = [
    "YEAR_LAST",
    "YearLastDates",
    "compact_day",
    "comparable",
    "in_format_of",
    "is_time",
    "lower_bound",
]

_YEAR_FIRST = re.compile(r"(?:19|20)\d\d([-/.])\d\d(?:\1\d\d(?:\D\d.*)?)?")
_UNPADDED = re.compile(r"(?:19|20)\d\d([-/.])(?:\d\1\d\d?|\d\d\1\d)(?:\D.*)?")
"""Dates such as 2026-1-6, which as text is above 2026-1-10"""
_DAY_AND_TIME = re.compile(r"(\d{4}([-/.]?)\d\d\2\d\d)(\D)(\d.*)")
YEAR_LAST = re.compile(r"(\d\d?)([-/.])(\d\d?)\2(\d{4})(?:\D.*)?")
"""Dates such as 05.01.2026 or 01/05/2026, which sort by time within a month or a year at most"""


def is_time(text: str) -> bool:
    """Whether the text is a date or time in ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def compact_day(value: object) -> date | None:
    """Return the date of a number or text such as 20260131, else None."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    try:
        return datetime.strptime(text, "%Y%m%d").date() if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None


def _same_offset(text: str, boundary: str) -> bool:
    """Whether two times have the same offset, if both have one; UTC may be written as Z or +00."""
    offsets = {
        offset if offset.strip("+-0:") else "Z"
        for offset in map(offset_of, (text, boundary))
        if offset is not None
    }
    return len(offsets) < 2


def lower_bound(boundary: str) -> str:
    """Return the smallest text of a boundary's time, so that text comparison finds all later times.

    A time can be written in several lengths, and the shorter text is the smaller one:
    ``2026-01-06`` is below ``2026-01-06T00:00:00``. So the result has neither the boundary's offset
    nor zeros at its end.
    """
    core = _without_zeros(boundary)
    first = re.fullmatch(r"(\d{4}([-/.])\d\d)(?:\2)01", core)
    return first[1] if first else core


def _without_zeros(text: str) -> str:
    """A date and time without its offset and without trailing zero hours, minutes and seconds.

    Other text stays as it is.
    """
    if re.fullmatch(r"\d+", text) and len(text) % 2 == 0 and compact_day(text[:8]) is not None:
        day, separator, time = text[:8], "", text[8:]
    else:
        match = _DAY_AND_TIME.fullmatch(text.removesuffix(offset_of(text) or ""))
        if match is None:
            return text
        day, separator, time = match[1], match[3], match[4]
    if re.search(r"[.,]\d+$", time):
        time = time.rstrip("0").rstrip(".,")
    while time.endswith("00"):
        time = time[:-2].rstrip(":")
    return f"{day}{separator}{time}" if time else day


def comparable(text: str, boundary: str) -> bool:
    """Whether the formats of two texts let them sort by time.

    Args:
        text: A value of the column.
        boundary: A boundary of the split.

    Returns:
        True as well for a boundary that is neither a date nor a number.
    """
    if re.fullmatch(r"\d+", boundary) and re.fullmatch(r"\d+", text):
        return len(boundary) == len(text) or (
            compact_day(boundary[:8]) is not None and compact_day(text[:8]) is not None
        )
    loose = YEAR_LAST.fullmatch(boundary) is not None or _UNPADDED.fullmatch(boundary) is not None
    if not (loose or _is_dated(boundary) or re.fullmatch(r"\d+", boundary)):
        return True
    core = boundary if loose else _without_zeros(boundary)
    text_format, core_format = (re.sub(r"\d", "0", t) for t in (text, core))
    if loose and text_format[len(core_format) :][:1] == "0":  # another number of digits
        return False
    same_format = text_format.startswith(core_format) or (
        core_format.startswith(text_format) and _is_dated(text)
    )
    return _same_offset(text, boundary) and same_format


def _is_dated(text: str) -> bool:
    return is_time(text) or _YEAR_FIRST.fullmatch(text) is not None


def in_format_of(text: str, boundary: str) -> str:
    """Write a boundary's date in the format of another text.

    Args:
        text: The text with the format.
        boundary: The boundary.

    Returns:
        The date; empty if the boundary is no date, or has this format already.
    """
    is_iso = re.match(r"\d{4}-\d\d-\d\d", boundary) and is_time(boundary)
    day = compact_day(boundary[:8]) or (date.fromisoformat(boundary[:10]) if is_iso else None)
    if day is None:
        return ""
    iso = re.match(r"\d{4}-\d\d-\d\d", text)
    written = day.strftime("%Y%m%d") if compact_day(text[:8]) else day.isoformat() if iso else ""
    return "" if written == boundary else written


class YearLastDates:
    """Collects dates such as 05.01.2026 and checks that their order as text is their order in
    time.
    """

    def __init__(self) -> None:
        self._seen: tuple[set[int], set[int], set[int]] = set(), set(), set()

    def add(self, text: str) -> bool:
        """Add a date; returns whether this date and all earlier ones sort by time, in either order
        of day and month.
        """
        match = YEAR_LAST.fullmatch(text)
        if match is None:
            return True
        for numbers, group in zip(self._seen, (1, 3, 4), strict=True):
            numbers.add(int(match[group]))
        return self._sort_by_time

    def update(self, other: YearLastDates) -> bool:
        """Add all dates of ``other``; returns whether all dates sort by time."""
        for numbers, others in zip(self._seen, other._seen, strict=True):
            numbers |= others
        return self._sort_by_time

    @property
    def _sort_by_time(self) -> bool:
        first, second, years = self._seen
        month_first = max(second, default=0) > 12
        return len(years) < 2 and (month_first or len(first) < 2 or len(second) < 2)
