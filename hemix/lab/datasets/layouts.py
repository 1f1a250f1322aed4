"""Detection of a data set's file layout in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hemix.errors import DataError

__all__ = ["detect_layout"]


def detect_layout(
    dataset: str, folders: Sequence[Path], layouts: Mapping[str, Callable[[Path], list[Path]]]
) -> tuple[str, Path]:
    """Find the one layout whose files are all in one of the folders.

    Args:
        dataset: Name of the data set, for messages.
        folders: The folders to look in; the first one must exist.
        layouts: Layout name -> function of a folder that lists the layout's files.

    Returns:
        The name of the layout and its folder.

    Raises:
        DataError: No layout is complete, or several are.
    """
    first = folders[0]
    if not first.is_dir():
        problem = "which is a file" if first.exists() else "which does not exist"
        raise DataError(
            f"{first}: expected a folder with the raw files of {dataset}, {problem}",
            code="missing_folder",
            field=str(first),
        )
    complete: list[tuple[str, Path]] = []
    partial: list[tuple[str, Path, list[str]]] = []
    for folder in folders:
        for name, files_in in layouts.items():
            expected = files_in(folder)
            missing = [_name(path, folder) for path in expected if not path.is_file()]
            if not missing:
                complete.append((name, folder))
            elif len(missing) < len(expected):
                partial.append((name, folder, missing))
    if len(complete) > 1:
        candidates = ", ".join(f"{name} in {folder}" for name, folder in complete)
        raise DataError(
            f"{first}: expected one layout of {dataset}, found {candidates}",
            code="ambiguous_layout",
            field=str(first),
        )
    if complete:
        return complete[0]
    if partial:
        name, folder, missing = min(partial, key=lambda entry: len(entry[2]))
        raise DataError(
            f"{folder}: layout {name} of {dataset} lacks {', '.join(missing)}",
            code="missing_file",
            field=str(folder / missing[0]),
        )
    expected_files = "; ".join(
        f"{name}: {', '.join(_name(path, first) for path in files_in(first))}"
        for name, files_in in layouts.items()
    )
    raise DataError(
        f"{first}: no files of {dataset}; expected one of {expected_files}",
        code="missing_file",
        field=str(first),
    )


def _name(path: Path, folder: Path) -> str:
    """A file's name below the folder, such as ``train/news.tsv``."""
    return path.relative_to(folder).as_posix()
