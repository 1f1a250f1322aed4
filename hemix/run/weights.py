"""Weights as safetensors: the dense part in one file, the embedding tables in another. The bytes depend on the tensors alone."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hemix.errors import RunError, StorageError
from hemix.files import storage_errors
from hemix.model import Ranker

__all__ = ["DENSE_FILE", "TABLES_FILE", "load_tensors", "load_weights", "save_tensors", "save_weights", "sha256"]

DENSE_FILE = "dense.safetensors"
TABLES_FILE = "tables.safetensors"


def sha256(path: Path) -> str:
    """Hash of a file's bytes. Raises RunError if it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing") from error


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors atomically and return the file's sha256."""
    part = path.with_name(f".{path.name}.part")
    try:
        with storage_errors(path):
            _save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
            digest = sha256(part)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return digest


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """save_file, with an OSError where the operating system refused: safetensors only tells it in the text of its own error."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise StorageError(f"{path}: cannot be written: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_tensors(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read tensors; with ``digest`` the file must have that sha256. Raises RunError naming the file."""
    found = sha256(path)
    if digest is not None and found != digest:
        raise RunError(f"{path}: damaged: its sha256 begins with {found[:12]}, expected {digest[:12]}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path}: damaged: {error}") from error


def save_weights(folder: Path, model: Ranker) -> dict[str, str]:
    """Write both weight files; returns their sha256 by name."""
    tables, dense = _split(model)
    return {
        DENSE_FILE: save_tensors(folder / DENSE_FILE, dense),
        TABLES_FILE: save_tensors(folder / TABLES_FILE, tables),
    }


def load_weights(folder: Path, model: Ranker, digests: dict[str, str]) -> None:
    """Fill ``model`` from both weight files. Raises RunError naming the file and the first tensor that does not fit."""
    for part, name in enumerate((TABLES_FILE, DENSE_FILE)):
        found = load_tensors(folder / name, digests.get(name))
        model.take_shapes({key: tuple(tensor.shape) for key, tensor in found.items()})
        tensors = _split(model)[part]
        for key in sorted(tensors.keys() | found.keys()):
            shapes = [None if t is None else tuple(t.shape) for t in (tensors.get(key), found.get(key))]
            if shapes[0] != shapes[1]:
                raise RunError(f"{folder / name}: {key}: expected shape {shapes[0]}, found {shapes[1]}")
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(found[key])


def _split(model: Ranker) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    dense = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("tables.")}
    return model.tables.by_name(), dense
