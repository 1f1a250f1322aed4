"""A cell: one model with one set of settings, trained on one dataset from one seed, and where its
results lie.

``DIR/cells/<model>-<data>-s<seed>-<hash>/`` holds ``cell.json`` (what it is), ``result.json`` and
``valid.npy`` (once it is trained and scored), ``test.json`` and ``test.npy`` (once test was
opened), ``run/`` (until its weights are dropped) and ``log.txt``. The hash covers the settings, the
dataset's content and the version of this format: whatever else changes, a finished cell is the same
cell.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hemix.errors import RunError, UsageError
from hemix.formats import SavedFormat
from hemix.lab.studies.inputs import Input
from hemix.models import find_model
from hemix.settings import Settings, build_settings

__all__ = ["CELL_FORMAT", "SEEDS_APART", "STUDY_FORMAT", "Cell", "Contender", "Judged"]

CELL_FORMAT = SavedFormat(version=2, error=RunError, remedy="name a new folder with --out")
"""Of cell.json, result.json and test.json, and of how they are measured. A higher version makes all
cells new.
"""
STUDY_FORMAT = SavedFormat(version=1, error=RunError, remedy="name a new folder with --out")
"""Of compare.json, ablate.json, scale.json and openings.jsonl"""

SEEDS_APART = 1000
"""Seeds of one origin and the next lie so far apart: no two runs of a study share their chance."""

Judged = Literal["valid", "test"]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is compared: a model with settings that are not the defaults."""

    label: str
    settings: Settings
    changes: dict[str, Any]
    """Settings over the defaults, by ``section.name``, to be shown"""
    history_events_max: int | None = None

    @classmethod
    def of(
        cls, label: str, changes: dict[str, Any], *, history_events_max: int | None = None
    ) -> Contender:
        """``changes`` hold ``model.name`` too. Raises SettingsError naming the setting."""
        settings = build_settings(overrides=changes)
        return cls(
            label=label, settings=settings, changes=changes, history_events_max=history_events_max
        )

    @property
    def model(self) -> str:
        """The model's name."""
        return self.settings.model.name

    def imports(self) -> dict[str, list[str]]:
        """Return what a process imports before it knows the model: ``{"imports": [FILE]}`` of a
        model from a file, nothing of another.

        Raises:
            UsageError: The model was made in no file, so no other process can have it.
        """
        entry = find_model(self.model)
        if entry.is_installed:
            return {}
        if entry.file is None:
            raise UsageError(
                f"the model {self.model!r} was registered in no file: put it into one, which the "
                "processes of a study can import"
            )
        return {"imports": [str(entry.file)]}

    @property
    def cost_key(self) -> str:
        """Contenders of one key cost about the same an impression."""
        content = self.settings.model_dump(mode="json")
        for name in ("table_learning_rate", "dense_learning_rate", "seed"):
            content["train"].pop(name, None)
        content["model"].pop("dropout", None)
        return hashlib.sha256(
            json.dumps([content, self.history_events_max], sort_keys=True).encode()
        ).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study."""

    root: Path
    """The study's folder"""
    contender: Contender
    data: Input
    seed: int

    @cached_property
    def settings(self) -> Settings:
        """The contender's, with this cell's seed."""
        train = self.contender.settings.train.model_copy(update={"seed": self.seed})
        return self.contender.settings.model_copy(update={"train": train})

    @cached_property
    def name(self) -> str:
        """A readable id and a hash of all that matters."""
        settings = self.settings.model_dump(
            mode="json", exclude={"train": {"loader_workers"}}
        )  # it changes no result
        content: list[Any] = [
            CELL_FORMAT.version,
            settings,
            self.data.digest,
            self.contender.history_events_max,
        ]
        source = find_model(self.contender.model).source()
        if source is not None:
            content.append(source)
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        readable = re.sub(
            r"[^A-Za-z0-9_.]+", "_", f"{self.contender.model}-{self.data.name}"
        ).replace("_", "-")
        return f"{readable}-s{self.seed}-{key}"

    @cached_property
    def folder(self) -> Path:
        """Where it lies; a cell of the same hash under another readable name is this cell."""
        key = self.name.rpartition("-")[2]
        found = sorted((self.root / "cells").glob(f"*-{key}"))
        return found[0] if found else self.root / "cells" / self.name

    def begin(self) -> None:
        """Write cell.json, from which the cell's process works."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "format": CELL_FORMAT.version,
            "model": self.contender.model,
            "data": str(self.data.folder.absolute()),
            "data_digest": self.data.digest,
            "seed": self.seed,
            "history_events_max": self.contender.history_events_max,
            "cost_key": self.contender.cost_key,
            "settings": self.settings.model_dump(mode="json"),
            **self.contender.imports(),
        }
        CELL_FORMAT.write(self.folder / "cell.json", content)

    def done(self, split: Judged) -> bool:
        """Whether its results of a split are there."""
        trained = (self.folder / "result.json").exists()
        return trained and (split == "valid" or (self.folder / "test.json").exists())

    @property
    def result(self) -> dict[str, Any]:
        """result.json. Raises RunError where it is missing, damaged or of another version."""
        return CELL_FORMAT.read(self.folder / "result.json")

    def judged(self, split: Judged) -> dict[str, Any]:
        """The metrics of a split, by task. Raises RunError."""
        name = "result.json" if split == "valid" else "test.json"
        tasks: dict[str, Any] = CELL_FORMAT.read(self.folder / name)["tasks"]
        return tasks

    def drop_weights(self) -> None:
        """Remove the trained run: its predictions and figures stay."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
