"""What ``hemix score`` says of its rows."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["scoring_notes"]


def scoring_notes(counts: Mapping[str, int], *, has_history: bool) -> list[str]:
    """Return what a user should know of the rows, a line each.

    Args:
        counts: The counts of :func:`hemix.score`.
        has_history: Whether events or a store were given.
    """
    rows = counts["rows"]
    texts = {
        "without_score": "have no score: a column of the score is missing, or its value not finite",
        "unknown_items": "have an item that neither the run nor --items knows",
        "unknown_users": "have a user that neither the run nor --users knows",
        "cut_histories": "lack early events: their users have too many events after the request",
    }
    notes = [
        f"noted: {counts[name]:,} of {rows:,} rows {text}"
        for name, text in texts.items()
        if counts[name]
    ]
    if not has_history:
        notes.append("noted: all histories are empty: neither --events nor --store is given")
    return notes
