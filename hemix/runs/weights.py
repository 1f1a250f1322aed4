"""Weights as safetensors: dense weights in one file, embedding tables in another.

The bytes depend on the tensors alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hemix.errors import RunError, StorageError
from hemix.files import storage_errors, umask_mode
from hemix.models import Predictor

__all__ = [
    "DENSE_FILE",
    "TABLES_FILE",
    "check_digest",
    "load_dense",
    "load_tensors",
    "load_weights",
    "save_dense",
    "save_tensors",
    "save_weights",
    "sha256",
]

DENSE_FILE = "dense.safetensors"
TABLES_FILE = "tables.safetensors"
_HEADER_BYTES = 256
"""More than the name, shape and type of one tensor take in a file"""


def sha256(path: Path) -> str:
    """Hash of a file's bytes. Raises RunError if it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", code="missing_file", field=str(path)) from error


def check_digest(path: Path, digest: str) -> None:
    """Check a file against its sha256.

    Args:
        path: The file.
        digest: The expected sha256.

    Raises:
        RunError: The file is missing or has another sha256.
    """
    actual = sha256(path)
    if actual != digest:
        raise RunError(
            f"{path}: damaged: its sha256 begins with {actual[:12]}, expected {digest[:12]}",
            code="damaged_file",
            field=str(path),
        )


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors atomically; the bytes depend on the tensors alone.

    Args:
        path: The file.
        tensors: By name.

    Returns:
        sha256 of the file.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with storage_errors(path):
            _save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                temporary,
            )
            digest = sha256(temporary)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors with safetensors, or raise the OSError of the operating system."""
    try:
        with umask_mode(path):
            save_file(tensors, path)
    except SafetensorError as error:
        # this error has no errno: reserve the file's space, which fails with an error that has one
        bytes_needed = sum(tensor.nbytes + _HEADER_BYTES for tensor in tensors.values())
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, bytes_needed)
            except OSError as refusal:
                raise OSError(refusal.errno, refusal.strerror, str(path)) from error
        raise StorageError(f"{path}: cannot be written: {error}", field=str(path)) from error


def load_tensors(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read tensors.

    Args:
        path: The file.
        digest: The expected sha256; None for any.

    Returns:
        The tensors by name.

    Raises:
        RunError: The file is missing or damaged.
    """
    if digest is not None:
        check_digest(path, digest)
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", code="missing_file", field=str(path)) from error
    except SafetensorError as error:
        raise RunError(f"{path}: damaged: {error}", code="damaged_file", field=str(path)) from error


def save_weights(folder: Path, model: Predictor) -> dict[str, str]:
    """Write both weight files.

    Args:
        folder: Of the run.
        model: Whose weights are written.

    Returns:
        sha256 of the files by name.

    Raises:
        StorageError: A file cannot be written.
    """
    return {
        DENSE_FILE: save_dense(folder, model),
        TABLES_FILE: save_tensors(folder / TABLES_FILE, model.table_tensors()),
    }


def load_weights(folder: Path, model: Predictor, digests: dict[str, str]) -> None:
    """Fill ``model`` from both weight files, or leave it unchanged.

    Args:
        folder: Of the run.
        model: Whose weights are filled.
        digests: Expected sha256 of the files by name; a file without one is not checked.

    Raises:
        RunError: A file is missing or damaged, or a tensor has another shape.
    """
    copy_tables = _read_matching(folder / TABLES_FILE, digests, lambda _: model.table_tensors())
    copy_dense = _read_dense(folder, model, digests)
    copy_tables()
    copy_dense()


def save_dense(folder: Path, model: Predictor) -> str:
    """Write the dense weights.

    Args:
        folder: Of the run.
        model: Whose weights are written.

    Returns:
        sha256 of the file.

    Raises:
        StorageError: The file cannot be written.
    """
    return save_tensors(folder / DENSE_FILE, model.dense_tensors())


def load_dense(folder: Path, model: Predictor, digests: dict[str, str]) -> None:
    """Fill the dense weights of ``model``, or leave it unchanged.

    Args:
        folder: Of the run.
        model: Whose weights are filled.
        digests: Expected sha256 of the file by name.

    Raises:
        RunError: The file is missing or damaged, or a tensor has another shape.
    """
    _read_dense(folder, model, digests)()


def _read_dense(folder: Path, model: Predictor, digests: dict[str, str]) -> Callable[[], None]:
    def targets(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        model.take_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return model.dense_tensors()

    return _read_matching(folder / DENSE_FILE, digests, targets)


def _read_matching(
    path: Path,
    digests: dict[str, str],
    targets_of: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Callable[[], None]:
    """Read a file and check its names and shapes; calling the result copies it to the targets."""
    tensors = load_tensors(path, digests.get(path.name))
    targets = targets_of(tensors)
    for name in sorted(targets.keys() | tensors.keys()):
        expected, actual = (
            None if tensor is None else tuple(tensor.shape)
            for tensor in (targets.get(name), tensors.get(name))
        )
        if expected != actual:
            raise RunError(
                f"{path}: {name}: expected shape {expected}, found {actual}",
                code="wrong_shape",
                field=name,
            )

    @torch.no_grad()
    def copy() -> None:
        for name, target in targets.items():
            target.copy_(tensors[name])

    return copy
