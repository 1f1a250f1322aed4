"""Run folders and registries of them: which runs to serve, and whether a run may be served.

RUN is one run folder: one model, one version. REGISTRY/name/version/ are run folders; the newest
version of every name is served.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hemix.errors import RunError
from hemix.schema import Schema
from hemix.serving.stores import StoreLimits

__all__ = ["check_folder", "check_histories", "find_runs", "is_valid_name"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IGNORED = ("logs", "data", "checkpoints", "served")
"""Folders in a run's folder, as a demo has them, that a server never reads"""
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill")
_KNOWN_SUFFIXES = (".safetensors", ".parquet", ".json", ".jsonl", ".yaml", ".html")
"""Files that are parsed by their suffix's format and never unpickled"""


def is_valid_name(name: str) -> bool:
    """Return whether ``name`` may be a model's name or version in a registry."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def find_runs(folder: Path) -> list[tuple[str, str, Path]]:
    """Find the runs of a run folder or a registry, which may be links.

    Returns:
        Name, version and run folder of each.

    Raises:
        RunError: The folder is neither a run folder nor a registry.
    """
    if not folder.is_dir():
        raise RunError(
            f"{folder}: no such run folder or registry", code="missing_run", field=str(folder)
        )
    if (folder / "run.json").exists() or (folder / "settings.yaml").exists():
        # a link's own name stays the same when the link moves to another run
        name = folder.name if folder.name not in ("", "..") else folder.resolve().name
        return [(name if _NAME.fullmatch(name) else "model", "1", folder)]
    runs = []
    for model in _named_folders(folder):
        versions = [path for path in _named_folders(model) if (path / "run.json").is_file()]
        if versions:
            newest = max(versions, key=lambda path: _version_order(path.name))
            runs.append((model.name, newest.name, newest))
    if not runs:
        raise RunError(
            f"{folder}: neither a run folder (run.json) nor a registry of them "
            "(name/version/run.json)",
            code="missing_run",
            field=str(folder),
        )
    return runs


def _named_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())


def _version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key: 10 after 9, 1.10 after 1.9, v10 after v9."""
    return tuple(
        (1, int(section), "") if section.isdecimal() else (0, 0, section)
        for section in re.findall(r"\d+|[^\d.-]+", version)
    )


def check_histories(schema: Schema, limits: StoreLimits, version: str) -> None:
    """Refuse a model whose histories the store cannot provide.

    Args:
        schema: Schema of the model.
        limits: Limits of the store.
        version: Name and version, for messages.

    Raises:
        RunError: The store keeps fewer events than the model reads, or events of another source.
    """
    longest = schema.history.global_length + schema.history.realtime_length
    if longest > limits.cap:
        raise RunError(
            f"{version}: reads {longest:,} events of a user, but this server's store keeps "
            f"{limits.cap:,}: start it with --history-cap {longest} or more",
            code="unsuitable_store",
            field="--history-cap",
        )
    if (schema.history_source == "impressions") != limits.impressions:
        stored = "impressions too" if limits.impressions else "no impressions"
        raise RunError(
            f"{version}: its histories are of {schema.history_source}, but the histories of this "
            f"server's store contain {stored}: give it a server and a store of its own",
            code="unsuitable_store",
            field="--store",
        )


def check_folder(folder: Path) -> None:
    """Refuse a run folder with links that lead out of it, or with pickled files.

    Logs and data in the folder are not checked, because a server never reads them.

    Raises:
        RunError: Names the link or file.
    """
    folder = folder.resolve()
    for path, folders, files in os.walk(folder):
        parent = Path(path)
        if parent == folder:
            folders[:] = [name for name in folders if name not in _IGNORED]
        for name in (*folders, *files):
            if (parent / name).is_symlink() and not _stays_inside(parent / name, folder):
                raise RunError(
                    f"{parent / name}: is a link that leads out of the run's folder, or nowhere",
                    code="unsafe_run",
                    field=str(parent / name),
                    hint="copy its target",
                )
        for name in files:
            if name.lower().endswith(_PICKLE_SUFFIXES) or _looks_pickled(parent / name):
                raise RunError(
                    f"{parent / name}: is pickled; weights are safetensors, and nothing is ever "
                    "unpickled",
                    code="unsafe_run",
                    field=str(parent / name),
                )


def _stays_inside(link: Path, folder: Path) -> bool:
    """Return whether a link leads to something in the folder that is checked too."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # a missing target, or a cycle
        return False
    return (
        target.is_relative_to(folder)
        and target != folder
        and target.relative_to(folder).parts[0] not in _IGNORED
    )


def _looks_pickled(path: Path) -> bool:
    if path.suffix in _KNOWN_SUFFIXES or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"\x93NUMPY"):
        # only the header decides: the numbers behind it may look like anything
        header = head[: 10 + int.from_bytes(head[8:10], "little")]
        return b"'O'" in header or b"|O" in header
    return head.startswith(b"PK\x03\x04") or (len(head) > 1 and head[0] == 0x80 and head[1] <= 5)
