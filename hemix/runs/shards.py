"""Embedding tables that are divided between processes, as safetensors files.

All processes write their rows into one file, and read their rows back from any division. All see
the same folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hemix.errors import RunError
from hemix.files import storage_errors
from hemix.nn.sharded import ShardedTables
from hemix.runs.weights import check_digest, sha256

__all__ = ["Shard", "fill_rows", "save_whole_tables"]

_FLOAT_BYTES = 4
_ROWS_A_COPY = 2**16


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file with rows [first, last) of all tables, numbered one after another."""

    path: Path
    first: int
    last: int
    digest: str
    """sha256 of the file."""


@torch.no_grad()
def fill_rows(
    shards: Sequence[Shard], targets: Mapping[str, Tensor], first: int, last: int
) -> None:
    """Fill tensors with rows of the tables, whichever files hold them.

    Copies a few rows at a time, so that no second copy is in memory.

    Args:
        shards: The files, which together hold all rows.
        targets: Tensors by name, each [last - first, ...].
        first: First row.
        last: Row after the last.

    Raises:
        RunError: A file is missing, damaged or of other tables.
    """
    filled = 0
    for shard in shards:
        low, high = max(first, shard.first), min(last, shard.last)
        if low < high:
            check_digest(shard.path, shard.digest)
            try:
                _copy_rows(shard, targets, first, low, high)
            except SafetensorError as error:
                raise RunError(
                    f"{shard.path}: damaged: {error}", code="damaged_file", field=str(shard.path)
                ) from error
            filled += high - low
    if filled != last - first:
        raise RunError(
            f"{shards[0].path.parent}: expected rows {first} to {last} of the tables, found "
            f"{filled} of them",
            code="missing_file",
            field=str(shards[0].path.parent),
        )


def _copy_rows(
    shard: Shard, targets: Mapping[str, Tensor], first: int, low: int, high: int
) -> None:
    """Copy rows [low, high) of a shard to ``targets``, whose row 0 is row ``first``."""
    with safe_open(shard.path, framework="pt") as file:
        for name, target in targets.items():
            rows = file.get_slice(name)
            shape, expected = list(rows.get_shape()), [shard.last - shard.first, *target.shape[1:]]
            if shape != expected:
                raise RunError(
                    f"{shard.path}: {name}: expected shape {expected}, found {shape}",
                    code="wrong_shape",
                    field=name,
                )
            for begin in range(low, high, _ROWS_A_COPY):
                end = min(begin + _ROWS_A_COPY, high)
                target[begin - first : end - first].copy_(
                    rows[begin - shard.first : end - shard.first]
                )


def save_whole_tables(path: Path, tables: ShardedTables) -> str:
    """Write all tables into one safetensors file, every process its own rows. Collective.

    Args:
        path: The file.
        tables: The tables, of which this process holds some rows.

    Returns:
        sha256 of the file in the first process, "" in the others.

    Raises:
        StorageError: In the process that cannot write.
        HemixError: In the other processes.
    """
    distributed, temporary = tables.distributed, path.with_name(f".{path.name}.part")
    offsets, size = _file_offsets(tables)
    header = _header(tables, offsets)
    begin = len(header)
    digest = ""

    def create() -> None:
        if distributed.is_rank_zero:
            with storage_errors(path), temporary.open("wb") as file:
                file.write(header)
                if size:
                    os.posix_fallocate(file.fileno(), 0, begin + size)

    def write() -> None:
        weight = tables.weight.detach().float().cpu().contiguous()
        own_first, own_last = tables.owned
        with storage_errors(path), temporary.open("r+b") as file:
            for name, (first, last) in tables.ranges().items():
                low, high = max(first, own_first), min(last, own_last)
                if low < high:
                    file.seek(begin + offsets[name] + (low - first) * tables.width * _FLOAT_BYTES)
                    file.write(weight[low - own_first : high - own_first].numpy().data)
            file.flush()
            os.fsync(file.fileno())

    def finish() -> None:
        nonlocal digest
        if distributed.is_rank_zero:
            digest = sha256(temporary)
            with storage_errors(path):
                temporary.replace(path)

    distributed.on_all_ranks(create, f"begin {path}")
    distributed.on_all_ranks(write, f"write {path}")
    distributed.on_all_ranks(finish, f"finish {path}")
    return digest


def _file_offsets(tables: ShardedTables) -> tuple[dict[str, int], int]:
    """Where every table begins after the header, in bytes, and the size of all."""
    offsets, size = {}, 0
    for name, (first, last) in sorted(tables.ranges().items()):
        offsets[name] = size
        size += (last - first) * tables.width * _FLOAT_BYTES
    return offsets, size


def _header(tables: ShardedTables, offsets: Mapping[str, int]) -> bytes:
    """Header of a safetensors file, in the format of its README, version 0.8.

    First the length of the JSON in 8 bytes, little-endian; then the JSON, padded with spaces to a
    multiple of 8.
    """
    content = {}
    for name, (first, last) in sorted(tables.ranges().items()):
        shape = [last - first, tables.width]
        end = offsets[name] + shape[0] * shape[1] * _FLOAT_BYTES
        content[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offsets[name], end]}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
