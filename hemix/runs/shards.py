"""Tables that several processes hold, as files: one whole safetensors file that all write into, and
rows read back from any division.

The format is safetensors' own: eight bytes of the header's length, a JSON header, then the tensors
one after another. All processes see the same folder.
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
_ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of rows [first, last) of all tables together."""

    path: Path
    first: int
    last: int
    digest: str


@torch.no_grad()
def fill_rows(
    shards: Sequence[Shard], targets: Mapping[str, Tensor], first: int, last: int
) -> None:
    """Fill ``targets`` [last - first, ...], row-wise tensors by name, with rows [first, last) from
    whatever files hold them. A few rows at a time: no second copy is ever in memory. Raises
    RunError naming a file that is missing, damaged or of other tables.
    """
    filled = 0
    for shard in shards:
        low, high = max(first, shard.first), min(last, shard.last)
        if low >= high:
            continue
        check_digest(shard.path, shard.digest)
        try:
            with safe_open(shard.path, framework="pt") as file:
                for name, target in targets.items():
                    rows = file.get_slice(name)
                    expected, found = (
                        [shard.last - shard.first, *target.shape[1:]],
                        list(rows.get_shape()),
                    )
                    if found != expected:
                        raise RunError(
                            f"{shard.path}: {name}: expected shape {expected}, found {found}"
                        )
                    for at in range(low, high, _ROWS_AT_ONCE):
                        end = min(at + _ROWS_AT_ONCE, high)
                        target[at - first : end - first].copy_(
                            rows[at - shard.first : end - shard.first]
                        )
        except SafetensorError as error:
            raise RunError(f"{shard.path}: damaged: {error}") from error
        filled += high - low
    if filled != last - first:
        raise RunError(
            f"{shards[0].path.parent}: expected rows {first} to {last} of the tables, found "
            f"{filled} of them"
        )


def save_whole_tables(path: Path, tables: ShardedTables) -> str:
    """Write all tables into one safetensors file, every process its own rows; returns the file's
    sha256 (in the first process; else "").

    Collective. Raises StorageError in the process whose disk refuses, HemixError in the others.
    """
    team, part = tables.team, path.with_name(f".{path.name}.part")
    rows = tables.ranges()
    header, at = {}, 0
    for name in sorted(rows):
        first, end = rows[name]
        size = (end - first) * tables.width * _FLOAT_BYTES
        header[name] = {
            "dtype": "F32",
            "shape": [end - first, tables.width],
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)

    def lay_out() -> None:
        if team.first:
            with storage_errors(path), part.open("wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                os.posix_fallocate(file.fileno(), 0, begin + at) if at else None

    def write() -> None:
        weight = tables.weight.detach().float().cpu().contiguous()
        with storage_errors(path), part.open("r+b") as file:
            for name, (first, end) in rows.items():
                low, high = max(first, tables.owned[0]), min(end, tables.owned[1])
                if low < high:
                    offsets: list[int] = header[name]["data_offsets"]  # type: ignore[assignment]
                    file.seek(begin + offsets[0] + (low - first) * tables.width * _FLOAT_BYTES)
                    file.write(weight[low - tables.owned[0] : high - tables.owned[0]].numpy().data)
            file.flush()
            os.fsync(file.fileno())

    digest = ""

    def keep() -> None:
        nonlocal digest
        if team.first:
            digest = sha256(part)
            with storage_errors(path):
                part.replace(path)

    team.together(lay_out, f"begin {path}")
    team.together(write, f"write {path}")
    team.together(keep, f"finish {path}")
    return digest
