"""Numbers and names as a reader expects them, and the glossary of a report."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeGuard

__all__ = [
    "BASELINE_NAMES",
    "FILTERS",
    "GLOSSARY",
    "MISSING",
    "MODEL_NAMES",
    "RULES",
    "SLICE_TITLES",
    "article",
    "count",
    "duration",
    "is_number",
    "percent",
    "points",
    "size",
    "slice_name",
    "words",
]

MODEL_NAMES = {
    "hemix": "HeMix",
    "lightgbm": "LightGBM",
    "dlrm": "DLRM",
    "dcnv2": "DCN-V2",
    "din": "DIN",
    "sim": "SIM",
    "wukong": "Wukong",
    "rankmixer": "RankMixer",
    "onetrans": "OneTrans",
    "longer": "LONGER",
    "hyformer": "HyFormer",
    "tokenmixer": "TokenMixer-Large",
    "hstu": "HSTU",
}

BASELINE_NAMES = {
    "popularity": "popularity",
    "position": "position alone",
    "touched_before": "touched before",
}
"""Rules that are learned from train in a moment. A model should beat them."""

RULES = {
    "popularity": "ranking by popularity alone",
    "position": "ranking by the position alone",
    "touched_before": "a rule of last match, match counts and position",
}
"""Baselines in a sentence."""

SLICE_TITLES = {
    "history_length": "Events in the user’s history",
    "realtime_length": "Events in the real-time window",
    "user": "User in the training data",
    "item": "Item in the training data",
    "masked": "Scored again without this, as for a new user or item",
}

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "AUC",
        "The chance that a positive impression scores above a negative one; ties count half. 0.5 "
        "is chance, 1 perfect.",
    ),
    (
        "GAUC",
        "AUC within each user, averaged by impressions, over the users who have both a positive "
        "and a negative. The table also shows what percentage of impressions they cover. By "
        "positives: each of these users weighs as many as their positives.",
    ),
    (
        "nDCG@10",
        "How near to the top of each list its positives are: 1 when they come first. A list is a "
        "request, or all impressions of a user. Lists with a positive and more than one candidate.",
    ),
    (
        "MRR, hit rate, recall",
        "MRR: the mean of 1 / rank of a list’s first positive. Hit rate@10: how often a positive "
        "is among the first ten. Recall@10: the fraction of a list’s positives there. Equal scores "
        "count as the mean over their orders.",
    ),
    ("log loss", "The mean of −log p of what happened, in nats. Lower is better."),
    (
        "NE",
        "Log loss over that of always predicting the average rate. Below 1 the model is better "
        "than that.",
    ),
    (
        "PCOC",
        "The sum of predictions over the number of positives. Above 1 the model predicts too many.",
    ),
    (
        "ECE",
        "How far prediction and observed rate lie apart, on average over ten bins of equal size. "
        "The floor is what a perfectly calibrated model with these predictions would show by "
        "chance.",
    ),
    (
        "interval",
        "95 %, from resampling users, because the impressions of one user are not independent.",
    ),
    (
        "popularity",
        "Ranks by the smoothed rate of the item in the training data, the same for all users.",
    ),
    (
        "position alone",
        "Ranks by the smoothed rate of the logged position in the training data. A server does not "
        "know it, so it tells what the log’s order explains.",
    ),
    (
        "touched before",
        "A logistic rule, fitted on the training data, of how often and how recently the user’s "
        "history had the candidate’s item or item features, and of the position.",
    ),
    (
        "oracle",
        "Ranks by the probabilities that the simulation drew the labels from. Only simulated data "
        "has one, and no model can expect to beat it.",
    ),
)

MISSING = "–"
"""Stands for a value that is not there."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a finite int or float (a bool is not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count(value: float | None) -> str:
    """``1,234``; from a million on ``1.23 M``."""
    if value is None:
        return MISSING
    for unit, size_of in (("G", 1e9), ("M", 1e6)):
        if abs(value) >= size_of:
            return f"{value / size_of:.3g} {unit}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def fixed(value: float | None, digits: int = 4) -> str:
    """Format a number with a fixed precision.

    Args:
        value: The number; None for a value that is not there.
        digits: Decimal places.

    Returns:
        The text.
    """
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int | None = None) -> str:
    """Format a fraction in percent.

    Args:
        value: From 0 to 1; None for a value that is not there.
        digits: Decimal places; by default as many as show two significant digits.

    Returns:
        The text.
    """
    if value is None:
        return MISSING
    hundredfold = 100 * value
    if digits is None:
        digits = 1 if hundredfold >= 10 else 2 if hundredfold >= 0.1 or hundredfold == 0 else 3
    return f"{hundredfold:.{digits}f}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    """A difference of two fractions in percentage points."""
    return f"{100 * value:.2f} points"


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float) -> str:
    """Bytes in MiB or GiB."""
    mebi = value / 2**20
    return f"{mebi / 1024:.2f} GiB" if mebi >= 1024 else f"{mebi:.0f} MiB"


def words(name: str) -> str:
    """``order_given_click`` as ``order given click``."""
    return name.replace("_", " ")


def article(name: str) -> str:
    """``a click``, ``an order``."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {words(name)}"


def slice_name(dimension: str, name: str) -> str:
    """Write a slice's name in words: ``none``, ``10–99``, ``1000 or more``.

    Args:
        dimension: That the slice belongs to, such as ``history_length``.
        name: The slice in metrics.json, such as ``1000+``.

    Returns:
        The text.
    """
    if dimension in ("history_length", "realtime_length"):
        return "none" if name == "0" else name.replace("-", "–").replace("+", " or more")
    return words(name)


FILTERS: dict[str, Callable[..., Any]] = {
    "count": count,
    "fixed": fixed,
    "percent": percent,
    "words": words,
}
