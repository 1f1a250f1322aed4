"""Where a table's Parquet files lie: a path, or a URL of any file system that fsspec reaches
(s3://, gs://, https://, memory://).

A file is opened anew for every pass, so that nothing of it stays in memory. Links to files and
folders are followed. This module knows no columns but those in the names of folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.preparation.hive_partitions import Partition, partition_of

__all__ = ["LogFile", "is_url", "one_line", "parquet_files"]

_PARQUET = b"PAR1"
_SUFFIXES = (".parquet", ".parq", ".pq")


def is_url(place: str) -> bool:
    """Whether it names a file system; else it is a path."""
    return "://" in place


@dataclass(frozen=True)
class LogFile:
    """One file. ``str`` of it is what messages say."""

    place: str
    """Path or URL"""
    inside: str
    """Path in its file system"""
    system: Any = None
    """fsspec's; None: a path of this machine"""
    partition: Partition = ()
    """Columns in the names of its folders"""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.inside).name

    def __str__(self) -> str:
        return (
            self.place
            if _is_utf8(self.place)
            else os.fsencode(self.place).decode(errors="backslashreplace")
        )

    def open(self) -> pq.ParquetFile:
        """Raises DataError where it is no Parquet file."""
        try:
            source = self._source()
            # buffered: a row group is read page by page, never as a whole
            return pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False)
        except Exception as error:  # a file system may raise errors of its own
            raise self.unreadable(error) from error

    def _source(self) -> Any:
        if self.system is not None:
            return self.system.open(self.inside, "rb")
        # Arrow takes paths in UTF-8 only
        return self.inside if _is_utf8(self.inside) else Path(self.inside).open("rb")

    def damaged(self, error: Exception, columns: Sequence[str]) -> DataError:
        """What to say where reading these columns of an open file fails: which row group it is that
        cannot be read.
        """
        opened = self.open()
        for number in range(opened.num_row_groups):
            try:
                opened.read_row_group(number, columns=list(columns), use_threads=False)
            except Exception as found:
                return DataError(
                    f"{self}: row group {number} of {opened.num_row_groups} is damaged: "
                    f"{one_line(found)}"
                )
        return self.unreadable(error)

    def unreadable(self, error: Exception) -> DataError:
        """What to say where opening fails with ``error``."""
        try:
            with (
                Path(self.inside).open("rb")
                if self.system is None
                else self.system.open(self.inside, "rb") as stream
            ):
                begins = stream.read(len(_PARQUET))
        except Exception as unreadable:
            why = getattr(unreadable, "strerror", None) or one_line(unreadable)
            return DataError(f"{self}: cannot be read: {why}")
        if begins != _PARQUET:
            return DataError(f"{self}: not a Parquet file")
        return DataError(f"{self}: truncated or damaged Parquet: {one_line(error)}")


def parquet_files(place: Path | str, role: str) -> list[LogFile]:
    """The file, or all Parquet files of the folder and its subfolders in the order of their paths,
    but those whose names begin with ``.`` or ``_`` (a folder ``_column=value`` does count).

    A file is one by its name (``.parquet``, ``.parq``, ``.pq``, in whatever case), or, where its
    name has no ending, as Hive and Trino write them, by its first bytes.

    Args:
        place: path, or URL where it is a string.
        role: the schema's key.

    Raises:
        DataError: where nothing is there, or no Parquet file in the folder.
    """
    if isinstance(place, Path):
        if place.is_file():
            return [LogFile(str(place), str(place))]
        if not place.is_dir():
            raise DataError(f"{place}: no such file ({role})")
        found = {
            p.relative_to(place): (str(p), str(p), None)
            for p in _walk(place, role, (os.path.realpath(place),))
        }
    else:
        system, root = _system(place, role)
        try:
            if system.isfile(root):
                return [LogFile(place, root, system)]
            inside = system.find(root) if system.exists(root) else None
        except Exception as error:
            raise DataError(f"{place}: cannot be read ({role}): {one_line(error)}") from error
        if inside is None:
            raise DataError(f"{place}: no such file ({role})")
        paths = [
            PurePosixPath(path).relative_to(root)
            for path in inside
            if _is_parquet(PurePosixPath(path), system)
        ]
        found = {
            Path(p): (f"{place.rstrip('/')}/{p}", f"{root.rstrip('/')}/{p}", system) for p in paths
        }
    shown = [p for p in sorted(found) if not any(map(_is_hidden, p.parts))]
    files = [LogFile(*found[p], partition_of(p.parts[:-1], found[p][0])) for p in shown]
    if not files:
        raise DataError(
            f"{place}: expected Parquet files (*.parquet) in the folder ({role}), found none"
        )
    return files


def _walk(folder: Path, role: str, above: tuple[str, ...]) -> Iterator[Path]:
    """All Parquet files below; ``above``: the real paths of the folders on the way, so that a link
    back ends.
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
            if real not in above and not _is_hidden(path.name):
                yield from _walk(path, role, (*above, real))
        elif _is_parquet(path, None):
            yield path  # a link to nowhere too: opening it says so


def _is_parquet(path: PurePath, system: Any) -> bool:
    if path.suffix or _is_hidden(path.name):
        return path.suffix.lower() in _SUFFIXES
    try:
        with Path(path).open("rb") if system is None else system.open(str(path), "rb") as stream:
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
    """What it says, without line breaks."""
    return " ".join(str(error).split())


def _system(url: str, role: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # where paths suffice, nothing of it is loaded

    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{url}: cannot be reached ({role}): {one_line(error)}") from error
    return system, str(root)
