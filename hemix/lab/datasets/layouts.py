"""Which of a data set's file layouts lies in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hemix.errors import DataError

__all__ = ["one_layout"]


def one_layout(
    dataset: str, folders: Sequence[Path], layouts: Mapping[str, Callable[[Path], list[Path]]]
) -> tuple[str, Path]:
    """The one layout that is complete in one of the folders, and that folder.

    ``layouts`` maps a name to the files that it has in a folder. Raises DataError when none is
    complete (naming what is missing, or all that was looked for) or several are.
    """
    first = folders[0]
    if not first.is_dir():
        found = "a file" if first.exists() else "nothing there"
        raise DataError(
            f"{first}: expected a folder with the raw files of {dataset}, found {found}"
        )
    complete: list[tuple[str, Path]] = []
    partial: list[tuple[str, Path, list[str]]] = []
    for folder in folders:
        for name, files in layouts.items():
            wanted = files(folder)
            missing = [path.name for path in wanted if not path.is_file()]
            if not missing:
                complete.append((name, folder))
            elif len(missing) < len(wanted):
                partial.append((name, folder, missing))
    if len(complete) > 1:
        found = ", ".join(f"{name} in {folder}" for name, folder in complete)
        raise DataError(f"{first}: expected one layout of {dataset}, found {found}")
    if complete:
        return complete[0]
    if partial:
        name, folder, missing = min(partial, key=lambda entry: len(entry[2]))
        raise DataError(f"{folder}: layout {name} of {dataset} lacks {', '.join(missing)}")
    looked_for = "; ".join(
        f"{name}: {', '.join(path.name for path in files(first))}"
        for name, files in layouts.items()
    )
    raise DataError(f"{first}: no files of {dataset}; looked for {looked_for}")
