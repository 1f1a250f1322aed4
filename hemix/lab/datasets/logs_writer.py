"""Writer of a logs folder: one Parquet file a table, and schema.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from hemix.errors import StorageError
from hemix.files import new_folder, write_text
from hemix.schema import Schema

__all__ = ["LogsWriter", "create_logs"]


class LogsWriter:
    """Appends rows to the tables of a logs folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pa.parquet.ParquetWriter] = {}
        self.rows: dict[str, int] = {}
        """Rows written so far, by table."""

    def write(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table.

        Args:
            name: The table's name; its file is ``NAME.parquet``.
            rows: The rows. The first call for a table fixes its columns.
        """
        if name not in self._writers:
            path = self._folder / f"{name}.parquet"
            self._writers[name] = pa.parquet.ParquetWriter(path, rows.schema, compression="zstd")
        self._writers[name].write_table(rows)
        self.rows[name] = self.rows.get(name, 0) + rows.num_rows

    def write_schema(self, schema: Schema) -> None:
        """Write schema.yaml."""
        write_text(self._folder / "schema.yaml", schema.to_yaml())

    def close(self) -> None:
        """Finish the files of all tables."""
        for writer in self._writers.values():
            writer.close()


@contextmanager
def create_logs(out: Path) -> Iterator[LogsWriter]:
    """Write a logs folder that appears as ``out`` when the block ends without an error.

    Raises UsageError where ``out`` is not empty, StorageError where it cannot be written.
    """
    with new_folder(out) as folder:
        logs = LogsWriter(folder)
        try:
            yield logs
            logs.close()
        except BaseException as error:
            with suppress(OSError):  # the files are deleted anyway
                logs.close()
            if isinstance(error, OSError) and error.errno is None:
                raise StorageError(f"{out}: cannot be written: {error}", field=str(out)) from error
            raise
