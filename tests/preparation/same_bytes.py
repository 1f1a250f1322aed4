"""Files of dataset folders, to compare two preparations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

__all__ = ["file_hashes"]


def file_hashes(data: Path) -> dict[str, str]:
    """Return the hash of every file; of the manifest without the time that it took."""
    hashes = {}
    for path in sorted(data.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path == data / "manifest.json":
                manifest = {k: v for k, v in json.loads(content).items() if k != "seconds"}
                content = json.dumps(manifest).encode()
            hashes[str(path.relative_to(data))] = hashlib.sha256(content).hexdigest()
    return hashes
