"""The preparation pipeline: all stages from the logs to the manifest.

Memory holds ids, the features of users and items, the counts of values, and one partition. The
bytes of every array depend on the logs and the schema, not on the size of the partitions.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hemix.data.layout import MANIFEST_FORMAT, SPEC_FORMAT
from hemix.errors import StorageError, UsageError
from hemix.files import check_new_folder, new_folder, write_text
from hemix.preparation.dataset_writer import write_dataset
from hemix.preparation.duplicates import warn_about_duplicates
from hemix.preparation.entity_tables import read_tables
from hemix.preparation.fit import EncoderFitter
from hemix.preparation.fit_encoders import fit_encoders
from hemix.preparation.job import PrepareJob, Progress
from hemix.preparation.logs import Logs, open_logs
from hemix.preparation.manifest import build_manifest
from hemix.preparation.numbering import number_logs, save_raw_ids
from hemix.preparation.sorting import Passes, partition, sort_and_deduplicate
from hemix.preparation.splits import Splitter
from hemix.preparation.vocabulary_extension import PreviousEncoders
from hemix.schema import Schema

__all__ = ["MEMORY_ROWS", "Progress", "prepare"]

MEMORY_ROWS = 500_000
"""Default number of log rows in memory at once"""


def prepare(
    logs: str | Path,
    out: str | Path,
    *,
    schema: Schema | None = None,
    init_from: str | Path | None = None,
    vocabulary_ttl_days: int | None = None,
    memory_rows: int = MEMORY_ROWS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a dataset folder from a folder of logs.

    Args:
        logs: Folder with schema.yaml and the tables that it names.
        out: The dataset folder. A failed preparation leaves nothing behind.
        schema: A schema to use instead of schema.yaml.
        init_from: A dataset or run folder whose vocabularies are extended.
        vocabulary_ttl_days: Drop a value of these vocabularies after so many days without train
            rows.
        memory_rows: Approximate number of log rows in memory at once.
        progress: Called with the name of the stage and its completed fraction, 0 to 1.

    Returns:
        The content of manifest.json.

    Raises:
        UsageError: ``out`` exists and is not empty, or an argument is out of range.
        SchemaError: The schema does not fit the tables.
        DataError: A value cannot be used; the message names file, row and column.
        StorageError: The disk is full or read-only.
    """
    began = time.monotonic()
    if memory_rows < 1:
        raise UsageError(f"memory_rows: expected at least 1, got {memory_rows}")
    out = Path(out)
    check_new_folder(out)
    if vocabulary_ttl_days is not None and (init_from is None or vocabulary_ttl_days < 1):
        flag, expected = "--vocabulary-ttl-days", "expected at least 1, together with --init-from"
        raise UsageError(f"{flag} {vocabulary_ttl_days}: {expected}", field=flag)
    opened = open_logs(Path(logs), schema)
    previous = None
    if init_from is not None:
        previous = PreviousEncoders.load(init_from, opened.schema, vocabulary_ttl_days)
    splitter = _splitter(opened)
    with new_folder(out) as folder:
        job = PrepareJob(
            logs=opened,
            splitter=splitter,
            folder=folder,
            memory_rows=memory_rows,
            progress=progress or (lambda _stage, _fraction: None),
            previous=previous,
        )
        with _named(out, folder):
            manifest = _run(job)
        _warn(opened, manifest)
        manifest["seconds"] = round(time.monotonic() - began, 3)
        MANIFEST_FORMAT.write(folder / "manifest.json", manifest)
    return manifest


def _splitter(logs: Logs) -> Splitter:
    """The splitter for the split's column, by default the clock."""
    schema, impressions = logs.schema, logs.impressions
    column = schema.split.column or schema.clock.column
    return Splitter(schema, impressions.arrow_schema.field(column).type, str(impressions.path))


def _warn(logs: Logs, manifest: dict[str, Any]) -> None:
    warn_about_duplicates(
        logs.impressions.path,
        manifest["impressions"]["duplicates"],
        logs.impressions.rows,
    )
    if logs.events is not None:
        warn_about_duplicates(logs.events.path, manifest["history"]["duplicates"], logs.events.rows)


@contextmanager
def _named(out: Path, folder: Path) -> Iterator[None]:
    """Name ``out`` in errors of the disk, not the temporary folder in which it is made."""
    try:
        yield
    except StorageError as error:
        raise StorageError(
            str(error).replace(str(folder), str(out)),
            code=error.code,
            field=error.field and error.field.replace(str(folder), str(out)),
        ) from error


def _run(job: PrepareJob) -> dict[str, Any]:
    """Run all stages and return the manifest without their duration."""
    job.temporary.mkdir()
    fitter = EncoderFitter(job.schema)
    numbering = number_logs(job)
    tables = read_tables(job, numbering, fitter)
    save_raw_ids(job, numbering)
    passes = Passes.build(job, numbering, tables, fitter)
    partitions = sort_and_deduplicate(job, partition(job, numbering, passes), passes)
    fitted = fit_encoders(job, numbering, tables, passes.impressions, fitter)
    if passes.statistics is not None and partitions.statistics is not None:
        log_end_ms = passes.impressions.span.log_end_ms
        passes.statistics.build(job, partitions.statistics, fitted.encoders, log_end_ms)
    written = write_dataset(job, tables, partitions, passes, fitted.encoders)
    shutil.rmtree(job.temporary)
    write_text(job.folder / "schema.yaml", job.schema.to_yaml())
    SPEC_FORMAT.write(job.folder / "spec.json", fitted.encoders.spec().to_json())
    return build_manifest(job, tables, passes, written, fitted.growth)
