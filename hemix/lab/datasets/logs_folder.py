"""The logs folder that an import writes: one Parquet file a table and schema.yaml, complete or not
there at all.

Knows nothing of any data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from hemix.errors import StorageError
from hemix.files import new_folder, write_text
from hemix.schema import Schema

__all__ = ["LogsFolder", "new_logs"]


class LogsFolder:
    """Tables that grow piece by piece."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pa.parquet.ParquetWriter] = {}
        self.rows: dict[str, int] = {}
        """Rows written so far, by table."""

    def write(self, table: str, piece: pa.Table) -> None:
        """Append rows to a table; the first piece fixes its columns."""
        if table not in self._writers:
            path = self._folder / f"{table}.parquet"
            self._writers[table] = pa.parquet.ParquetWriter(path, piece.schema, compression="zstd")
        self._writers[table].write_table(piece)
        self.rows[table] = self.rows.get(table, 0) + piece.num_rows

    def write_schema(self, schema: Schema) -> None:
        """Write schema.yaml."""
        write_text(self._folder / "schema.yaml", schema.to_yaml())

    def close(self) -> None:
        """End every table; none can be written afterwards."""
        for writer in self._writers.values():
            writer.close()


@contextmanager
def new_logs(out: Path) -> Iterator[LogsFolder]:
    """A folder of logs that becomes ``out`` when the block ends well; an error leaves nothing
    behind.

    Raises UsageError where ``out`` is not empty, StorageError when it cannot be written.
    """
    with new_folder(out) as folder:
        logs = LogsFolder(folder)
        try:
            yield logs
            logs.close()
        except BaseException as error:
            with suppress(OSError):  # the files are deleted anyway
                logs.close()
            if isinstance(error, OSError) and error.errno is None:
                raise StorageError(
                    f"{out}: cannot be written: {' '.join(str(error).split())}"
                ) from error
            raise
