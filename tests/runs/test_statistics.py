"""A run folder's statistics: raw values and its files give the numbers of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.clock import local_day
from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.data.keys import keys_of
from hemix.data.levels import level_features
from hemix.data.raw_columns import RawColumn, Where
from hemix.errors import DataError
from hemix.features.statistics import prior_rate, rates_and_counts
from hemix.runs.folder import Run, begin
from tests.planted import DAY_MS, START_MS
from tests.refusals import raises


def test_raw_values_give_the_numbers_of_training(
    rich_logs: Path, rich_data: Path, rich_run: Path
) -> None:
    """Every test impression, from its row of the log, the run's encoders and the run's tables."""
    run, encoders = Run.load(rich_run), Encoders.load(rich_run / "encoders")
    statistics, split = run.statistics(), Dataset(rich_data).split("test")
    shown = pq.read_table(rich_logs / "impressions.parquet").take(split.log_row.read())
    time_ms = shown.column("time_ms").to_numpy()
    number = {
        level: [int(v[1:]) for v in shown.column(f"{level}_id").to_pylist()]
        for level in ("user", "item")
    }
    user_row = [
        2 * n + int(t >= START_MS + DAY_MS) for n, t in zip(number["user"], time_ms, strict=True)
    ]
    tables = {
        "user": pq.read_table(rich_logs / "users.parquet").take(user_row),
        "item": pq.read_table(rich_logs / "items.parquet").take(number["item"]),
        "context": shown,
        "cross": shown,
    }

    def raw_column(level: str, name: str) -> RawColumn | None:
        table = tables[level]
        columns = {column: table.column(column).combine_chunks() for column in table.column_names}
        return level_features(run.schema, level)[name].read(
            name, columns, len(time_ms), Where("log")
        )

    coordinates = {
        f"{level}.place": np.asarray(raw_column(level, "place")) for level in ("context", "item")
    }
    keys = {part: keys_of(shown.column(f"{part}_id").combine_chunks()) for part in ("user", "item")}
    for part in {p for s in run.schema.statistics.values() for p in s.by} - {"user", "item"}:
        level, _, name = part.partition(".")
        keys[part] = encoders.keys(
            level,
            name,
            raw_column(level, name),
            len(time_ms),
            time_ms=time_ms,
            coordinates=coordinates,
        )
    day = local_day(time_ms, run.schema.clock.timezone)

    rows = np.arange(split.impressions)
    batch = split.batch(np.arange(split.requests))
    context = batch.context.numbers[batch.request_index].numpy()
    for level, stored in (("context", context), ("cross", batch.cross.numbers.numpy())):
        names = run.schema.statistics_of(level)
        at = [i for name in names for i in getattr(run.spec, level).numbers_of(name)]
        numbers = statistics.numbers(level, keys, day)
        assert len(rows) > 30 and (numbers != 0).mean() > 0.5
        assert (numbers == stored[:, at]).all()


def test_statistics_of_an_unseen_user_and_of_a_day_after_the_log(rich_run: Path) -> None:
    statistics = Run.load(rich_run).statistics()
    table = statistics.tables["of_user"]
    keys = np.array([table.keys[-1], 12345], np.uint64)
    far = np.array([40_000])
    newest, nothing = rates_and_counts(
        table.known_before(keys, far), prior_rate(table.all_before(far)), table.smoothing
    )
    assert newest[1] == np.log1p(table.counts[-1, 0], dtype=np.float32)
    assert nothing.tolist() == [0.0, 0.0]


def test_damaged_and_missing_tables_are_refused_by_name(
    rich_run: Path, rich_data: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(rich_run, tmp_path / "run")
    path = run / "statistics" / "of_item.counts.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with raises(DataError, code="damaged_file", field=path):
        Run.load(run).statistics()
    path.unlink()
    with raises(DataError, code="missing_file", field=path):
        Run.load(run).statistics()

    data = shutil.copytree(rich_data, tmp_path / "data")
    missing = data / "statistics" / "of_far.days.npy"
    missing.unlink()
    dataset = Dataset(data)
    with raises(DataError, code="missing_file", field=missing):
        dataset.verify()
    with raises(DataError, code="missing_file", field=missing):
        begin(tmp_path / "new", Run.load(rich_run).settings, dataset)


def test_history_counts_equal_the_events_in_the_history_ranges(rich_data: Path) -> None:
    data = Dataset(rich_data)
    batch = data.split("test").batch(np.arange(8))
    names = [n for n in data.spec.context.number_names if n.startswith("history.")]
    actions = Encoders.load(rich_data / "encoders").actions
    assert sorted(actions) == ["a0", "a1", "a2"]
    assert names[:2] == ["history.today", "history.before"] and names[2:] == [
        *(f"history.today.{a}" for a in actions),
        *(f"history.before.{a}" for a in actions),
    ]
    numbers = np.expm1(
        batch.context.numbers[:, data.spec.context.numbers_of("history")].double().numpy()
    )
    texts = pa.array(["unknown", "missing", *actions])
    for q, (first, middle, end) in enumerate(batch.history_ranges.tolist()):
        seen = {
            part: texts.take(batch.event_ids[a:b, 0].numpy()).to_pylist()
            for part, (a, b) in {"today": (middle, end), "before": (first, middle)}.items()
        }
        expected = [
            len(seen["today"]),
            len(seen["before"]),
            *(seen[p].count(a) for p in ("today", "before") for a in actions),
        ]
        assert numbers[q].round(4).tolist() == expected
