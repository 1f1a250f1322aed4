"""A prepared dataset folder, memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hemix.data.entities import history_numbers, match_key_columns
from hemix.data.history import HistoryStore
from hemix.data.layout import MANIFEST_FORMAT, SPEC_FORMAT, SPLITS, Block, file_hash, load_array
from hemix.data.spec import InputSpec
from hemix.data.split import Int64Array, Split
from hemix.errors import DataError, UsageError
from hemix.features.history_counts import HISTORY_COUNTS, number_of_actions
from hemix.representation import html_table, one_line
from hemix.schema import Schema

__all__ = ["Dataset"]


class Dataset:
    """A dataset folder made by ``hemix prepare``."""

    def __init__(self, folder: str | Path, *, history_events_max: int | None = None) -> None:
        """Open a folder.

        Args:
            folder: The dataset folder.
            history_events_max: Most events that a request sees, its newest ones; None: what the
                schema says.

        Raises:
            DataError: Names what is missing or damaged.
        """
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise DataError(
                f"{self.folder}: not a dataset folder (no manifest.json): make one with hemix "
                "prepare",
                code="missing_dataset",
                field=str(self.folder),
            )
        try:
            self.manifest = MANIFEST_FORMAT.read(manifest)
            self.spec = InputSpec.from_json(SPEC_FORMAT.read(self.folder / "spec.json"))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self.folder}: damaged manifest.json or spec.json: {error}",
                code="damaged_file",
                field=str(self.folder),
            ) from error
        self.schema = Schema.load(self.folder / "schema.yaml")
        if self.schema.fingerprint() != self.manifest["fingerprint"]:
            raise DataError(
                f"{self.folder}: schema.yaml was changed after the dataset was prepared: prepare "
                "it again",
                code="other_schema",
                field=str(self.folder),
            )
        self.users = Block.load(
            self.folder / "users", "features", len(self.spec.user.jagged_tables)
        )
        self.items = Block.load(
            self.folder / "items", "features", len(self.spec.item.jagged_tables)
        )
        self.history_numbers = history_numbers(
            self.schema,
            number_of_actions(len(self.spec.context.numbers_of(HISTORY_COUNTS))),
            self.spec.match_actions,
        )
        self._match_columns = match_key_columns(self.schema)
        has_matches = self.history_numbers.matches is not None
        self._item_keys = load_array(self.folder / "items" / "keys.npy") if has_matches else None
        self.history = HistoryStore(
            self.folder / "history",
            self.schema.history,
            self.schema.clock.timezone,
            history_events_max,
        )

    def _facts(self) -> dict[str, object]:
        """The facts of the representations."""
        splits = self.manifest["splits"]
        return {
            "name": self.schema.name,
            "rows": sum(split["rows"] for split in splits.values()),
            "folder": self.folder,
        }

    def __repr__(self) -> str:
        return one_line("Dataset", self._facts())

    def _repr_html_(self) -> str:
        rows = {f"{name} rows": split["rows"] for name, split in self.manifest["splits"].items()}
        return html_table("Dataset", self._facts() | rows)

    def verify(self, *, but: str | None = None) -> None:
        """Compare every array with its hash in the manifest, but those of the split ``but``.

        Raises DataError naming the first file that is missing or damaged.
        """
        for name, entry in self.manifest["files"].items():
            if but is not None and but in name.split("/"):
                continue
            path = self.folder / name
            if not path.is_file():
                raise DataError(
                    f"{path}: missing from the dataset folder", code="missing_file", field=str(path)
                )
            if file_hash(path) != entry["xxh64"]:
                raise DataError(
                    f"{path}: damaged: its hash is not the one in manifest.json",
                    code="damaged_file",
                    field=str(path),
                )

    def match_keys(self, item_rows: Int64Array) -> npt.NDArray[np.uint64]:
        """uint64 [rows, C]: keys of the columns in which match counts compare, of item versions."""
        if self._item_keys is None:
            return np.zeros((len(item_rows), 0), dtype=np.uint64)
        keys: npt.NDArray[np.uint64] = self._item_keys.take(item_rows, axis=0)
        return keys[:, self._match_columns]

    def split(self, name: str) -> Split:
        """One of train, valid, test."""
        if name not in SPLITS:
            raise UsageError(
                f"--split {name}: expected one of {', '.join(SPLITS)}", field="--split"
            )
        return Split(self, name)
