"""Synthetic batches and logs have the shape that their sizes say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hemix.errors import StorageError
from hemix.lab.benchmarks import synthetic_logs
from hemix.lab.benchmarks.workload import REALTIME_EVENTS, SPEC, Workload, make_batch

DAY_MS = 86_400_000
SIZE = {"impressions": 2_000, "events": 4_000, "users": 50, "items": 40}


@pytest.mark.parametrize(("length", "realtime"), [(30, 3), (1_000, REALTIME_EVENTS)])
def test_a_tenth_of_a_short_history_is_in_real_time(length: int, realtime: int) -> None:
    batch = make_batch(Workload(users=2, impressions_per_user=3, history_length=length))
    begin, middle, end = batch.history_ranges.unbind(1)
    assert set((end - middle).tolist()) == {realtime}
    assert set((end - begin).tolist()) == {length}


def test_sizes_multiply_and_events_overlap() -> None:
    """A user of 3 requests that see 20 events each has 22 events; each request sees one more."""
    load = Workload(users=2, impressions_per_user=3, candidates=4, history_length=20)
    batch = make_batch(load)
    batch.validate(SPEC)
    assert load.impressions == batch.candidates_count == 24
    assert batch.event_offsets.tolist() == [0, 22, 44]
    assert batch.history_ranges[:, 0].tolist() == [0, 1, 2, 22, 23, 24]
    assert batch.request_index.tolist() == [n // 4 for n in range(24)]
    for first in (0, 22):
        times = batch.event_time_ms[first : first + 22]
        assert times.tolist() == sorted(times.tolist())
    assert (batch.labels[:, 1] <= batch.labels[:, 0]).all()  # type: ignore[index]


def test_items_are_heavy_tailed_and_stored_once() -> None:
    batch = make_batch(Workload(users=20, candidates=50, history_length=500))
    item_ids = batch.items.ids[:, 0]
    assert len(torch.unique(item_ids)) == len(item_ids)
    seen = item_ids[batch.event_item]
    assert (seen < SPEC.tables["item_id"] // 8).float().mean() > 0.4  # uniform: 0.125


def test_a_seed_names_a_batch() -> None:
    load = Workload(users=2, history_length=20)
    first, again, other = (make_batch(load, seed) for seed in (1, 1, 2))
    assert torch.equal(first.event_ids, again.event_ids)
    assert torch.equal(first.items.numbers, again.items.numbers)
    assert not torch.equal(first.event_ids, other.event_ids)


def table(folder: Path, name: str) -> dict[str, np.ndarray]:
    rows = pq.read_table(folder / f"{name}.parquet")
    return {column: rows[column].to_numpy(zero_copy_only=False) for column in rows.column_names}


def test_requests_have_ten_candidates_of_one_context(tmp_path: Path) -> None:
    synthetic_logs.write_logs(tmp_path, **SIZE, seed=0)
    shown = table(tmp_path, "impressions")
    requests = shown["request_id"].reshape(-1, 10)
    assert (requests == requests[:, :1]).all() and len(np.unique(requests)) == 200
    for column in ("user_id", "device", "latitude", "longitude", "time_ms"):
        values = shown[column].reshape(-1, 10)
        assert (values == values[:, :1]).all(), column
    assert shown["position"].tolist() == list(range(10)) * 200
    assert (np.diff(shown["time_ms"]) >= 0).all()
    assert (shown["order"] <= shown["click"]).all()
    assert 0.04 < shown["click"].mean() < 0.12
    ordered = shown["order"] == 1
    known = shown["order_time_ms"]
    assert np.isnan(known[~ordered]).all()
    assert (known[ordered] >= shown["time_ms"][ordered]).all()
    assert (known[ordered] < shown["time_ms"][ordered] + 2 * DAY_MS).all()


def test_events_begin_months_before_the_impressions(tmp_path: Path) -> None:
    synthetic_logs.write_logs(tmp_path, **SIZE, seed=0)
    shown, events = table(tmp_path, "impressions"), table(tmp_path, "events")
    assert len(events["time_ms"]) == SIZE["events"]
    first, last = (values["time_ms"] for values in (events, shown))
    assert last.min() - first.min() == pytest.approx(120 * DAY_MS, rel=0.02)
    assert set(events["action"]) <= {"view", "click", "order", "search"}
    assert set(events["item_id"]) <= set(table(tmp_path, "items")["item_id"])


def test_blocks_have_the_same_times_and_requests_as_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the random draws depend on the blocks."""
    synthetic_logs.write_logs(tmp_path / "one", **SIZE, seed=0)
    monkeypatch.setattr(synthetic_logs, "_BLOCK_ROWS", 700)
    synthetic_logs.write_logs(tmp_path / "blocks", **SIZE, seed=0)
    one, blocks = (table(tmp_path / name, "impressions") for name in ("one", "blocks"))
    for column in ("request_id", "position", "time_ms"):
        assert one[column].tolist() == blocks[column].tolist()
    assert pq.ParquetFile(tmp_path / "blocks" / "events.parquet").num_row_groups == 6


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        synthetic_logs.write_logs(tmp_path / "file" / "logs", **SIZE, seed=0)
