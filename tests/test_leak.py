"""No leak, end to end: logs with a planted fact that equals the label, prepared, loaded and scored.

Every column is hashed, so that a planted row changes no vocabulary: scores differ only if the model
saw something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.models import build_model
from hemix.preparation import prepare
from hemix.settings import build_settings

DAY_MS = 86_400_000
START_MS = 1_767_571_200_000  # 2026-01-05 00:00 UTC
T_MS = START_MS + 2 * DAY_MS + DAY_MS // 2
"""The request that must not see its own label."""

SCHEMA = """
name: leak
tables: {{{tables}}}
{valid_from}
features:
  user: {{user_id: {{type: categorical, hash: {{rows: 64}}}}}}
  item:
    item_id: {{type: categorical, hash: {{rows: 64}}}}
    state: {{type: categorical, hash: {{rows: 64}}}}
history: {{action: {{column: action, hash: {{rows: 16}}}}, delay: {delay}, item_features: [item_id,
  state]}}
labels: {{click: {{{label}}}}}
split: {{valid: 2026-01-06, test: 2026-01-07}}
"""


def write_rows(
    path: Path, types: dict[str, pa.DataType], rows: Sequence[tuple[object, ...]]
) -> None:
    columns = zip(*rows, strict=True)
    names = zip(types.items(), columns, strict=True)
    pq.write_table(pa.table({name: pa.array(c, kind) for (name, kind), c in names}), path)


def scores(
    folder: Path,
    *,
    events: list[tuple[str, str, int | None, str]] | None,
    items: list[tuple[str, str, int]] | None = None,
    known_at_ms: int | None = None,
    delay: str = "0s",
) -> float:
    """The score of user ``u``'s impression of item ``a`` at T."""
    folder.mkdir()
    days = [START_MS + d * DAY_MS for d in range(3)]
    shown: list[tuple[str, str, int, int, int | None]] = [
        (u, "a", t + 1000, int(u == "v"), None) for t in days for u in ("v", "w")
    ]
    shown.append(("u", "b", T_MS - 3_600_000, int(known_at_ms is not None), known_at_ms))
    shown.append(("u", "a", T_MS, 1, None))
    who = {"user_id": pa.string(), "item_id": pa.string(), "time_ms": pa.int64()}
    types = {**who, "click": pa.int8(), "known_ms": pa.int64()}
    write_rows(folder / "impressions.parquet", types, shown)
    tables = []
    if events is not None:
        old = [("u", "a", START_MS - DAY_MS, "view"), ("v", "b", START_MS - DAY_MS, "view")]
        write_rows(folder / "events.parquet", {**who, "action": pa.string()}, [*old, *events])
        tables.append("events: events.parquet")
    types = {"item_id": pa.string(), "state": pa.string(), "since_ms": pa.int64()}
    write_rows(folder / "items.parquet", types, items or [("a", "old", 0), ("b", "old", 0)])
    tables.append("items: items.parquet")
    (folder / "schema.yaml").write_text(
        SCHEMA.format(
            tables=", ".join(tables),
            valid_from="valid_from: since_ms" if items else "",
            delay=delay,
            label="available_at: known_ms" if known_at_ms is not None else "",
        )
    )
    prepare(folder, folder / "data")
    data = Dataset(folder / "data")
    test = data.split("test")
    model = build_model(
        data.spec, build_settings(overrides={"model.embedding_init_std": 1.0}).model, seed=3
    ).eval()
    requests = np.flatnonzero(test.time_ms.read() == T_MS)
    assert len(requests) == 1
    batch = test.batch(requests)
    batch.validate(data.spec)
    return float(model.predict(batch)["click"])


@pytest.fixture
def score(tmp_path: Path) -> Any:
    made = iter(range(100))
    return lambda **logs: scores(tmp_path / str(next(made)), **logs)


@pytest.mark.parametrize("late_ms", [0, 1, 1000, DAY_MS])
def test_leak_an_event_at_or_after_the_request_changes_nothing(score: Any, late_ms: int) -> None:
    assert score(events=[("u", "a", T_MS + late_ms, "click")]) == score(events=[])


def test_leak_one_millisecond_before_the_request_is_seen(score: Any) -> None:
    assert score(events=[("u", "a", T_MS - 1, "click")]) != score(events=[])


def test_leak_the_event_of_another_user_changes_nothing(score: Any) -> None:
    assert score(events=[("v", "a", T_MS - 1, "click")]) == score(events=[])


def test_leak_a_delayed_event_changes_nothing_until_it_has_arrived(score: Any) -> None:
    nothing = score(events=[], delay="1min")
    assert score(events=[("u", "a", T_MS - 60_000, "click")], delay="1min") == nothing
    assert score(events=[("u", "a", T_MS - 60_001, "click")], delay="1min") != nothing


def test_leak_the_impression_itself_is_not_its_own_event(score: Any) -> None:
    """The impressions are the events, and the label of the request at T is 1: known at T at the
    earliest.
    """
    never = score(events=None, known_at_ms=T_MS + DAY_MS)
    assert never == score(events=None, known_at_ms=T_MS + 1)


def test_leak_a_label_counts_from_the_moment_it_was_known(score: Any) -> None:
    later = score(events=None, known_at_ms=T_MS + 1)
    assert score(events=None, known_at_ms=T_MS) == later
    assert score(events=None, known_at_ms=T_MS - 1) != later


def test_leak_a_table_row_holds_from_its_moment_on(score: Any) -> None:
    before = score(events=[], items=[("a", "old", 0), ("b", "old", 0)])
    assert (
        score(events=[], items=[("a", "old", 0), ("a", "clicked", T_MS + 1), ("b", "old", 0)])
        == before
    )
    assert (
        score(events=[], items=[("a", "old", 0), ("a", "clicked", T_MS), ("b", "old", 0)]) != before
    )


def test_leak_an_event_carries_the_item_as_it_was_then(score: Any) -> None:
    """Item ``b`` changed after the event but before the request: the event keeps the old state."""
    event = [("u", "b", T_MS - 10_000, "click")]
    before = score(events=event, items=[("a", "old", 0), ("b", "old", 0)])
    assert (
        score(events=event, items=[("a", "old", 0), ("b", "old", 0), ("b", "new", T_MS - 9_999)])
        == before
    )
    assert (
        score(events=event, items=[("a", "old", 0), ("b", "old", 0), ("b", "new", T_MS - 10_000)])
        != before
    )
