"""Every model by its name: those of this package, of installed packages, and of files.

A model is a class with a ``Config``, registered by a decorator::

    @register_model("two_towers")
    class TwoTowers(Ranker):
        Config = TwoTowersConfig

The modules of `hemix.models` are found by themselves, an installed package names a module in the
entry point group ``hemix.models``, and :func:`import_file` reads a file (``--import FILE``).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from hemix.errors import HemixError, SettingsError, UsageError
from hemix.models.base import ModelConfig
from hemix.models.predictor import Predictor
from hemix.validation import did_you_mean

__all__ = [
    "ModelEntry",
    "find_model",
    "import_file",
    "import_files",
    "known_models",
    "model_names",
    "register_model",
]

GROUP = "hemix.models"
"""The entry point group; an entry's name is its model's."""

P = TypeVar("P", bound=Predictor)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A registered model."""

    name: str
    model: type[Predictor]
    config: type[ModelConfig]

    @property
    def file(self) -> Path | None:
        """The file that the model came from; None for a model of an installed package."""
        module = sys.modules.get(self.model.__module__)
        if module is None or (_is_installed(module.__name__) and module.__name__ != "__main__"):
            return None
        file = getattr(module, "__file__", None)
        return None if file is None else Path(file).absolute()

    @property
    def is_installed(self) -> bool:
        """Whether every process can import the model without ``--import``."""
        return _is_installed(self.model.__module__)

    def source(self) -> dict[str, str] | None:
        """Return the file's name and sha256, as a run notes them; None for an installed model."""
        file = self.file
        if self.is_installed:
            return None
        if file is None:
            return {"module": self.model.__module__}
        return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


_entries: dict[str, ModelEntry] = {}
_files: dict[Path, str] = {}
"""Imported files, and the module that each became."""


def register_model(name: str) -> Callable[[type[P]], type[P]]:
    """Return a decorator that registers a model class under ``name``.

    The class has ``Config``, a :class:`~hemix.models.base.ModelConfig` with the model's own
    settings, and is made by ``cls(spec, config)``.

    Raises:
        SettingsError: The name is taken, or the class has no such ``Config``.
    """

    def register(model: type[P]) -> type[P]:
        config = getattr(model, "Config", None)
        if not (inspect.isclass(config) and issubclass(config, ModelConfig)):
            raise SettingsError(
                f"model {name!r}: {model.__name__} has no Config, a subclass of "
                "hemix.models.base.ModelConfig",
                field=name,
            )
        before = _entries.get(name)
        if before is None and model.__module__.partition(".")[0] != "hemix":
            _import_package()
            before = _entries.get(name)
        if before is not None and not _same(before.model, model):
            owner = f"{before.model.__module__}.{before.model.__qualname__}"
            raise SettingsError(
                f"the model name {name!r} is taken by {owner}: choose another name",
                code="name_taken",
                field=name,
            )
        _entries[name] = ModelEntry(name=name, model=model, config=config)
        return model

    return register


def find_model(name: str) -> ModelEntry:
    """Return a model by its name.

    Raises:
        SettingsError: No model has the name, or the installed package that names it fails.
    """
    _import_package()
    entry_point = _entry_points().get(name)
    if entry_point is not None:
        entry = _entries.get(name)
        if entry is not None and entry.model.__module__ != entry_point.module:
            raise SettingsError(
                f"model.name: {name!r} is taken by {entry.model.__module__} and by an installed "
                f"package ({entry_point.value}): remove one",
                code="name_taken",
                field="model.name",
            )
        _load(entry_point)
    if name not in _entries:
        guess = did_you_mean(name, model_names())
        raise SettingsError(
            f"model.name: unknown model {name!r}; known: {', '.join(model_names())}"
            f"{guess and f'; {guess}'} (a model of your own: --import FILE)",
            code="unknown_model",
            field="model.name",
        )
    return _entries[name]


def model_names() -> tuple[str, ...]:
    """Return the names of all models, HeMix's first."""
    _import_package()
    names = {*_entries, *_entry_points()}
    return tuple(sorted(names, key=lambda name: (name != "hemix", name)))


def known_models() -> list[ModelEntry]:
    """Return the models that are imported, HeMix first; an entry point waits until it is named."""
    return [_entries[name] for name in model_names() if name in _entries]


def import_files(paths: Iterable[str | Path]) -> None:
    """Import files that register models, each once; see :func:`import_file`."""
    for path in paths:
        import_file(path)


def import_file(path: str | Path) -> list[ModelEntry]:
    """Import a Python file that registers models.

    Args:
        path: The file. A second import of it does nothing.

    Returns:
        What it registered.

    Raises:
        UsageError: The file is missing, fails to import, or registers nothing.
    """
    file = Path(path).absolute()
    if file in _files:
        return [entry for entry in _entries.values() if entry.model.__module__ == _files[file]]
    if not file.is_file():
        raise UsageError(f"--import {path}: no such file", field="--import")
    name = f"hemix_imported_{file.stem}_{len(_files)}"
    location = importlib.util.spec_from_file_location(name, file)
    if file.suffix != ".py" or location is None or location.loader is None:
        raise UsageError(f"--import {path}: expected a Python file, NAME.py", field="--import")
    before = set(_entries)
    module = importlib.util.module_from_spec(location)
    sys.modules[name] = module
    try:
        location.loader.exec_module(module)
        new = [_entries[key] for key in _entries if key not in before]
        if not new:
            raise UsageError("registers no model: expected a class with @register_model(NAME)")
    except BaseException as error:
        del sys.modules[name]
        for key in set(_entries) - before:
            del _entries[key]
        if isinstance(error, HemixError):
            raise UsageError(
                f"--import {path}: {error}", code=error.code, field="--import"
            ) from error
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(
            f"--import {path}: {_failure(error, file)}", code="import_failed", field="--import"
        ) from error
    _files[file] = name
    return new


def _failure(error: BaseException, file: Path) -> str:
    """Why an import failed, with the last line of the file that was reached."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f" (line {line})" if line else ""
    reason = error.msg if isinstance(error, SyntaxError) else error
    return f"fails to import{where}: {type(error).__name__}: {reason}"


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, EntryPoint]:
    """The installed packages' models by name. Raises SettingsError where two share a name."""
    points = dict[str, EntryPoint]()
    for point in entry_points(group=GROUP):
        if point.name in points and points[point.name].value != point.value:
            raise SettingsError(
                f"the model name {point.name!r} is taken twice by installed packages: "
                f"{points[point.name].value} and {point.value}",
                code="name_taken",
                field=point.name,
            )
        points[point.name] = point
    return points


def _load(point: EntryPoint) -> None:
    """Import an entry point. Raises SettingsError naming it where that fails."""
    try:
        point.load()
    except HemixError as error:
        raise SettingsError(
            f"model.name: {point.name}: {error}", code=error.code, field="model.name"
        ) from error
    except Exception as error:
        raise SettingsError(
            f"model.name: {point.name}: the entry point {point.value} fails to import: "
            f"{type(error).__name__}: {error}",
            code="import_failed",
            field="model.name",
        ) from error


@lru_cache(maxsize=1)
def _import_package() -> None:
    """Import every module of this package, so that its models are registered."""
    package = importlib.import_module("hemix.models")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"hemix.models.{module.name}")


def _is_installed(module: str) -> bool:
    """Whether a module is found by its name: one of this package, or of an entry point."""
    modules = {point.module for point in _entry_points().values()}
    return module.partition(".")[0] == "hemix" or module in modules


def _same(one: type, other: type) -> bool:
    """Whether a class is another one, imported again."""
    return one is other or (
        (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    )
