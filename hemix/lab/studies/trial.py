"""A trial: one candidate, trained on one dataset from one seed, and the folder of its results.

``DIR/trials/<model>-<data>-s<seed>-<hash>/`` holds ``trial.json`` (the definition), ``result.json``
and ``valid.npy`` (after training), ``test.json`` and ``test.npy`` (after scoring test), ``run/``
and ``log.txt``. The hash covers the settings, the dataset's content and :data:`TRIAL_FORMAT`.
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

from hemix.errors import RunError
from hemix.formats import SavedFormat
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import StudyDataset
from hemix.models import find_model
from hemix.settings import ResolvedSettings

__all__ = ["DEFINITION_FILE", "TRIALS_FOLDER", "TRIAL_FORMAT", "EvaluatedSplit", "Trial"]

TRIAL_FORMAT = SavedFormat(version=3, error=RunError, remedy="name a new folder with --out")
"""Of a trial's files and measurements. A higher version invalidates all finished trials."""

EvaluatedSplit = Literal["valid", "test"]

TRIALS_FOLDER = "trials"
DEFINITION_FILE = "trial.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run of a study."""

    root: Path
    """The study's folder"""
    candidate: Candidate
    dataset: StudyDataset
    seed: int

    @cached_property
    def settings(self) -> ResolvedSettings:
        """The candidate's settings with this trial's seed, ``auto`` resolved by the train rows."""
        train = self.candidate.settings.train.model_copy(update={"seed": self.seed})
        settings = self.candidate.settings.model_copy(update={"train": train})
        return settings.resolved(self.dataset.train_rows)

    @property
    def cost_key(self) -> str:
        """Hash of the settings that affect the cost of an impression."""
        content = self.settings.model_dump(mode="json")
        for name in ("table_learning_rate", "dense_learning_rate", "warmup_steps", "seed"):
            content["train"].pop(name)
        content["model"].pop("dropout", None)
        of_trial = [content, self.candidate.history_events_max]
        return hashlib.sha256(json.dumps(of_trial, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def name(self) -> str:
        """A readable id that ends with the hash of everything that affects the result."""
        # the number of loader workers affects no result
        settings = self.settings.model_dump(mode="json", exclude={"train": {"loader_workers"}})
        content: list[Any] = [
            TRIAL_FORMAT.version,
            settings,
            self.dataset.digest,
            self.candidate.history_events_max,
        ]
        source = find_model(self.candidate.model).source()
        if source is not None:
            content.append(source)
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        readable = re.sub(
            r"[^A-Za-z0-9_.]+", "_", f"{self.candidate.model}-{self.dataset.name}"
        ).replace("_", "-")
        return f"{readable}-s{self.seed}-{key}"

    @cached_property
    def folder(self) -> Path:
        """The trial's folder: an existing one with the same hash, else a new one."""
        key = self.name.rpartition("-")[2]
        matches = sorted((self.root / TRIALS_FOLDER).glob(f"*-{key}"))
        return matches[0] if matches else self.root / TRIALS_FOLDER / self.name

    def write_definition(self) -> None:
        """Write trial.json, the input of the trial's process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "model": self.candidate.model,
            "data": str(self.dataset.folder.absolute()),
            "data_digest": self.dataset.digest,
            "seed": self.seed,
            "history_events_max": self.candidate.history_events_max,
            "cost_key": self.cost_key,
            "settings": self.settings.model_dump(mode="json"),
            **self.candidate.imports(),
        }
        TRIAL_FORMAT.write(self.folder / DEFINITION_FILE, content)

    @property
    def is_trained(self) -> bool:
        """Whether result.json exists."""
        return (self.folder / "result.json").exists()

    def is_finished(self, split: EvaluatedSplit) -> bool:
        """Whether the results of a split exist."""
        return self.is_trained and (split == "valid" or (self.folder / "test.json").exists())

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json. Raises RunError where it cannot be used."""
        return TRIAL_FORMAT.read(self.folder / "result.json")

    def metrics(self, split: EvaluatedSplit) -> dict[str, dict[str, Any]]:
        """Read the metrics of a split, by task. Raises RunError."""
        name = "result.json" if split == "valid" else "test.json"
        tasks: dict[str, dict[str, Any]] = TRIAL_FORMAT.read(self.folder / name)["tasks"]
        return tasks

    def delete_run(self) -> None:
        """Delete the run with its weights, but not the scores and metrics."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
