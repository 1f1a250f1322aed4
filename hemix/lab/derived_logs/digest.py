"""Digest of a logs folder: of the rows, whatever version of Arrow wrote the files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.texts import is_keyable, texts_of

__all__ = ["logs_digest"]

_CHUNK_ROWS = 1 << 16


def logs_digest(folder: Path) -> str:
    """Compute the SHA-256 of the schema and of every row of a logs folder.

    The known probabilities of a simulation do not count, because their last bits depend on the
    machine.

    Args:
        folder: The logs folder, with one Parquet file a table.

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256((folder / "schema.yaml").read_bytes())
    for path in sorted(folder.glob("*.parquet")):
        if path.stem == "truth":
            continue
        with pq.ParquetFile(path) as file:
            digest.update(f"{path.stem}: {', '.join(file.schema_arrow.names)}\n".encode())
            for batch in file.iter_batches(batch_size=_CHUNK_ROWS):
                for column in batch.columns:
                    digest.update(_content(column))
    return digest.hexdigest()


def _content(values: pa.Array) -> bytes:
    """The texts of a column's values, which determine them."""
    if pa.types.is_list(values.type):
        lengths = ["" if row is None else str(len(row)) for row in values.to_pylist()]
        return "\x1f".join(lengths).encode() + b"\x1e" + _content(values.flatten())
    assert is_keyable(values.type), values.type
    texts = texts_of(values)
    present: bytes = texts.is_valid().to_numpy(zero_copy_only=False).tobytes()
    joined = "\x1f".join(texts.fill_null("").to_pylist())
    return present + joined.encode() + b"\x1e"
