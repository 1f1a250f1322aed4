"""Logs to a dataset folder, in the order of the work.

    1  check the schema against the tables; nothing has been written yet
    2  number users and items                                  one pass over two columns
    3  read the user and item tables                           held in memory
    4  read the logs, check every value, spread rows by user   temporary files; numbers only
    5  part by part: drop duplicates, sort, group, count       what the encoders learn from
    6  learn the encoders
    7  add up the dated statistics by key and day               temporary files, then tables
    8  part by part: encode, append to shards and history
    9  write the manifest

Memory holds ids, the users' and items' features, the counts of values, and one part. The bytes of every array depend on the logs
and the schema alone, not on the size of the parts.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.cells import numbers_of
from hemix.data.encode import Encoders
from hemix.data.keys import KeyIndex
from hemix.data.layout import SPLITS, Appender, Block, load_array, save_array
from hemix.data.prepare.checks import Logs, open_logs
from hemix.data.prepare.entities import Entities, LogNumbers, number_log, save_ids
from hemix.data.prepare.equality import warn_of_equal_rows
from hemix.data.prepare.events import EventPass, HistoryWriter
from hemix.data.prepare.fit import Fitting
from hemix.data.prepare.growth import Earlier, grown
from hemix.data.prepare.impressions import ImpressionPass
from hemix.data.prepare.joins import Joins, Side
from hemix.data.prepare.label_rates import LabelRates
from hemix.data.prepare.manifest import (
    SCHEMA_VERSION,
    array_files,
    encoder_hashes,
    hemix_version,
    history_lengths,
    rates,
    split_summary,
)
from hemix.data.prepare.shards import ShardWriter
from hemix.data.prepare.spill import Rows, Spill, part_bounds, take_rows
from hemix.data.prepare.splits import Splitter
from hemix.data.prepare.statistics import StatisticsPass
from hemix.errors import SchemaError, StorageError, UsageError
from hemix.files import check_new_folder, new_folder, write_json, write_text
from hemix.schema import Schema

__all__ = ["MEMORY_ROWS", "Progress", "prepare"]

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]
"""Called with what is being done and how much of that is done, 0 to 1."""

MEMORY_ROWS = 500_000


def prepare(
    logs: str | Path,
    out: str | Path,
    *,
    schema: Schema | None = None,
    earlier: str | Path | None = None,
    forget_days: int | None = None,
    memory_rows: int = MEMORY_ROWS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the dataset folder ``out`` from the folder ``logs`` (schema.yaml and the tables it names); returns the manifest.

    ``earlier``: a dataset or run folder whose encoders these go on from (growth.py), its values forgotten when train rows have not
    held them for ``forget_days``. ``memory_rows``: about how many rows of a log are in memory at once. Raises UsageError (``out`` is
    there and not empty), SchemaError and DataError (naming file, column, row, expected and found) and StorageError (full disk);
    ``out`` appears whole or not at all.
    """
    began = time.monotonic()
    if memory_rows < 1:
        raise UsageError(f"memory_rows: expected at least 1, got {memory_rows}")
    out = Path(out)
    check_new_folder(out)
    if forget_days is not None and (earlier is None or forget_days < 1):
        raise UsageError(f"--forget-days {forget_days}: expected at least 1, together with --from")
    opened = open_logs(Path(logs), schema)
    goes_on = None if earlier is None else Earlier.load(earlier, opened.schema, forget_days)
    splitter = Splitter(
        opened.schema, opened.impressions.kind.field(opened.schema.split.column or opened.schema.clock.column).type,
        str(opened.impressions.path),
    )  # fmt: skip
    with new_folder(out) as folder:
        try:
            manifest = _Road(opened, splitter, folder, memory_rows, progress or (lambda _what, _done: None), goes_on).run()
        except StorageError as error:
            raise StorageError(str(error).replace(str(folder), str(out))) from error
        _warn(opened, manifest)
        manifest["seconds"] = round(time.monotonic() - began, 3)
        write_json(folder / "manifest.json", manifest)
    return manifest


def _warn(logs: Logs, manifest: dict[str, Any]) -> None:
    warn_of_equal_rows(logs.impressions.path, manifest["impressions"]["duplicates"], logs.impressions.rows)
    if logs.events is not None:
        warn_of_equal_rows(logs.events.path, manifest["history"]["duplicates"], logs.events.rows)


class _Road:
    def __init__(
        self, logs: Logs, splitter: Splitter, folder: Path, memory_rows: int, progress: Progress, earlier: Earlier | None
    ) -> None:
        self._logs, self._schema, self._splitter = logs, logs.schema, splitter
        self._folder, self._rows, self._progress = folder, memory_rows, progress
        self._temporary = folder / "temporary"
        self._fitting, self._earlier = Fitting(self._schema), earlier
        self._growth: dict[str, dict[str, int]] | None = None
        self._joins = Joins()
        self._user_index, self._item_index = KeyIndex(), KeyIndex()

    def run(self) -> dict[str, Any]:
        """Everything but the time it took."""
        self._temporary.mkdir()
        self._number()
        self._read_tables()
        self._impressions = ImpressionPass(self._logs, self._splitter, self._fitting, self._users, self._items)
        self._events = EventPass(self._logs, self._fitting, self._items)
        self._statistics = None if not self._schema.statistics else StatisticsPass(
            self._schema, self._users, self._items, (self._user_index, self._item_index), self._impressions.places
        )  # fmt: skip
        settled, history, kept = self._settle(*self._spread())
        encoders = self._learn()
        if self._statistics is not None:
            assert kept is not None
            self._statistics.build(
                kept, encoders, self._folder / "statistics", self._temporary / "sums",
                log_end_ms=self._impressions.span.log_end_ms, memory_rows=self._rows,
                log_rows=self._logs.impressions.rows, progress=self._progress,
            )  # fmt: skip
        user_block, item_block = self._users.encode(encoders), self._items.encode(encoders)
        self._save_tables(user_block, item_block, encoders)
        label_rates = LabelRates(self._schema, user_block, item_block)
        writers = self._write_shards(settled, encoders, label_rates)
        self._check_serving_position(writers)
        event_values, event_counts = self._write_history(history, encoders)
        shutil.rmtree(self._temporary)
        write_text(self._folder / "schema.yaml", self._schema.to_yaml())
        write_json(self._folder / "spec.json", encoders.spec().to_json())
        manifest = self._manifest(writers, {"user": user_block, "item": item_block}, event_values, event_counts)
        return {**manifest, "label_rates": label_rates.summary()}

    # -- 2, 3 --------------------------------------------------------------------------------------------------------------

    def _number(self) -> None:
        def number(table: Any) -> LogNumbers:
            self._progress(f"numbering {table.role.removeprefix('tables.')}", 0.0)
            folder = self._temporary / "numbers"
            return number_log(table, self._schema, self._user_index, self._item_index, folder, self._rows)

        self._impression_numbers = number(self._logs.impressions)
        self._shown_users, self._shown_items = len(self._user_index), len(self._item_index)
        self._event_numbers = None if self._logs.events is None else number(self._logs.events)

    def _read_tables(self) -> None:
        schema, fitting, logs = self._schema, self._fitting, self._logs
        self._progress("reading users and items", 0.0)
        self._users = Entities.build("user", logs.users, self._user_index, schema, fitting)
        self._items = Entities.build("item", logs.items, self._item_index, schema, fitting, logs.score_columns)
        self._joins.check(
            logs, self._impression_numbers, self._event_numbers,
            users=Side(entities=self._users, index=self._user_index, shown=self._shown_users),
            items=Side(entities=self._items, index=self._item_index, shown=self._shown_items),
        )  # fmt: skip
        tables = [t for t in (logs.impressions, logs.events) if t is not None]
        for name, column, index, own in (
            ("users", schema.user, self._user_index, logs.users),
            ("items", schema.item, self._item_index, logs.items),
        ):
            kinds = [kind for t in (*tables, *([] if own is None else [own])) if t.rows for kind in t.kinds_of(column)]
            save_ids(self._folder / "ids" / f"{name}.parquet", index, all(pa.types.is_integer(k) for k in kinds))

    # -- 4 -----------------------------------------------------------------------------------------------------------------

    def _spread(self) -> tuple[Spill, Spill | None]:
        users = len(self._user_index)
        bounds = part_bounds(_rows_per_user(self._impression_numbers, users, self._rows), self._rows)
        with Spill(self._temporary / "impressions", bounds) as impressions:
            self._impressions.partition(self._impression_numbers, impressions, self._rows, self._progress)
        if self._event_numbers is None:
            return impressions, None
        bounds = part_bounds(_rows_per_user(self._event_numbers, users, self._rows), self._rows)
        with Spill(self._temporary / "events", bounds) as events:
            self._events.partition(self._event_numbers, events, self._rows, self._progress)
        return impressions, events

    # -- 5 -----------------------------------------------------------------------------------------------------------------

    def _settle(self, impressions: Spill, events: Spill | None) -> tuple[Spill, Spill, Spill | None]:
        """(impressions, events, what statistics are made of)."""
        span, folder = self._impressions.span, self._temporary
        with ExitStack() as stack:
            settled = stack.enter_context(Spill(folder / "settled", impressions.bounds))
            history = stack.enter_context(Spill(folder / "history", (events or impressions).bounds))
            requests = stack.enter_context(Spill(folder / "requests", np.arange(len(impressions) + 1)))
            kept = None if self._statistics is None else stack.enter_context(Spill(folder / "kept", impressions.bounds))
            for part, raw in self._parts(impressions, "sorting impressions"):
                rows, everything = self._impressions.settle(raw)
                if events is None:
                    history.put(part, self._events.settle(self._events.of_impressions(everything), span))
                if self._statistics is not None and kept is not None:
                    kept.put(part, self._statistics.kept(everything))
                if rows is not None:
                    settled.put(part, rows)
                    self._keep_requests(rows, requests)
            if events is not None:
                for part, raw in self._parts(events, "sorting events"):
                    history.put(part, self._events.settle(self._events.cleaned(raw), span))
        for _, made in self._parts(requests, "checking requests"):
            self._impressions.check_users(*(np.asarray(made[n]) for n in ("request", "user", "log_row")))
        return settled, history, kept

    def _keep_requests(self, rows: Rows, requests: Spill) -> None:
        """Remember who made which request, by request: one id of two users is an error that no part of users can see."""
        if self._schema.roles.request_id is None:
            return
        first = take_rows({n: rows[n] for n in ("request", "user", "log_row")}, np.flatnonzero(rows["starts"]))
        requests.add(first, (np.asarray(first["request"]) % np.uint64(len(requests))).astype(np.int64))

    def _parts(self, spill: Spill, what: str) -> Iterator[tuple[int, Rows]]:
        for part in range(len(spill)):
            rows = spill.read(part)
            if rows is not None:
                yield part, rows
            self._progress(what, (part + 1) / len(spill))

    # -- 6 -----------------------------------------------------------------------------------------------------------------

    def _learn(self) -> Encoders:
        users, items = self._users, self._items
        self._fitting.count("user", users.cells, self._impressions.user_rows[0].astype(np.float64))
        self._fitting.count("item", items.cells, self._impressions.item_rows[0].astype(np.float64))
        encoders, texts = self._fitting.fit(self._user_index, self._item_index)
        now_ms = self._impressions.span.train_end_ms
        if self._earlier is not None:
            encoders, texts, self._growth = grown(encoders, texts, self._earlier, now_ms)
        else:
            seen = {name: np.full(len(known.keys), now_ms) for name, known in encoders.vocabularies.items()}
            encoders = dataclasses.replace(encoders, seen=seen)
        encoders.save(self._folder / "encoders", texts=texts)
        return encoders

    # -- 8 -----------------------------------------------------------------------------------------------------------------

    def _save_tables(self, user_block: Block, item_block: Block, encoders: Encoders) -> None:
        users, items, counted = self._users, self._items, self._impressions
        users.save(self._folder / "users", user_block, encoders)
        items.save(self._folder / "items", item_block, encoders)
        save_array(self._folder / "users" / "train_impressions.npy", users.by_number(counted.user_rows[0]))
        save_array(self._folder / "items" / "train_impressions.npy", items.by_number(counted.item_rows[0]))
        save_array(self._folder / "items" / "train_known.npy", counted.train_known.astype(np.float64))
        save_array(self._folder / "items" / "train_positives.npy", counted.train_positives.astype(np.float64))

    def _write_shards(self, settled: Spill, encoders: Encoders, label_rates: LabelRates) -> dict[int, ShardWriter]:
        truth = self._read_truth()
        writers = {number: ShardWriter(self._folder, split, truth=truth) for number, split in enumerate(SPLITS)}
        for _, rows in self._parts(settled, "writing impressions"):
            self._impressions.write(rows, encoders, writers, self._statistics, label_rates)
        for writer in writers.values():
            writer.close()
        return writers

    def _check_serving_position(self, writers: dict[int, ShardWriter]) -> None:
        """A server scores at one position: one that train never holds would have an untrained weight."""
        bias = self._schema.roles.bias
        seen = writers[0].bias_values
        if bias is not None and min(bias.serve_as, bias.max) not in seen:
            raise SchemaError(f"roles.bias.serve_as: {bias.serve_as} never occurs in column {bias.column!r} of the train rows "
                              f"({min(seen)} to {max(seen)}); name the position that a server scores at, for instance "
                              f"serve_as: {min(seen)}")  # fmt: skip

    def _read_truth(self) -> Array | None:
        """float64 [log rows, T], memory-mapped from a temporary file."""
        table = self._logs.truth
        if table is None:
            return None
        names = [f"p_{task}" for task in self._schema.tasks]
        path = self._temporary / "truth.npy"
        with Appender(path, np.float64, len(names)) as out:
            for chunk in table.chunks(names, self._rows):
                out.append(np.stack([numbers_of(n, chunk.columns[n], chunk.where) for n in names], axis=1))
        return load_array(path)

    def _write_history(self, history: Spill, encoders: Encoders) -> tuple[Array, Array]:
        writer = HistoryWriter(self._folder / "history", encoders, len(self._user_index))
        for _, rows in self._parts(history, "writing histories"):
            writer.write(rows)
        return writer.values, writer.close()

    # -- 9 -----------------------------------------------------------------------------------------------------------------

    def _manifest(
        self, writers: dict[int, ShardWriter], blocks: dict[str, Block], event_values: Array, event_counts: Array
    ) -> dict[str, Any]:
        self._progress("hashing", 0.0)
        rows = {"user": self._impressions.user_rows, "item": self._impressions.item_rows}
        splits, unknown, missing = split_summary(self._schema, writers, blocks, rows)
        unknown["history"], missing["history"] = rates(self._schema, {"event": event_values})
        tables = {t.role.removeprefix("tables."): {"rows": t.rows, "files": len(t.files)} for t in self._logs.tables}
        return {
            "schema_version": SCHEMA_VERSION,
            "hemix": hemix_version(),
            "name": self._schema.name,
            "fingerprint": self._schema.fingerprint(),
            "timezone": self._schema.clock.timezone,
            "tables": tables,
            "join_rate": self._joins.rate,
            "join_example": self._joins.example,
            "splits": splits,
            "history": {
                **asdict(self._events.counts),
                **history_lengths(event_counts),
                **self._logs.action_lacking,
                "source": self._schema.history_source,
            },
            "users": len(self._user_index),
            "items": len(self._item_index),
            "impressions": asdict(self._impressions.counts),
            "user_table": self._users.summary(),
            "item_table": self._items.summary(),
            "unknown_rate": unknown,
            "missing_rate": missing,
            **({} if self._growth is None else {"growth": self._growth}),
            "encoders": encoder_hashes(self._folder / "encoders"),
            "files": array_files(self._folder),
        }


def _rows_per_user(numbers: LogNumbers, users: int, rows: int) -> Array:
    counts = np.zeros(users, dtype=np.int64)
    for begin in range(0, len(numbers.user), max(rows, 1 << 16)):
        counts += np.bincount(numbers.user[begin : begin + max(rows, 1 << 16)], minlength=users)
    return counts
