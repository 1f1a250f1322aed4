"""Atomic writes: a file or a folder appears complete or not at all."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hemix.errors import HemixError, StorageError, UsageError

__all__ = [
    "check_new_folder",
    "copy_folder",
    "link_target",
    "new_folder",
    "out_exists",
    "read_json",
    "storage_error",
    "storage_errors",
    "umask_mode",
    "write_json",
    "write_text",
]

_STORAGE = {
    errno.ENOSPC: ("disk_full", "the disk is full"),
    errno.EDQUOT: ("disk_full", "the disk quota is used up"),
    errno.EROFS: ("read_only", "the file system is read-only"),
    errno.EACCES: ("permission_denied", "permission denied"),
    errno.EPERM: ("permission_denied", "permission denied"),
}
"""Code and message of a StorageError, by the number of the operating system's error"""


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """Return the StorageError for an error of the operating system.

    Args:
        error: The error.
        path: The file, where the error does not name one.
    """
    file = error.filename or path
    code, reason = _STORAGE.get(error.errno or 0, (None, str(error.strerror or error)))
    return StorageError(f"{file}: {reason}", code=code, field=str(file))


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a StorageError with the file or ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE:
            raise storage_error(error, path) from error
        if error.errno is not None and (
            error.filename is not None or isinstance(error, NotADirectoryError | FileExistsError)
        ):
            file = error.filename or path
            raise StorageError(
                f"{file}: cannot be written: {error.strerror}", field=str(file)
            ) from error
        raise


def out_exists(out: Path, problem: str = "exists already and is not empty") -> UsageError:
    """Return the refusal of an output folder that is in use.

    Args:
        out: The folder.
        problem: What is there.
    """
    return UsageError(
        f"--out {out}: {problem}", code="out_exists", field="--out", hint="name a new folder"
    )


def check_new_folder(out: Path) -> None:
    """Raise UsageError unless ``out`` does not exist or is an empty folder, and is UTF-8."""
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"--out {os.fsencode(out)!r}: expected a path in UTF-8",
            field="--out",
            hint="name another folder",
        ) from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise out_exists(out)


def link_target(out: str | Path) -> Path:
    """Return the path to write to: the target of a link, even if the target does not exist yet.

    Raises:
        UsageError: The link is part of a circle.
    """
    out = Path(out)
    if not out.is_symlink():
        return out
    try:
        return out.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"--out {out}: the link cannot be resolved", field="--out", hint="name a new folder"
        ) from error


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """Write a new folder atomically.

    Yields a temporary folder, a hidden sibling of ``out``. It is renamed to ``out`` when the block
    ends, and removed when the block raises.

    Raises:
        UsageError: ``out`` exists and is not an empty folder.
        StorageError: The disk is full or read-only.
    """
    out = link_target(out)
    check_new_folder(out)
    temporary = out.parent / f".{out.name}.{os.getpid()}.part"
    _remove_abandoned(out)
    parents = reversed([out.parent, *out.parent.parents])
    first_new_parent = next((parent for parent in parents if not parent.exists()), None)
    try:
        with storage_errors(out):
            temporary.mkdir(parents=True)
            yield temporary
            if out.exists():
                out.rmdir()
            temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if first_new_parent is not None:
            _remove_empty(first_new_parent, out.parent)
        raise


def _remove_abandoned(out: Path) -> None:
    """Remove the temporary folders for ``out`` of processes that have ended.

    A folder with the id of this process is from an earlier process with the same id.
    """
    for path in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        process = path.name.removesuffix(".part").rpartition(".")[2]
        if process.isdigit() and (
            int(process) == os.getpid() or not Path(f"/proc/{process}").exists()
        ):
            shutil.rmtree(path, ignore_errors=True)


def _remove_empty(top: Path, bottom: Path) -> None:
    while bottom.exists() and not any(bottom.iterdir()):
        bottom.rmdir()
        if bottom == top:
            return
        bottom = bottom.parent


@contextmanager
def umask_mode(path: Path) -> Iterator[None]:
    """Give a file that a library writes inside the block the usual mode of new files.

    Some libraries make files readable for their owner only, but a server often runs as another
    user.
    """
    path.unlink(missing_ok=True)
    path.touch()  # its mode is that of the umask, and of the folder's default ACL
    mode = stat.S_IMODE(path.stat().st_mode)
    yield
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder with all subfolders. The copies have the usual mode of new files.

    Args:
        source: An existing folder.
        target: A new folder.
    """
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Args:
        path: The file; replaced if it exists.
        text: Its content.

    Raises:
        StorageError: The disk is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with storage_errors(path):
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Args:
        path: The file; replaced if it exists.
        content: Its content.

    Raises:
        ValueError: ``content`` holds NaN or infinity, which JSON does not have.
        StorageError: The disk is full or read-only.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, error: type[HemixError]) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        error: The class to raise if the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as missing:
        raise error(f"{path}: missing", code="missing_file", field=str(path)) from missing
    except (OSError, ValueError) as damage:
        raise error(f"{path}: damaged: {damage}", code="damaged_file", field=str(path)) from damage
    if not isinstance(content, dict):
        raise error(
            f"{path}: damaged: expected a JSON object", code="damaged_file", field=str(path)
        )
    return content
