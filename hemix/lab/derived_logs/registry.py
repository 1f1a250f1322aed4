"""The derived logs by name."""

from __future__ import annotations

from pathlib import Path

from hemix.errors import UsageError
from hemix.lab.datasets.logs_writer import create_logs
from hemix.lab.derived_logs.anonymous_requests import AnonymousRequests
from hemix.lab.derived_logs.daily_items import DailyItems
from hemix.lab.derived_logs.derivation import Derivation
from hemix.lab.derived_logs.drawn_negatives import DrawnNegatives
from hemix.lab.derived_logs.long_lists import LongLists
from hemix.lab.derived_logs.small_log import SmallLog
from hemix.lab.derived_logs.unseen_items import UnseenItems
from hemix.lab.derived_logs.untimed_history import UntimedHistory
from hemix.validation import unknown_name

__all__ = ["DERIVATIONS", "derive_logs"]

DERIVATIONS: dict[str, type[Derivation]] = {
    "daily_items": DailyItems,
    "small_log": SmallLog,
    "long_lists": LongLists,
    "untimed_history": UntimedHistory,
    "anonymous_requests": AnonymousRequests,
    "drawn_negatives": DrawnNegatives,
    "unseen_items": UnseenItems,
}
"""By the name of the log"""


def derive_logs(
    name: str, logs: Path, out: Path, *, max_rows: int | None = None, seed: int = 0
) -> dict[str, int]:
    """Make a log of a special kind from other logs.

    Args:
        name: A key of :data:`DERIVATIONS`.
        logs: The logs folder to make it from.
        out: The folder to create. An error leaves no folder behind.
        max_rows: Most impressions of ``logs`` to use, by whole users; by default the kind's own.
        seed: Of all draws. The same logs and seed give the same rows.

    Returns:
        The number of rows written, by table.

    Raises:
        UsageError: The name is unknown, ``out`` is not empty, ``max_rows`` is below 1, or the logs
            are of a kind that it cannot use.
        DataError: A table is missing or malformed.
        SchemaError: The schema is missing or wrong.
        StorageError: ``out`` cannot be written.
    """
    if name not in DERIVATIONS:
        raise unknown_name(f"derive {name}: unknown log", DERIVATIONS)
    derivation = DERIVATIONS[name]()
    rows = derivation.max_rows if max_rows is None else max_rows
    if rows < 1:
        raise UsageError(f"--max-rows: expected 1 or more, got {rows}", field="--max-rows")
    with (
        create_logs(Path(out)) as writer,
        derivation.open(Path(logs), max_rows=rows, seed=seed) as source,
    ):
        derivation.write(source, writer, name)
    return dict(writer.rows)
