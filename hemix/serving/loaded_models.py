"""The models of a server, and the replacement of a version while requests run.

A version is checked, loaded and warmed up before a request can use it; a failure leaves the old one
in service. Links are followed when the server starts. A name that is requested later may contain
none.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from hemix.errors import HemixError, RequestError, RunError, UnknownVersion, UsageError
from hemix.runs.folder import METRICS_FORMAT
from hemix.schema import Schema
from hemix.serving.field_validation import FieldValidator
from hemix.serving.run_folders import check_folder, is_valid_name
from hemix.serving.types import Ranking, RankRequest

__all__ = ["LoadEngine", "LoadedModel", "LoadedModels", "ModelDescription", "RankingEngine"]

_TEST_METRICS = ("auc", "gauc", "ndcg_at_10", "logloss", "ne", "pcoc", "ece")


class RankingEngine(Protocol):
    """Ranks requests; :class:`hemix.serving.engine.Engine` is one."""

    @property
    def schema(self) -> Schema:
        """The run's schema."""
        ...

    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        """Rank requests.

        Args:
            requests: The requests.
            check: Called with each ranking; no ranking is logged where it raises.

        Returns:
            A ranking for every request, in their order.
        """
        ...

    def warm_up(self) -> None:
        """Rank a made-up request, so that the first real one is fast."""
        ...

    def close(self) -> None:
        """Release threads and memory."""
        ...


LoadEngine = Callable[[Path, str, str], RankingEngine]
"""(run folder, name, version) -> the engine"""


class ModelDescription(TypedDict):
    """A version in service.

    ``sha256`` is that of its run.json, which lists the digests of its weights; ``test`` has the
    metrics of every task on the test split.
    """

    name: str
    version: str
    state: Literal["ready"]
    schema: str
    sha256: str | None
    outputs: list[str]
    test: dict[str, dict[str, Any]]


@dataclass(eq=False)
class LoadedModel:
    """A version in service."""

    name: str
    version: str
    folder: Path
    engine: RankingEngine
    checks: FieldValidator
    leases: int = 0
    """Requests that use it."""
    replaced: bool = False

    def description(self) -> ModelDescription:
        """Return the description in the answer of GET /v1/models."""
        info = self.folder / "run.json"
        return {
            "name": self.name,
            "version": self.version,
            "state": "ready",
            "schema": self.engine.schema.columns_fingerprint(),
            "sha256": hashlib.sha256(info.read_bytes()).hexdigest() if info.is_file() else None,
            "outputs": list(self.engine.schema.outputs),
            "test": _test_metrics(self.folder / "metrics.json"),
        }


def _test_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Return every task's metrics on the test split; empty for a run that was not evaluated."""
    if not path.is_file():
        return {}
    try:
        tasks = METRICS_FORMAT.read(path).get("split", {}).get("test", {}).get("tasks", {})
    except RunError:
        return {}
    return {
        name: {metric: task[metric] for metric in _TEST_METRICS if metric in task}
        for name, task in tasks.items()
    }


class LoadedModels:
    """The model in service for every name. Thread-safe; loads one version at a time."""

    def __init__(
        self, load_engine: LoadEngine, registry: Path | None = None, *, strict: bool = False
    ) -> None:
        """Start without models.

        Args:
            load_engine: Loads a version.
            registry: Folder name/version/ that :meth:`load` reads; None: it refuses.
            strict: Refuse columns that a schema does not name.
        """
        self._load_engine = load_engine
        self._strict = strict
        self.registry = registry
        self._models: dict[str, LoadedModel] = {}
        self._descriptions: dict[str, ModelDescription] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._closing: list[threading.Thread] = []

    def put(self, name: str, version: str, folder: Path) -> ModelDescription:
        """Load a version, warm it up and put it in service.

        Args:
            name: Name of the model.
            version: Its version.
            folder: The run's folder; of a link the present target is served.

        Returns:
            The version's description.

        Raises:
            RunError: The version cannot be served; the old one stays in service.
        """
        folder = folder.resolve()
        check_folder(folder)
        engine = self._load_engine(folder, name, version)
        try:
            engine.warm_up()
            checks = FieldValidator(engine.schema, strict=self._strict)
            model = LoadedModel(name, version, folder, engine, checks)
            description = model.description()
        except BaseException:
            engine.close()
            raise
        with self._lock:
            old = self._models.get(name)
            self._models[name], self._descriptions[name] = model, description
            if old is not None:
                old.replaced = True
            unused = old is not None and old.leases == 0
        if old is not None and unused:
            self._close_in_thread(old.engine)
        return description

    def load(self, name: str, version: str) -> ModelDescription | None:
        """Load a version of the registry.

        Args:
            name: Name of the model.
            version: Its version.

        Returns:
            The version's description; None while another version is being loaded.

        Raises:
            UsageError: There is no registry.
            RequestError: The name or version is invalid.
            UnknownVersion: The registry has no such version.
            RunError: The version cannot be served.
        """
        if self.registry is None:
            raise UsageError(
                "this server has no registry: start it with one, REGISTRY/name/version/"
            )
        for field, value in (("name", name), ("version", version)):
            if not is_valid_name(value):
                raise RequestError(field, "expected letters, digits, _, - and single dots")
        if not self._loading.acquire(blocking=False):
            return None
        try:
            return self._load_from(self.registry / name / version, name, version)
        except (UsageError, RunError):
            raise
        except Exception as error:  # the old version stays, whatever a damaged folder raises
            kind = "" if isinstance(error, HemixError) else f"{type(error).__name__}: "
            raise RunError(f"{name}/{version}: cannot be served: {kind}{error}") from error
        finally:
            self._loading.release()

    def _load_from(self, folder: Path, name: str, version: str) -> ModelDescription:
        if any(path.is_symlink() for path in (folder, folder.parent)):
            raise RunError(
                f"{name}/{version}: is a link; links are followed when a server starts, not "
                "when a version is requested",
                code="unsafe_run",
                field=str(folder),
            )
        if not folder.is_dir():
            raise UnknownVersion(
                f"{name}/{version}: no such version in the registry", field="version"
            )
        return self.put(name, version, folder)

    @contextmanager
    def lease(self, name: str | None) -> Iterator[LoadedModel | None]:
        """Use a model, which stays open until the block ends.

        Args:
            name: Name of the model; None: the first one.

        Yields:
            The model; None for an unknown name.
        """
        with self._lock:
            if name is None:
                model = next(iter(self._models.values()), None)
            else:
                model = self._models.get(name)
            if model is not None:
                model.leases += 1
        try:
            yield model
        finally:
            if model is not None:
                with self._lock:
                    model.leases -= 1
                    unused = model.replaced and model.leases == 0
                if unused:
                    self._close_in_thread(model.engine)

    def _close_in_thread(self, engine: RankingEngine) -> None:
        """Close an engine, which may write a log, without delaying the last request's answer."""
        thread = threading.Thread(target=engine.close, name="hemix-close")
        with self._lock:
            self._closing = [running for running in self._closing if running.is_alive()]
            self._closing.append(thread)
            thread.start()

    def checks(self) -> dict[str, FieldValidator]:
        """Return the field checks of every model, by its name."""
        with self._lock:
            return {name: model.checks for name, model in self._models.items()}

    def descriptions(self) -> list[ModelDescription]:
        """Return every model's description."""
        with self._lock:
            return list(self._descriptions.values())

    def close(self) -> None:
        """Close every model, and wait for replaced ones to close."""
        with self._lock:
            models, self._models = list(self._models.values()), {}
            closing = self._closing
        for model in models:
            model.engine.close()
        for thread in closing:
            thread.join()
