"""Every saved format has a version; a file of another one is refused by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hemix import api
from hemix.cli import main
from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.errors import DataError, HemixError, RunError, StorageError
from hemix.formats import FORMAT_KEY, SavedFormat
from hemix.lab.abtest.arm_models import read_models, write_plan
from hemix.lab.abtest.arm_results import read_result, write_result
from hemix.lab.abtest.measures import MEASURES, ArmResult
from hemix.lab.abtest.plan import EXPERIMENT_FORMAT, ExperimentPlan, load_city
from hemix.lab.abtest.run import _load_power
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import StudyDataset
from hemix.lab.studies.run_trial import run_trial
from hemix.lab.studies.study import STUDY_FORMAT, read_test_set_accesses
from hemix.lab.studies.trial import TRIAL_FORMAT, Trial
from hemix.runs import Run
from hemix.runs.weights import sha256
from hemix.serving.loaded_models import _test_metrics
from hemix.serving.ranking_log.files import read_table, write_table
from hemix.training.checkpoint import Checkpoint, Checkpoints, Snapshot
from hemix.training.parent import parent_run, write_parent
from tests.refusals import raises

OTHERS = [None, 0, 99, "1", True]
SAVED = SavedFormat(version=1, error=StorageError, remedy="do it again")


def other_version(path: Path, version: object) -> None:
    """Change the version of a JSON file; None removes it."""
    content = json.loads(path.read_text())
    assert isinstance(content.pop(FORMAT_KEY), int)
    path.write_text(json.dumps(content if version is None else {**content, FORMAT_KEY: version}))


def refused(error: type[HemixError], path: Path, read: Callable[[], object]) -> None:
    with raises(error, FORMAT_KEY, code="wrong_format_version", field=path):
        read()


# -- the check -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "shown", "age"),
    [
        (None, "none", "an older"),
        (0, "0", "an older"),
        (2, "2", "a newer"),
        ("1", "'1'", "an older"),
        (True, "True", "an older"),
        (1.0, "1.0", "an older"),
    ],
)
def test_a_refusal_names_both_versions_and_the_remedy(
    version: object, shown: str, age: str
) -> None:
    with pytest.raises(StorageError) as error:
        SAVED.check("a.json", version)
    assert str(error.value) == (
        f"a.json: format_version: expected 1, found {shown}: written by {age} hemix; do it again"
    )
    SAVED.check("a.json", 1)


@pytest.mark.parametrize("version", [None, b"2", b"x", b"\xff", b"", b"-1"])
def test_text_of_another_version_is_refused(version: bytes | None) -> None:
    with raises(StorageError, "expected 1", code="wrong_format_version", field="a.parquet"):
        SAVED.check_bytes("a.parquet", version)
    SAVED.check_bytes("a.parquet", b"1")


def test_a_file_is_read_back_with_its_version(tmp_path: Path) -> None:
    SAVED.write(tmp_path / "a.json", {"x": 2})
    assert SAVED.read(tmp_path / "a.json") == {"format_version": 1, "x": 2}
    SAVED.write(tmp_path / "a.json", SAVED.read(tmp_path / "a.json"))
    assert SAVED.read(tmp_path / "a.json") == {"format_version": 1, "x": 2}


# -- datasets and runs -----------------------------------------------------------------------------


@pytest.fixture
def data(rich_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rich_data, tmp_path / "data"))


@pytest.fixture
def run(rich_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rich_run, tmp_path / "run"))


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize("file", ["manifest.json", "spec.json"])
def test_a_dataset(data: Path, file: str, version: object) -> None:
    Dataset(data)
    other_version(data / file, version)
    refused(DataError, data / file, lambda: Dataset(data))


@pytest.mark.parametrize("version", OTHERS)
def test_encoders(data: Path, version: object) -> None:
    Encoders.load(data / "encoders")
    path = data / "encoders" / "encoders.json"
    other_version(path, version)
    refused(DataError, path, lambda: Encoders.load(data / "encoders"))


@pytest.mark.parametrize("version", OTHERS)
def test_a_run(run: Path, version: object) -> None:
    other_version(run / "run.json", version)
    refused(RunError, run / "run.json", lambda: Run.load(run))


@pytest.mark.parametrize("version", OTHERS)
def test_metrics(run: Path, version: object) -> None:
    other_version(run / "metrics.json", version)
    refused(RunError, run / "metrics.json", lambda: Run.load(run).metrics)


def test_metrics_of_another_version_are_none_to_a_server(run: Path, rich_data: Path) -> None:
    api.evaluate(run, rich_data, importance_impressions=0)
    path = run / "metrics.json"
    assert json.loads(path.read_text())[FORMAT_KEY] == 1, "evaluation keeps the version"
    assert _test_metrics(path)
    other_version(path, 99)
    assert _test_metrics(path) == {}


@pytest.mark.parametrize("file", ["data/manifest.json", "run/run.json", "run/metrics.json"])
def test_the_command_line_ends_with_2(
    data: Path,
    run: Path,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = data.parent / file
    other_version(path, 99)
    monkeypatch.setattr("sys.argv", ["hemix", "evaluate", str(run), "--data", str(data)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"hemix: {path}: format_version: expected " in capsys.readouterr().err


# -- unfinished runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OTHERS)
def test_the_parent_of_a_run(rich_run: Path, tmp_path: Path, version: object) -> None:
    write_parent(tmp_path, Run.load(rich_run))
    path = tmp_path / "from.json"
    (tmp_path / "settings.yaml").touch()
    assert parent_run(tmp_path, None, has_checkpoint=True) is None
    other_version(path, version)
    refused(RunError, path, lambda: parent_run(tmp_path, None, has_checkpoint=True))


@pytest.mark.parametrize("version", OTHERS)
def test_a_checkpoint(tmp_path: Path, version: object) -> None:
    snapshot = Snapshot(
        dense={"w": torch.ones(2)},
        rows={"weight": torch.ones(3, 2)},
        optimizer={"step": torch.ones(1)},
        state={"position": {}, "data": {}, "schema": {}},
        total_rows=3,
    )
    Checkpoints(tmp_path, 1).save("step-00000001", snapshot)
    folder = tmp_path / "checkpoints" / "step-00000001"
    assert Checkpoint(folder).state[FORMAT_KEY] == 2
    other_version(folder / "state.json", version)
    (folder / "COMPLETE").write_text(sha256(folder / "state.json") + "\n")
    refused(RunError, folder / "state.json", lambda: Checkpoint(folder))


# -- studies ---------------------------------------------------------------------------------------


@pytest.fixture
def trial(planted_data: Path, tmp_path: Path) -> Trial:
    """A trial with the files that its process would write."""
    made = Trial(
        root=tmp_path,
        candidate=Candidate.from_overrides("one", {}),
        dataset=StudyDataset(folder=planted_data, dataset=Dataset(planted_data)),
        seed=0,
    )
    made.write_definition()
    for name in ("result.json", "test.json"):
        content = {FORMAT_KEY: TRIAL_FORMAT.version, "tasks": {"click": {"auc": 0.5}}}
        (made.folder / name).write_text(json.dumps(content))
    return made


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("trial.json", lambda trial: run_trial(trial.folder)),
        ("result.json", lambda trial: trial.result),
        ("result.json", lambda trial: trial.metrics("valid")),
        ("test.json", lambda trial: trial.metrics("test")),
    ],
)
def test_a_trial_of_a_study(
    trial: Trial, file: str, read: Callable[[Trial], Any], version: object
) -> None:
    read(trial)
    other_version(trial.folder / file, version)
    refused(RunError, trial.folder / file, lambda: read(trial))


@pytest.mark.parametrize("version", OTHERS)
def test_the_log_of_accesses_to_the_test_split(tmp_path: Path, version: object) -> None:
    path = tmp_path / "test_accesses.jsonl"
    access = {FORMAT_KEY: STUDY_FORMAT.version, "trials": 1}
    path.write_text(json.dumps(access) + "\n")
    assert read_test_set_accesses(tmp_path) == [access]
    with path.open("a") as file:
        file.write(json.dumps({**access, FORMAT_KEY: version}) + "\n")
    refused(RunError, path, lambda: read_test_set_accesses(tmp_path))


# -- simulated cities and experiments --------------------------------------------------------------


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "logs"
    api.simulate(folder, users=20, days=3, seed=0)
    return folder


@pytest.mark.parametrize("version", OTHERS)
def test_a_simulated_city(city: Path, tmp_path: Path, version: object) -> None:
    logs = shutil.copytree(city, tmp_path / "logs")
    assert load_city(logs).days == 3
    other_version(logs / "truth" / "city.json", version)
    refused(DataError, logs / "truth" / "city.json", lambda: load_city(logs))


@pytest.mark.parametrize("version", OTHERS)
def test_the_plan_of_an_experiment(tmp_path: Path, version: object) -> None:
    plan = ExperimentPlan(arms={"a": "oracle"}, logs="logs", users=1, days=1)
    write_plan(plan, tmp_path, {"a": {"name": "oracle"}})
    assert read_models(plan, tmp_path) == {"a": {"name": "oracle"}}
    other_version(tmp_path / "plan.json", version)
    refused(DataError, tmp_path / "plan.json", lambda: read_models(plan, tmp_path))


@pytest.mark.parametrize("version", OTHERS)
def test_the_power_of_an_experiment(tmp_path: Path, version: object) -> None:
    plan = ExperimentPlan(arms={"a": "oracle"}, logs="logs", users=1, days=1)
    no_lives: Any = None
    path = tmp_path / "power.json"
    path.write_text(json.dumps(EXPERIMENT_FORMAT.mark({"clicks": 0.5, "orders": None})))
    assert _load_power(plan, tmp_path, no_lives) == {"clicks": 0.5, "orders": None}
    other_version(path, version)
    refused(DataError, path, lambda: _load_power(plan, tmp_path, no_lives))


@pytest.mark.parametrize("version", [None, b"0", b"1", b"99", b"x"])
def test_the_result_of_an_arm(tmp_path: Path, version: bytes | None) -> None:
    import numpy as np

    path = tmp_path / "a-0000.parquet"
    users = np.arange(2)
    write_result(path, ArmResult(users=users, measures={m: np.zeros((2, 1)) for m in MEASURES}))
    assert read_result(path).users.tolist() == [0, 1]
    rewrite(path, FORMAT_KEY.encode(), version)
    refused(DataError, path, lambda: read_result(path))


@pytest.mark.parametrize("version", OTHERS)
def test_a_demo(tmp_path: Path, version: object) -> None:
    path = tmp_path / "logs" / "demo.json"
    path.parent.mkdir()
    path.write_text(json.dumps({FORMAT_KEY: 1, "users": 20, "days": 3, "seed": 0}))
    other_version(path, version)
    refused(RunError, path, lambda: api.demo(tmp_path, users=20, days=3))


# -- the log of rankings ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, b"0", b"1", b"99", b"x"])
def test_a_file_of_the_log_of_rankings(tmp_path: Path, version: bytes | None) -> None:
    path = tmp_path / "a.parquet"
    write_table(pa.table({"a": [1, 2], "b": [3, 4]}), path)
    assert read_table(path, ["b"]) == pa.table({"b": [3, 4]})
    rewrite(path, b"hemix.format_version", version)
    refused(DataError, path, lambda: read_table(path))


def rewrite(path: Path, key: bytes, version: bytes | None) -> None:
    """Change the version in a Parquet file's metadata; None removes it."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    assert metadata.pop(key).isdigit()
    if version is not None:
        metadata[key] = version
    pq.write_table(table.replace_schema_metadata(metadata), path)
