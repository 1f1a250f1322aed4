"""Weights as safetensors: the dense part in one file, the embedding tables in another.

The bytes depend on the tensors alone.
"""

from __future__ import annotations

import hashlib
import os
import re
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


def sha256(path: Path) -> str:
    """Hash of a file's bytes. Raises RunError if it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing") from error


def check_digest(path: Path, digest: str) -> None:
    """Raises RunError naming the file where it is missing or has not this sha256."""
    found = sha256(path)
    if found != digest:
        raise RunError(
            f"{path}: damaged: its sha256 begins with {found[:12]}, expected {digest[:12]}"
        )


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors atomically and return the file's sha256."""
    part = path.with_name(f".{path.name}.part")
    try:
        with storage_errors(path):
            _save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part
            )
            digest = sha256(part)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return digest


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """save_file, with an OSError where the operating system refused: safetensors only tells it in
    the text of its own error.
    """
    try:
        with umask_mode(path):
            save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise StorageError(f"{path}: cannot be written: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_tensors(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read tensors; with ``digest`` the file must have that sha256.

    Raises RunError naming the file.
    """
    if digest is not None:
        check_digest(path, digest)
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing") from error
    except SafetensorError as error:
        raise RunError(f"{path}: damaged: {error}") from error


def save_weights(folder: Path, model: Predictor) -> dict[str, str]:
    """Write both weight files; returns their sha256 by name."""
    return {
        DENSE_FILE: save_dense(folder, model),
        TABLES_FILE: save_tensors(folder / TABLES_FILE, model.table_tensors()),
    }


def load_weights(folder: Path, model: Predictor, digests: dict[str, str]) -> None:
    """Fill ``model`` from both weight files, or leave it as it was.

    Raises RunError naming the file and the first tensor that does not fit.
    """
    fill_tables = _fitting(folder / TABLES_FILE, digests, lambda _: model.table_tensors())
    fill_dense = _dense_fitting(folder, model, digests)
    fill_tables()
    fill_dense()


def save_dense(folder: Path, model: Predictor) -> str:
    """Write all but the tables; returns the file's sha256."""
    return save_tensors(folder / DENSE_FILE, model.dense_tensors())


def load_dense(folder: Path, model: Predictor, digests: dict[str, str]) -> None:
    """Fill all but the tables. Raises RunError as :func:`load_weights`."""
    _dense_fitting(folder, model, digests)()


def _dense_fitting(folder: Path, model: Predictor, digests: dict[str, str]) -> Callable[[], None]:
    def targets(found: dict[str, Tensor]) -> dict[str, Tensor]:
        model.take_shapes({key: tuple(tensor.shape) for key, tensor in found.items()})
        return model.dense_tensors()

    return _fitting(folder / DENSE_FILE, digests, targets)


def _fitting(
    path: Path,
    digests: dict[str, str],
    targets_of: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Callable[[], None]:
    """Read and check a file; what is returned fills the tensors."""
    found = load_tensors(path, digests.get(path.name))
    targets = targets_of(found)
    for key in sorted(targets.keys() | found.keys()):
        shapes = [None if t is None else tuple(t.shape) for t in (targets.get(key), found.get(key))]
        if shapes[0] != shapes[1]:
            raise RunError(f"{path}: {key}: expected shape {shapes[0]}, found {shapes[1]}")

    @torch.no_grad()
    def fill() -> None:
        for key, tensor in targets.items():
            tensor.copy_(found[key])

    return fill
