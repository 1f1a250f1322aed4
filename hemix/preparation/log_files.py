"""Find and open the Parquet files of a table, by path or by URL.

fsspec opens URLs (s3://, gs://, https://, memory://). Links to files and folders are followed.
Every pass opens a file anew, so that nothing of it stays in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.preparation.hive_partitions import Partition, partition_of

__all__ = ["CATALOG", "LogFile", "is_catalog_table", "is_url", "one_line", "parquet_files"]

CATALOG = "spark://"
"""Prefix of a table of a catalog: ``spark://catalog.database.table``"""

_PARQUET = b"PAR1"
_SUFFIXES = (".parquet", ".parq", ".pq")


def is_url(location: str) -> bool:
    """Whether the text is a URL; else it is a path."""
    return "://" in location


def is_catalog_table(location: str) -> bool:
    """Whether the text names a table of a catalog."""
    return location.startswith(CATALOG)


@dataclass(frozen=True)
class LogFile:
    """A Parquet file. ``str`` gives the path or URL as text for messages."""

    location: str
    """Path or URL"""
    path: str
    """Path in its file system"""
    filesystem: Any = None
    """fsspec file system; None: a path of this machine"""
    partition: Partition = ()
    """Columns in the names of its folders"""

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return (
            self.location
            if _is_utf8(self.location)
            else os.fsencode(self.location).decode(errors="backslashreplace")
        )

    def open(self) -> pq.ParquetFile:
        """Open the file; raise DataError if it is not a Parquet file."""
        try:
            # buffered: a row group is read page by page, never as a whole
            return pq.ParquetFile(self._stream(), buffer_size=1 << 20, pre_buffer=False)
        except Exception as error:  # a file system may raise its own classes
            raise self.unreadable(error) from error

    def _stream(self) -> Any:
        if self.filesystem is not None:
            return self.filesystem.open(self.path, "rb")
        # Arrow takes paths in UTF-8 only
        return self.path if _is_utf8(self.path) else Path(self.path).open("rb")

    def damaged(self, error: Exception, columns: Sequence[str]) -> DataError:
        """Return the error for a failed read, with the first row group that cannot be read.

        Args:
            error: The failure.
            columns: The columns that were read.
        """
        opened = self.open()
        for number in range(opened.num_row_groups):
            try:
                opened.read_row_group(number, columns=list(columns), use_threads=False)
            except Exception as problem:
                return DataError(
                    f"{self}: row group {number} of {opened.num_row_groups} is damaged: "
                    f"{one_line(problem)}"
                )
        return self.unreadable(error)

    def unreadable(self, error: Exception) -> DataError:
        """Return the error for a file that failed to open with ``error``."""
        try:
            with (
                Path(self.path).open("rb")
                if self.filesystem is None
                else self.filesystem.open(self.path, "rb") as stream
            ):
                first_bytes = stream.read(len(_PARQUET))
        except Exception as unreadable:
            reason = getattr(unreadable, "strerror", None) or one_line(unreadable)
            problem = f"{self}: cannot be read: {reason}"
            return DataError(problem, code="unreadable_file", field=str(self))
        if first_bytes != _PARQUET:
            return DataError(f"{self}: not a Parquet file", code="damaged_file", field=str(self))
        problem = f"{self}: truncated or damaged Parquet: {one_line(error)}"
        return DataError(problem, code="damaged_file", field=str(self))


def parquet_files(location: Path | str, role: str, stored_at: Path | None = None) -> list[LogFile]:
    """List the Parquet files of a table in the order of their paths.

    A location is a file, or a folder with all its subfolders. Names that begin with ``.`` or ``_``
    are skipped, except a folder ``_column=value``. A file is Parquet by its suffix (``.parquet``,
    ``.parq``, ``.pq``, in any case) or, without a suffix as Hive and Trino write it, by its first
    bytes.

    Args:
        location: A path, or a URL as text.
        role: The schema's key, for messages.
        stored_at: Where the files are, if the location only names them in messages.

    Raises:
        DataError: The location does not exist, or the folder has no Parquet file.
    """
    if stored_at is not None:
        return [replace(file, location=str(location)) for file in parquet_files(stored_at, role)]
    if isinstance(location, Path):
        files = _local_files(location, role)
    else:
        files = _remote_files(location, role)
    if not files:
        raise DataError(
            f"{location}: expected Parquet files (*.parquet) in the folder ({role}), found none"
        )
    return files


def _local_files(location: Path, role: str) -> list[LogFile]:
    if location.is_file():
        return [LogFile(str(location), str(location))]
    if not location.is_dir():
        raise DataError(f"{location}: no such file ({role})")
    paths = _walk(location, role, (os.path.realpath(location),))
    return _visible_files({p.relative_to(location): (str(p), str(p), None) for p in paths})


def _remote_files(url: str, role: str) -> list[LogFile]:
    filesystem, root = _filesystem(url, role)
    try:
        if filesystem.isfile(root):
            return [LogFile(url, root, filesystem)]
        all_paths = filesystem.find(root) if filesystem.exists(root) else None
    except Exception as error:
        raise DataError(f"{url}: cannot be read ({role}): {one_line(error)}") from error
    if all_paths is None:
        raise DataError(f"{url}: no such file ({role})")
    paths = [
        PurePosixPath(path).relative_to(root)
        for path in all_paths
        if _is_parquet(PurePosixPath(path), filesystem)
    ]
    return _visible_files(
        {Path(p): (f"{url.rstrip('/')}/{p}", f"{root.rstrip('/')}/{p}", filesystem) for p in paths}
    )


def _visible_files(files: dict[Path, tuple[str, str, Any]]) -> list[LogFile]:
    """Files by relative path -> those that are not hidden, in the order of their paths."""
    visible = [path for path in sorted(files) if not any(map(_is_hidden, path.parts))]
    return [
        LogFile(*files[path], partition_of(path.parts[:-1], files[path][0])) for path in visible
    ]


def _walk(folder: Path, role: str, ancestors: tuple[str, ...]) -> Iterator[Path]:
    """Yield all Parquet files below a folder.

    ``ancestors`` are the real paths of the folders above, so that a link to one of them ends.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({role}): {error.strerror or one_line(error)}"
        ) from error
    for path in entries:
        if path.is_dir():
            real = os.path.realpath(path)
            if real not in ancestors and not _is_hidden(path.name):
                yield from _walk(path, role, (*ancestors, real))
        elif _is_parquet(path, None):
            yield path  # a broken link as well: opening it raises the error


def _is_parquet(path: PurePath, filesystem: Any) -> bool:
    if path.suffix or _is_hidden(path.name):
        return path.suffix.lower() in _SUFFIXES
    local = filesystem is None
    try:
        with Path(path).open("rb") if local else filesystem.open(str(path), "rb") as stream:
            return bool(stream.read(len(_PARQUET)) == _PARQUET)
    except OSError:
        return False


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def one_line(error: Exception) -> str:
    """Return the error's text without line breaks."""
    return " ".join(str(error).split())


def _filesystem(url: str, role: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # loaded only for URLs

    try:
        filesystem, root = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{url}: cannot be reached ({role}): {one_line(error)}") from error
    return filesystem, str(root)
