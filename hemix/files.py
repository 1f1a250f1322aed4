"""Writing so that nothing is ever half there: a folder or a file appears whole, or not at all."""

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

from hemix.errors import StorageError, UsageError

__all__ = [
    "check_new_folder",
    "copy_folder",
    "link_target",
    "new_folder",
    "read_json",
    "storage_errors",
    "umask_mode",
    "write_json",
    "write_text",
]

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn what the operating system refuses (a full or read-only disk, an impossible path) into a
    StorageError that names ``path``, or the file that failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE:
            raise StorageError(f"{error.filename or path}: {_STORAGE[error.errno]}") from error
        if error.errno is not None and (
            error.filename is not None or isinstance(error, NotADirectoryError | FileExistsError)
        ):
            raise StorageError(
                f"{error.filename or path}: cannot be written: {error.strerror}"
            ) from error
        raise


def check_new_folder(out: Path) -> None:
    """Raise UsageError unless ``out`` is absent or an empty folder, of a path that is UTF-8."""
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"--out {os.fsencode(out)!r}: expected a path in UTF-8; name another folder"
        ) from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: exists already and is not empty; name a new folder")


def link_target(out: str | Path) -> Path:
    """The path to write: of a link, also of one to a folder that is not there yet, what it leads
    to. Raises UsageError for links in a circle.
    """
    out = Path(out)
    if not out.is_symlink():
        return out
    try:
        return out.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"--out {out}: a link that leads nowhere; name a new folder") from error


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A hidden sibling of ``out`` to write into; it becomes ``out`` when the block ends well and
    vanishes when it does not.

    Raises UsageError where ``out`` exists and is not an empty folder, StorageError for a disk that
    cannot be written.
    """
    out = link_target(out)
    check_new_folder(out)
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    _sweep(out)
    made = next(
        (parent for parent in reversed([out.parent, *out.parent.parents]) if not parent.exists()),
        None,
    )
    try:
        with storage_errors(out):
            part.mkdir(parents=True)
            yield part
            if out.exists():
                out.rmdir()
            part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if made is not None:  # leave no parent folder that was not there before
            _remove_empty(made, out.parent)
        raise


def _sweep(out: Path) -> None:
    """Remove what a process that is no more had begun to write for ``out``; one of our own number
    was another's before us.
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
    """A library writes ``path`` inside; afterwards the file has the mode that ``open`` would have
    given it.

    Some libraries make their files readable for their owner alone, and a server often runs as
    another user. The file is begun here, empty, because that asks for the umask (and for a folder's
    default ACL) without changing them for other threads.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    yield
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder's files and folders into a new folder, with the modes of new files rather than
    those of the copied ones."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises StorageError for a disk that cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with storage_errors(path):
            part.write_text(text, encoding="utf-8")
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinity are refused (ValueError), because they are not
    JSON.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, error: type[Exception]) -> dict[str, Any]:
    """Read a JSON object; raises ``error`` naming the file where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as missing:
        raise error(f"{path}: missing") from missing
    except (OSError, ValueError) as damage:
        raise error(f"{path}: damaged: {damage}") from damage
    if not isinstance(content, dict):
        raise error(f"{path}: damaged: expected a JSON object")
    return content
