"""The models that a server holds, and how a new version takes an old one's place while requests go
on.

    RUN                        one run folder: one model, one version
    REGISTRY/name/version/     run folders; of every name the newest version is served

A version is looked at, loaded and warmed up before it is shown to a request; whatever fails on the
way leaves the old one serving. Links to what is served from the start are followed; a name that is
asked for later leads through none. No link leads out of a run, and nothing in it is pickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hemix.errors import HemixError, RunError, UsageError
from hemix.runs.folder import METRICS_FORMAT
from hemix.schema import Schema
from hemix.serving.checks import FieldChecks
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Ranking, RankRequest

__all__ = ["Load", "Models", "Ranker", "Served", "check_folder", "check_histories", "find_runs"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NOT_READ = ("logs", "data", "checkpoints", "served")
"""Beside a run's files, as a demo has them: never read by a server, and not looked at"""
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill")


class Ranker(Protocol):
    """What ranks: :class:`hemix.serving.engine.Engine`."""

    @property
    def schema(self) -> Schema:
        """The run's schema."""
        ...

    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        """A ranking for every request, in their order; none is logged where ``check`` raises."""
        ...

    def warm_up(self) -> None:
        """Rank something made up, so that the first request finds all in place."""
        ...

    def close(self) -> None:
        """Let go of threads and memory."""
        ...


Load = Callable[[Path, str, str], Ranker]
"""(run folder, name, version) -> what ranks with it"""


@dataclass(eq=False)
class Served:
    """A version in its place."""

    name: str
    version: str
    folder: Path
    ranker: Ranker
    checks: FieldChecks
    users: int = 0
    retired: bool = False

    def facts(self) -> dict[str, Any]:
        """What GET /v1/models says of it."""
        info = self.folder / "run.json"
        metrics = self.folder / "metrics.json"
        return {
            "name": self.name,
            "version": self.version,
            "state": "ready",
            "schema": self.ranker.schema.columns_fingerprint(),
            "sha256": hashlib.sha256(info.read_bytes()).hexdigest() if info.is_file() else None,
            "outputs": list(self.ranker.schema.outputs),
            "test": _test_metrics(metrics),
        }


def _test_metrics(path: Path) -> dict[str, Any]:
    """AUC, log loss and the like of every task on the test split; empty where the run was not
    evaluated.
    """
    if not path.is_file():
        return {}
    try:
        tasks = METRICS_FORMAT.read(path).get("split", {}).get("test", {}).get("tasks", {})
    except RunError:
        return {}
    kept = ("auc", "gauc", "ndcg_at_10", "logloss", "ne", "pcoc", "ece")
    return {name: {key: task[key] for key in kept if key in task} for name, task in tasks.items()}


class Models:
    """Names, each with the version that serves. Loads one at a time."""

    def __init__(self, load: Load, registry: Path | None = None, *, strict: bool = False) -> None:
        self._load = load
        self._strict = strict
        self.registry = registry
        self._served: dict[str, Served] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._closing: list[threading.Thread] = []

    def put(self, name: str, version: str, folder: Path) -> dict[str, Any]:
        """Load, warm up and show a version; returns its facts. ``folder`` may be a link: what it
        leads to now is served until the next load. Raises RunError, and leaves what was there."""
        folder = folder.resolve()
        check_folder(folder)
        ranker = self._load(folder, name, version)
        try:
            ranker.warm_up()
            made = Served(
                name, version, folder, ranker, FieldChecks(ranker.schema, strict=self._strict)
            )
            facts = made.facts()
        except BaseException:
            ranker.close()
            raise
        with self._lock:
            old = self._served.get(name)
            self._served[name], self._facts[name] = made, facts
            if old is not None:
                old.retired = True
                idle = old.users == 0
        if old is not None and idle:
            self._close(old.ranker)
        return facts

    def load(self, name: str, version: str) -> dict[str, Any] | None:
        """Load a version of the registry; None where another load is under way.

        Raises UsageError for a name that cannot be one or where there is no registry, RunError for
        a version that is not there or cannot be served.
        """
        if self.registry is None:
            raise UsageError(
                "this server has no registry: start it with one, REGISTRY/name/version/"
            )
        for field, value in (("name", name), ("version", version)):
            if not _NAME.fullmatch(value) or ".." in value:
                raise UsageError(f"{field}: expected letters, digits, _, - and single dots")
        folder = self.registry / name / version
        if not self._loading.acquire(blocking=False):
            return None
        try:
            if any(path.is_symlink() for path in (folder, folder.parent)):
                raise RunError(
                    f"{name}/{version}: is a link; links are followed when a server starts, not "
                    "when a version is asked for"
                )
            if not folder.is_dir():
                raise RunError(f"{name}/{version}: no such version in the registry")
            return self.put(name, version, folder)
        except (UsageError, RunError):
            raise
        except Exception as error:  # whatever a damaged folder leads to, the old version serves on
            kind = "" if isinstance(error, HemixError) else f"{type(error).__name__}: "
            raise RunError(f"{name}/{version}: cannot be served: {kind}{error}") from error
        finally:
            self._loading.release()

    @contextmanager
    def lease(self, name: str | None) -> Iterator[Served | None]:
        """The version that serves ``name`` (None: the first model), kept open for as long as the
        block; None: no such model.
        """
        with self._lock:
            served = (
                self._served.get(name)
                if name is not None
                else next(iter(self._served.values()), None)
            )
            if served is not None:
                served.users += 1
        try:
            yield served
        finally:
            if served is not None:
                with self._lock:
                    served.users -= 1
                    last = served.retired and served.users == 0
                if last:
                    self._close(served.ranker)

    def _close(self, ranker: Ranker) -> None:
        """In a thread of its own: it may write a log out, and whoever used it last has an answer to
        give.
        """
        thread = threading.Thread(target=ranker.close, name="hemix-close")
        with self._lock:
            self._closing = [one for one in self._closing if one.is_alive()] + [thread]
            thread.start()

    def checks(self) -> dict[str, FieldChecks]:
        """The checks of every model's schema, by the model's name."""
        with self._lock:
            return {name: served.checks for name, served in self._served.items()}

    def facts(self) -> list[dict[str, Any]]:
        """Every model's facts."""
        with self._lock:
            return list(self._facts.values())

    def close(self) -> None:
        """Close every model; returns once the replaced ones are closed too."""
        with self._lock:
            served, self._served = list(self._served.values()), {}
            closing = self._closing
        for one in served:
            one.ranker.close()
        for thread in closing:
            thread.join()


def check_histories(schema: Schema, limits: StoreLimits, version: str) -> None:
    """Raises RunError, naming the ``version``, where a store of these limits does not keep the
    histories that a model of this schema was trained on.
    """
    longest = schema.history.global_length + schema.history.realtime_length
    if longest > limits.cap:
        raise RunError(
            f"{version}: sees {longest:,} events of a user, but this server's store keeps "
            f"{limits.cap:,}: "
            f"start it with --history-cap {longest} or more"
        )
    if (schema.history_source == "impressions") != limits.impressions:
        kept = "impressions too" if limits.impressions else "no impressions"
        raise RunError(
            f"{version}: its histories are of {schema.history_source}, but those of this server's "
            f"store hold {kept}: "
            f"give it a server and a store of its own"
        )


def find_runs(folder: Path) -> list[tuple[str, str, Path]]:
    """(name, version, run folder) of what to serve from a run folder or a registry; either, and a
    name or version in a registry, may be a link. Raises RunError where it is neither."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder or registry")
    if (folder / "run.json").exists() or (folder / "settings.yaml").exists():
        name = (
            folder.name if folder.name not in ("", "..") else folder.resolve().name
        )  # a link's own name stays when it is moved on
        return [(name if _NAME.fullmatch(name) else "model", "1", folder)]
    found = []
    for model in sorted(
        path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()
    ):
        versions = [
            path
            for path in model.iterdir()
            if _NAME.fullmatch(path.name) and (path / "run.json").is_file()
        ]
        if versions:
            newest = max(versions, key=lambda path: _version_order(path.name))
            found.append((model.name, newest.name, newest))
    if not found:
        raise RunError(
            f"{folder}: neither a run folder (run.json) nor a registry of them "
            "(name/version/run.json)"
        )
    return found


def _version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """10 after 9, 1.10 after 1.9, v10 after v9."""
    return tuple(
        (1, int(p), "") if p.isdecimal() else (0, 0, p)
        for p in re.findall(r"\d+|[^\d.-]+", version)
    )


def check_folder(folder: Path) -> None:
    """Raises RunError where a run folder holds a link that leads out of it, or a file that only
    unpickling could read. Logs and data beside the run, as a demo has them, are never read and not
    looked at."""
    folder = folder.resolve()
    for path, folders, files in os.walk(folder):
        here = Path(path)
        if here == folder:
            folders[:] = [name for name in folders if name not in _NOT_READ]
        for name in (*folders, *files):
            if (here / name).is_symlink() and not _stays(here / name, folder):
                raise RunError(
                    f"{here / name}: is a link that leads out of the run's folder, or nowhere; "
                    "copy what it leads to"
                )
        for name in files:
            if name.lower().endswith(_PICKLED) or _looks_pickled(here / name):
                raise RunError(
                    f"{here / name}: is pickled; weights are safetensors, and nothing is ever "
                    "unpickled"
                )


def _stays(link: Path, folder: Path) -> bool:
    """Whether a link leads to something in the folder that is looked at too."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # nowhere, or round in a circle
        return False
    return (
        target.is_relative_to(folder)
        and target != folder
        and target.relative_to(folder).parts[0] not in _NOT_READ
    )


def _looks_pickled(path: Path) -> bool:
    if (
        path.suffix in (".safetensors", ".parquet", ".json", ".jsonl", ".yaml", ".html")
        or not path.is_file()
    ):
        return False  # read as what they say they are, or refused
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"\x93NUMPY"):
        header = 10 + int.from_bytes(
            head[8:10], "little"
        )  # what follows are numbers, which may look like anything
        return b"'O'" in head[:header] or b"|O" in head[:header]
    return head.startswith(b"PK\x03\x04") or (len(head) > 1 and head[0] == 0x80 and head[1] <= 5)
