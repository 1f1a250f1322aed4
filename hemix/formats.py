"""Saved formats: each file that hemix writes and reads again has a ``format_version``.

Each format has one :class:`SavedFormat` in the module of its writer. A file of another version is
refused in one wording, which names the file and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.errors import HemixError
from hemix.files import read_json, write_json

__all__ = ["FORMAT_KEY", "SavedFormat"]

FORMAT_KEY = "format_version"


@dataclass(frozen=True, kw_only=True)
class SavedFormat:
    """One kind of file and the version of it that this hemix reads and writes."""

    version: int
    error: type[HemixError]
    """Raised for a file that cannot be used"""
    remedy: str
    """What to do with a file of another version, such as ``train the run again``"""

    def check(self, file: str | Path, version: object) -> None:
        """Refuse a file of another version.

        Args:
            file: Its path, for the message.
            version: Its ``format_version``; None where it has none.

        Raises:
            HemixError: Of the class ``error``.
        """
        if type(version) is int and version == self.version:
            return
        newer = isinstance(version, int) and version > self.version
        shown = "none" if version is None else repr(version)
        raise self.error(
            f"{file}: {FORMAT_KEY}: expected {self.version}, found {shown}: written by "
            f"{'a newer' if newer else 'an older'} hemix",
            code="wrong_format_version",
            field=str(file),
            hint=self.remedy,
        )

    def check_bytes(self, file: str | Path, version: bytes | None) -> None:
        """Refuse a file whose version is text, as in the metadata of a Parquet file.

        Args:
            file: Its path, for the message.
            version: Its ``format_version`` in ASCII; None where it has none.

        Raises:
            HemixError: Of the class ``error``.
        """
        text = None if version is None else version.decode(errors="replace")
        self.check(file, int(text) if text is not None and text.isdecimal() else text)

    def mark(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of a file with its version as the first key."""
        return {FORMAT_KEY: self.version, **content}

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write a JSON file atomically.

        Args:
            path: The file.
            content: Its content, to which the version is added.

        Raises:
            StorageError: For a disk that cannot be written.
        """
        write_json(path, self.mark(content))

    def read(self, path: Path) -> dict[str, Any]:
        """Read a JSON file. Raises the format's error where it is missing, damaged or of another
        version."""
        content = read_json(path, self.error)
        self.check(path, content.get(FORMAT_KEY))
        return content
