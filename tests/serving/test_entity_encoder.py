"""Users and items with something said of them are encoded as if a log had said it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.layout import Block
from hemix.runs import Run
from hemix.serving.entity_encoder import EntityEncoder, EntityRows
from hemix.serving.field_validation import FieldValidator
from hemix.serving.request_encoder import RequestEncoder
from hemix.serving.types import Event, LiveFeatures
from tests.planted import DAY_MS, START_MS


@pytest.fixture(scope="module")
def run(rich_run: Path) -> Run:
    return Run.load(rich_run)


def encoder_of(run: Run, level: Any) -> EntityEncoder:
    return EntityEncoder(run.encoders(), run.entities(level), FieldValidator(run.schema))


def raw_rows(logs: Path, run: Run, level: str) -> list[dict[str, Any]]:
    """The rows of a level's table that hold at the end, without id and version."""
    own = {"user": run.schema.user, "item": run.schema.item}[level]
    last = {row[own]: row for row in pq.read_table(logs / f"{level}s.parquet").to_pylist()}
    return [
        {**{k: v for k, v in row.items() if k not in (own, "since_ms")}, "id": key}
        for key, row in last.items()
    ]


def features(block: Block, but: list[int]) -> list[Any]:
    """Every row's ids (but some columns), numbers and lists."""
    ids = np.delete(block.ids, but, axis=1)
    lists = [
        [array.values[a:b].tolist() for a, b in itertools.pairwise(array.offsets)]
        for array in block.jagged
    ]
    return [
        (ids[i].tolist(), block.numbers[i].round(5).tolist(), [column[i] for column in lists])
        for i in range(len(ids))
    ]


def same(a: EntityRows, b: EntityRows, own: list[int], own_keys: Sequence[int] = ()) -> bool:
    """``own``, ``own_keys``: the columns of the raw id, which are not compared."""
    keys = [column for column in range(a.keys.shape[1]) if column not in own_keys]
    return (
        features(a.block, own) == features(b.block, own)
        and np.allclose(a.coordinates, b.coordinates, equal_nan=True)
        and (a.keys[:, keys] == b.keys[:, keys]).all()
        and np.allclose(a.raw, b.raw, equal_nan=True)
    )


@pytest.mark.parametrize("level", ["user", "item"])
def test_a_table_rows_features_sent_for_other_ids(rich_logs: Path, run: Run, level: str) -> None:
    """Known and unknown ids of whom everything is said that the table says of somebody: they differ
    by their id alone.
    """
    encoder = encoder_of(run, level)
    rows = raw_rows(rich_logs, run, level)
    ids = [row.pop("id") for row in rows]
    late = np.full(len(ids), START_MS + 9 * DAY_MS)
    at = encoder.rows_at(encoder.numbers(pa.array(ids)), late)
    table = encoder.encode(ids, at, [{}] * len(ids))
    own = [getattr(run.spec, level).names.index(f"{level}_id")]
    own_keys = [i for i, n in enumerate(encoder.key_names) if n == f"{level}.{level}_id"]

    turned = encoder.encode([*ids[1:], ids[0]], np.roll(at, -1), rows)
    assert same(turned, table, own, own_keys)
    rolled = np.roll(table.keys[:, own_keys], -1, axis=0)
    assert (turned.keys[:, own_keys] == rolled).all()
    assert (turned.block.ids[:, own] == np.roll(table.block.ids[:, own], -1, axis=0)).all(), (
        "an id is nobody else's"
    )

    strangers = encoder.encode(
        [f"stranger{n}" for n in range(len(ids))], np.full(len(ids), -1), rows
    )
    assert same(strangers, table, own, own_keys) and (strangers.block.ids[:, own] == 0).all()


def test_one_new_coordinate_leaves_the_other(rich_logs: Path, run: Run) -> None:
    encoder = encoder_of(run, "item")
    row = next(
        r for r in raw_rows(rich_logs, run, "item") if r["lat"] is not None and r["lon"] is not None
    )
    at = encoder.rows_at(encoder.numbers(pa.array([row["id"]])), np.array([START_MS]))
    moved = encoder.encode([row["id"]], at, [{"lat": 31.25}])
    assert moved.coordinates[0].tolist() == pytest.approx([31.25, row["lon"]])
    gone = encoder.encode([row["id"]], at, [{"lat": None}])
    assert np.isnan(gone.coordinates[0]).all()


def test_with_versions_new_item_features_change_later_events_alone(run: Run) -> None:
    """As hemix prepare would have it, were the item's row of that time in the table."""
    encoder = RequestEncoder(
        run.encoders(),
        run.statistics(),
        run.entities("user"),
        run.entities("item"),
        FieldValidator(run.schema),
    )
    events = [
        Event(
            id=str(n), kind="interaction", time_ms=START_MS + n, user="u1", item=item, action="a1"
        )
        for n, item in enumerate(("i3", "new", "i3", "new"))
    ]
    features = LiveFeatures(5, {"category": "c4"}, START_MS + 2)
    plain = encoder.user_side("u1", 0, {}, events, {})
    changed = encoder.user_side("u1", 0, {}, events, {"i3": features, "new": features})
    column = run.spec.item.names.index("category")
    before, after = (side.items.ids[side.item_index, column].tolist() for side in (plain, changed))
    c4 = after[2]
    assert c4 not in (before[0], 1) and before == [before[0], 1, before[0], 1], (
        "an item that nobody knows has no category"
    )
    assert after == [before[0], c4, c4, c4], (
        "it holds from its time on; of an unknown item nothing else is known"
    )
