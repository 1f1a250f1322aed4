"""Logs to a dataset folder: the stages in the order of the work.

    0  check the schema against the tables; nothing has been written yet
    1  number users and items                                  numbering.py: one pass, two columns
    2  read the user and item tables                           tables.py: held in memory
    3  read the logs, check every value, partition by user     sorting.py: temporary files
    4  a partition at a time: drop duplicates, sort, count     sorting.py: what encoders learn from
    5  learn the encoders                                      encoding.py
    6  add up the dated statistics by key and day              statistics.py: tables
    7  a partition at a time: encode, append to the arrays     writing.py
    8  write the manifest                                      manifest.py

Memory holds ids, the users' and items' features, the counts of values, and one partition. The bytes
of every array depend on the logs and the schema alone, not on the size of the partitions.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from hemix.data.layout import MANIFEST_FORMAT, SPEC_FORMAT
from hemix.data.prepare.checks import Logs, open_logs
from hemix.data.prepare.encoding import fit_encoders
from hemix.data.prepare.equality import warn_of_equal_rows
from hemix.data.prepare.fit import Fitting
from hemix.data.prepare.growth import Earlier
from hemix.data.prepare.job import PrepareJob, Progress
from hemix.data.prepare.manifest import build_manifest
from hemix.data.prepare.numbering import number_logs, save_raw_ids
from hemix.data.prepare.sorting import Passes, partition, sort_and_deduplicate
from hemix.data.prepare.splits import Splitter
from hemix.data.prepare.tables import read_tables
from hemix.data.prepare.writing import write_dataset
from hemix.errors import StorageError, UsageError
from hemix.files import check_new_folder, new_folder, write_text
from hemix.schema import Schema

__all__ = ["MEMORY_ROWS", "Progress", "prepare"]

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
    """Make a dataset folder from a folder of logs.

    Args:
        logs: Folder with schema.yaml and the tables that it names.
        out: The dataset folder; appears whole or not at all.
        schema: Use this schema instead of schema.yaml.
        earlier: A dataset or run folder whose vocabularies are continued (growth.py).
        forget_days: Forget its values that train rows have not held for so many days.
        memory_rows: About how many rows of a log are in memory at once.
        progress: Called with what is being done and the part of it that is done, 0 to 1.

    Returns:
        The manifest.

    Raises:
        UsageError: If ``out`` is there and not empty, or an argument makes no sense.
        SchemaError: If the schema does not fit the tables.
        DataError: Naming file, column, row, what was expected and found.
        StorageError: If the disk is full.
    """
    began = time.monotonic()
    if memory_rows < 1:
        raise UsageError(f"memory_rows: expected at least 1, got {memory_rows}")
    out = Path(out)
    check_new_folder(out)
    if forget_days is not None and (earlier is None or forget_days < 1):
        message = "expected at least 1, together with --from"
        raise UsageError(f"--forget-days {forget_days}: {message}")
    opened = open_logs(Path(logs), schema)
    continued = None if earlier is None else Earlier.load(earlier, opened.schema, forget_days)
    splitter = _splitter(opened)
    with new_folder(out) as folder:
        job = PrepareJob(
            logs=opened,
            splitter=splitter,
            folder=folder,
            memory_rows=memory_rows,
            progress=progress or (lambda _what, _done: None),
            earlier=continued,
        )
        try:
            manifest = _run(job)
        except StorageError as error:
            raise StorageError(str(error).replace(str(folder), str(out))) from error
        _warn(opened, manifest)
        manifest["seconds"] = round(time.monotonic() - began, 3)
        MANIFEST_FORMAT.write(folder / "manifest.json", manifest)
    return manifest


def _splitter(logs: Logs) -> Splitter:
    """Who assigns rows to splits, by the split's column or else by time."""
    schema, impressions = logs.schema, logs.impressions
    column = schema.split.column or schema.clock.column
    return Splitter(schema, impressions.kind.field(column).type, str(impressions.path))


def _warn(logs: Logs, manifest: dict[str, Any]) -> None:
    warn_of_equal_rows(
        logs.impressions.path,
        manifest["impressions"]["duplicates"],
        logs.impressions.rows,
    )
    if logs.events is not None:
        warn_of_equal_rows(logs.events.path, manifest["history"]["duplicates"], logs.events.rows)


def _run(job: PrepareJob) -> dict[str, Any]:
    """Do all stages; returns the manifest without the time that they took."""
    job.temporary.mkdir()
    fitting = Fitting(job.schema)
    numbering = number_logs(job)
    tables = read_tables(job, numbering, fitting)
    save_raw_ids(job, numbering)
    passes = Passes.build(job, numbering, tables, fitting)
    partitions = sort_and_deduplicate(job, partition(job, numbering, passes), passes)
    fitted = fit_encoders(job, numbering, tables, passes.impressions, fitting)
    if passes.statistics is not None and partitions.statistics is not None:
        log_end_ms = passes.impressions.span.log_end_ms
        passes.statistics.build(job, partitions.statistics, fitted.encoders, log_end_ms)
    written = write_dataset(job, tables, partitions, passes, fitted.encoders)
    shutil.rmtree(job.temporary)
    write_text(job.folder / "schema.yaml", job.schema.to_yaml())
    SPEC_FORMAT.write(job.folder / "spec.json", fitted.encoders.spec().to_json())
    return build_manifest(job, tables, passes, written, fitted.growth)
