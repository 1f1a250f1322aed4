"""Days and times as text: whether the order of two texts is the order of what they mean, and what a
boundary compares as.
"""

from __future__ import annotations

import re
from datetime import date, datetime

from hemix.moments import offset_of

__all__ = ["YEAR_LAST", "YearLast", "compact_day", "comparable", "is_time", "like", "lower_bound"]

_YEAR_FIRST = re.compile(r"(?:19|20)\d\d([-/.])\d\d(?:\1\d\d(?:\D\d.*)?)?")
_UNPADDED = re.compile(r"(?:19|20)\d\d([-/.])(?:\d\1\d\d?|\d\d\1\d)(?:\D.*)?")
"""2026-1-6: above 2026-1-10 as text"""
_DAY_AND_TIME = re.compile(r"(\d{4}([-/.]?)\d\d\2\d\d)(\D)(\d.*)")
YEAR_LAST = re.compile(r"(\d\d?)([-/.])(\d\d?)\2(\d{4})(?:\D.*)?")
"""05.01.2026 or 01/05/2026: its order as text is that of what it means within a month, or a year,
at most
"""


def is_time(text: str) -> bool:
    """Whether it is a date or time in ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def compact_day(value: object) -> date | None:
    """20260131, a number or text, as a day."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    try:
        return datetime.strptime(text, "%Y%m%d").date() if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None


def _same_offset(text: str, mark: str) -> bool:
    """Whether neither has another offset than the other, however UTC's is written."""
    offsets = {o if o.strip("+-0:") else "Z" for o in map(offset_of, (text, mark)) if o is not None}
    return len(offsets) < 2


def lower_bound(mark: str) -> str:
    """The text that all texts of the mark's moment and of later ones are equal to or above, and no
    earlier one is.

    A moment may be written in several lengths, and the shorter one comes first: ``2026-01-06`` is
    below ``2026-01-06T00:00:00``. So the bound has neither the mark's offset nor the zeros at its
    end.
    """
    core = _without_zeros(mark)
    first = re.fullmatch(r"(\d{4}([-/.])\d\d)(?:\2)01", core)
    return first[1] if first else core


def _without_zeros(mark: str) -> str:
    """A day and time without its offset and without hours, minutes and seconds that are 0 up to its
    end; other text stays.
    """
    if re.fullmatch(r"\d+", mark) and len(mark) % 2 == 0 and compact_day(mark[:8]) is not None:
        day, separator, time = mark[:8], "", mark[8:]
    else:
        found = _DAY_AND_TIME.fullmatch(mark.removesuffix(offset_of(mark) or ""))
        if found is None:
            return mark
        day, separator, time = found[1], found[3], found[4]
    if re.search(r"[.,]\d+$", time):
        time = time.rstrip("0").rstrip(".,")
    while time.endswith("00"):
        time = time[:-2].rstrip(":")
    return f"{day}{separator}{time}" if time else day


def comparable(text: str, mark: str) -> bool:
    """Whether the order of two texts is the order of what they mean, as far as their forms tell."""
    if re.fullmatch(r"\d+", mark) and re.fullmatch(r"\d+", text):
        return len(mark) == len(text) or (
            compact_day(mark[:8]) is not None and compact_day(text[:8]) is not None
        )
    loose = YEAR_LAST.fullmatch(mark) is not None or _UNPADDED.fullmatch(mark) is not None
    if not (loose or _is_dated(mark) or re.fullmatch(r"\d+", mark)):
        return True
    forms = [re.sub(r"\d", "0", t) for t in (text, mark if loose else _without_zeros(mark))]
    if loose and forms[0][len(forms[1]) :][:1] == "0":  # another number of digits
        return False
    alike = forms[0].startswith(forms[1]) or (forms[1].startswith(forms[0]) and _is_dated(text))
    return _same_offset(text, mark) and alike


def _is_dated(text: str) -> bool:
    return is_time(text) or _YEAR_FIRST.fullmatch(text) is not None


def like(mark: str, text: str) -> str:
    """The day ``mark`` in the form of ``text``; empty where it is no day, or written so already."""
    day = compact_day(mark[:8]) or (
        date.fromisoformat(mark[:10])
        if re.match(r"\d{4}-\d\d-\d\d", mark) and is_time(mark)
        else None
    )
    if day is None:
        return ""
    iso = re.match(r"\d{4}-\d\d-\d\d", text)
    written = day.strftime("%Y%m%d") if compact_day(text[:8]) else day.isoformat() if iso else ""
    return "" if written == mark else written


class YearLast:
    """Remembers days such as 05.01.2026, to tell whether their order as text is their order in
    time.
    """

    def __init__(self) -> None:
        self._seen: tuple[set[int], set[int], set[int]] = set(), set(), set()

    def sorts(self, text: str) -> bool:
        """Whether this one and all before it sort by time, whichever of day and month comes
        first.
        """
        found = YEAR_LAST.fullmatch(text)
        if found is None:
            return True
        for numbers, group in zip(self._seen, (1, 3, 4), strict=True):
            numbers.add(int(found[group]))
        first, second, years = self._seen
        month_first = max(second) > 12
        return len(years) == 1 and (month_first or len(first) == 1 or len(second) == 1)
