"""A run folder: weights, metrics, settings, schema, encoders, and the tables of a server."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch

from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.data.entities import EntityTable, entity_files
from hemix.data.layout import file_hash
from hemix.data.spec import InputSpec
from hemix.errors import DataError, RunError
from hemix.features.statistics import Statistics, statistic_files
from hemix.files import storage_errors, write_text
from hemix.formats import SavedFormat
from hemix.models import Predictor, Ranker, build_predictor, find_model, model_names
from hemix.nn.sharded import ShardedTables
from hemix.representation import html_table, one_line
from hemix.runs.device import choose_device
from hemix.runs.shards import save_whole_tables
from hemix.runs.users import write_users
from hemix.runs.weights import DENSE_FILE, TABLES_FILE, load_weights, save_dense, save_weights
from hemix.schema import Schema
from hemix.settings import Settings, build_settings
from hemix.validation import first_difference

__all__ = [
    "INFO_FILE",
    "METRICS_FILE",
    "METRICS_FORMAT",
    "RUN_FORMAT",
    "Run",
    "ScoredPosition",
    "check_same_schema",
]

INFO_FILE = "run.json"
RUN_FORMAT = SavedFormat(version=6, error=RunError, remedy="train the run again")
"""Of run.json, settings.yaml and the weights; 6 since projections of events have no bias."""
METRICS_FILE = "metrics.json"
METRICS_FORMAT = SavedFormat(
    version=1,
    error=RunError,
    remedy="train the run again, or evaluate it with the hemix version that wrote it",
)
Entity = Literal["user", "item"]
ScoredPosition = Literal["logged", "serving"]
"""The position at which impressions are scored: the logged one, or the one of a server."""
ENTITIES: tuple[Entity, ...] = ("user", "item")


@dataclass(frozen=True, kw_only=True, repr=False)
class Run:
    """A finished run; :func:`hemix.runs.scoring.score_split` scores a dataset with it."""

    folder: Path
    settings: Settings
    schema: Schema
    spec: InputSpec
    model: Predictor
    info: dict[str, Any]
    """The content of run.json."""

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Run:
        """Read a run folder.

        Args:
            folder: The folder.
            device: Where the model is placed, such as ``cpu`` or ``cuda``.

        Returns:
            The run, its model in evaluation mode.

        Raises:
            RunError: A file is missing or damaged, or the run is not finished.
            SettingsError: The device cannot be used.
        """
        folder, target = Path(folder), choose_device(device)
        if not folder.is_dir():
            raise RunError(f"{folder}: no such run folder", code="missing_run", field=str(folder))
        info = _read_info(folder)
        try:
            spec = InputSpec.from_json(info["spec"])
            digests: dict[str, str] = info["weights"]
            fingerprint: str = info["fingerprint"]
        except (KeyError, TypeError) as error:
            path = folder / INFO_FILE
            raise RunError(
                f"{path}: damaged: no {error}", code="damaged_file", field=str(path)
            ) from error
        schema = Schema.load(folder / "schema.yaml")
        if schema.fingerprint() != fingerprint:
            raise RunError(
                f"{folder}: schema.yaml is not the one that this run was trained with",
                code="other_schema",
                field=str(folder),
            )
        _check_source(folder, info.get("model_source"))
        settings = build_settings(config=folder / "settings.yaml")
        model = build_predictor(spec, settings.model)
        load_weights(folder, model, digests)
        model.to(target).eval()
        return cls(
            folder=folder, settings=settings, schema=schema, spec=spec, model=model, info=info
        )

    def _facts(self) -> dict[str, object]:
        """The facts of the representations."""
        return {
            "name": self.schema.name,
            "model": self.settings.model.name,
            "size": getattr(self.settings.model, "size", None),
            "folder": self.folder,
        }

    def __repr__(self) -> str:
        return one_line("Run", self._facts())

    def _repr_html_(self) -> str:
        return html_table("Run", self._facts())

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json.

        Raises RunError where the file is missing, damaged or of another version.
        """
        return METRICS_FORMAT.read(self.folder / METRICS_FILE)

    def statistics(self) -> Statistics:
        """The dated tables of statistics that a server looks up.

        Raises DataError naming the file that is missing or damaged.
        """
        return Statistics.load(
            self.folder / "statistics",
            self.schema.statistics,
            hashes=self.info.get("statistics", {}),
        )

    def entities(self, level: Entity) -> EntityTable:
        """The table of the users or items that the run knows, for a server.

        Raises RunError for a run without the table, DataError naming the file that is missing or
        damaged.
        """
        hashes = self.info.get("entities", {}).get(f"{level}s")
        if hashes is None:
            raise RunError(
                f"{self.folder}: has no table of its {level}s: an older hemix trained it",
                code="missing_table",
                field=f"{level}s",
                hint="prepare and train again",
            )
        return EntityTable.load(self.folder / f"{level}s", self.schema, level, hashes=hashes)

    def encoders(self) -> Encoders:
        """The encoders of raw values to ids.

        Raises DataError naming the file that is missing or damaged, or another run's.
        """
        folder = self.folder / "encoders"
        encoders = Encoders.load(folder)
        for name, expected in {**self.info["encoders"], **self.info.get("id_maps", {})}.items():
            if not (folder / name).is_file() or file_hash(folder / name) != expected:
                raise DataError(
                    f"{folder / name}: missing or damaged: its hash is not the one in {INFO_FILE}",
                    code="damaged_file",
                    field=str(folder / name),
                )
        return encoders

    def predict(
        self,
        data: Dataset | str | Path,
        split: str = "test",
        *,
        position: ScoredPosition = "serving",
    ) -> pa.Table:
        """Score every impression of a split.

        Args:
            data: The dataset, or its folder.
            split: Name of the split.
            position: ``serving`` gives the scores of a server, ``logged`` those at the logged
                position.

        Returns:
            The table of :func:`hemix.runs.prediction.predicted_tables`.

        Raises:
            RunError: The dataset has another schema.
        """
        from hemix.runs.prediction import predicted_tables  # imports this module

        dataset = data if isinstance(data, Dataset) else Dataset(data)
        return pa.concat_tables(predicted_tables(self, dataset, split, position=position))


def _read_info(folder: Path) -> dict[str, Any]:
    """The content of run.json, of a finished run of this format."""
    path = folder / INFO_FILE
    if not path.exists():
        code, problem = "missing_run", f"it has no {INFO_FILE}"
        if (folder / "settings.yaml").exists():
            code = "unfinished_run"
            problem = "it is not finished: continue with hemix train --resume"
        raise RunError(
            f"{folder}: not a run that can be used: {problem}", code=code, field=str(folder)
        )
    return RUN_FORMAT.read(path)


def _check_source(folder: Path, source: dict[str, str] | None) -> None:
    """Check that a model from outside the package is registered: a run folder never runs code.

    Raises RunError naming the model and its file or module.
    """
    if source is None:
        return
    name, file = source.get("name", "?"), source.get("file")
    if name not in model_names():
        flag = f"add --import {file}" if file else f"import the module {source.get('module', '?')}"
        raise RunError(
            f"{folder}: its model {name!r} is not registered: {flag}",
            code="unknown_model",
            field="--import",
        )


def begin(folder: Path, settings: Settings, dataset: Dataset) -> None:
    """Write what does not change in training: settings, schema, encoders, tables of a server.

    Args:
        folder: The run folder, which is created.
        settings: Of the run.
        dataset: That the run trains on.

    Raises:
        DataError: The dataset lacks a file.
        StorageError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "settings.yaml", settings.to_yaml())
    write_text(folder / "schema.yaml", dataset.schema.to_yaml())
    (folder / "encoders").mkdir(exist_ok=True)
    for path in sorted((dataset.folder / "encoders").iterdir()):
        copy = folder / "encoders" / path.name
        with storage_errors(copy):
            copy.write_bytes(path.read_bytes())
    write_users(dataset, folder)
    for name in _lookup_files(dataset.schema):
        source, copy = dataset.folder / name, folder / name
        copy.parent.mkdir(exist_ok=True)
        if not source.is_file():
            raise DataError(
                f"{source}: missing from the dataset folder",
                code="missing_file",
                field=str(source),
                hint="prepare it again",
            )
        with storage_errors(copy):
            shutil.copyfile(source, copy)


def _lookup_files(schema: Schema) -> list[str]:
    """Files of the tables that a server looks up and that a dataset and a run share, relative to
    the folder of either.
    """
    statistics = [f"statistics/{name}" for name in statistic_files(schema.statistics)]
    return statistics + [f"items/{name}" for name in entity_files(schema, "item")]


def finish(folder: Path, model: Predictor, dataset: Dataset, metrics: dict[str, Any]) -> None:
    """Write weights and metrics, then run.json, which marks the run as finished.

    Collective for a model with sharded tables: every process writes its own rows, the first
    process writes all other content.

    Args:
        folder: The run folder.
        model: The trained model.
        dataset: That the run was trained on.
        metrics: The content of metrics.json.

    Raises:
        StorageError: A file cannot be written.
    """
    if isinstance(model, Ranker) and isinstance(model.tables, ShardedTables):
        digests = {TABLES_FILE: save_whole_tables(folder / TABLES_FILE, model.tables)}
        if not model.tables.distributed.is_rank_zero:
            return
        digests = {DENSE_FILE: save_dense(folder, model), **digests}
    else:
        digests = save_weights(folder, model)
    METRICS_FORMAT.write(folder / METRICS_FILE, metrics)
    RUN_FORMAT.write(
        folder / INFO_FILE,
        {
            **_model_source(model.config.name),
            "hemix": version("hemix"),
            "torch": torch.__version__,
            "fingerprint": dataset.schema.fingerprint(),
            "data": dataset.manifest["splits"],
            "encoders": dataset.manifest["encoders"],
            **_file_hashes(folder, dataset.schema),
            "spec": dataset.spec.to_json(),
            "weights": digests,
        },
    )


def _file_hashes(folder: Path, schema: Schema) -> dict[str, Any]:
    """Hashes of the id maps and of the tables that a server looks up, by kind and file name."""
    return {
        "id_maps": {
            path.name: file_hash(path)
            for level in ENTITIES
            for path in sorted((folder / "encoders").glob(f"{level}s.*.npy"))
        },
        "entities": {
            f"{level}s": {
                name: file_hash(folder / f"{level}s" / name) for name in entity_files(schema, level)
            }
            for level in ENTITIES
        },
        "statistics": {
            name: file_hash(folder / "statistics" / name)
            for name in statistic_files(schema.statistics)
        },
    }


def _model_source(name: str) -> dict[str, Any]:
    """File or module of a model from outside the package; empty for a model that is installed."""
    source = find_model(name).source()
    return {} if source is None else {"model_source": {"name": name, **source}}


def check_same_schema(run: Run, dataset: Dataset) -> None:
    """Check that a run can score a dataset.

    Args:
        run: The run.
        dataset: The dataset.

    Raises:
        RunError: They differ in the schema or the encoders; names the first difference.
    """
    if run.schema.fingerprint() == dataset.schema.fingerprint():
        if run.spec == dataset.spec and run.info["encoders"] == dataset.manifest["encoders"]:
            return
        raise RunError(
            f"{run.folder} was trained with other encoders than those of {dataset.folder}: the "
            "same schema, learned on other rows",
            code="other_data",
            field=str(dataset.folder),
            hint="train on this dataset, or evaluate on the one that the run was trained on",
        )
    difference = (
        first_difference(run.schema.model_dump(mode="json"), dataset.schema.model_dump(mode="json"))
        or "which tables there are"
    )
    raise RunError(
        f"{run.folder} was trained with another schema than {dataset.folder}: they differ in "
        f"{difference}",
        code="other_schema",
        field=str(dataset.folder),
    )
