"""Training: it learns what can be learned, repeats itself to the byte, and goes on exactly after an
interruption.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hemix import api
from hemix.errors import DataError, Interrupted, RunError, SettingsError, UsageError
from hemix.runs.weights import DENSE_FILE, TABLES_FILE
from hemix.training.callbacks import function_callback
from tests.planted import SMALL_MODEL, write_logs
from tests.refusals import raises

QUICK = {
    "train.epochs": 2,
    "train.batch_size": 128,
    "train.warmup_steps": 2,
    "train.threads": 1,
    "model.dropout": 0.1,
    **SMALL_MODEL,
}


def weights(run: Path) -> tuple[bytes, bytes]:
    return (run / DENSE_FILE).read_bytes(), (run / TABLES_FILE).read_bytes()


@pytest.fixture(scope="module")
def whole(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption; read only."""
    return api.train(planted_data, tmp_path_factory.mktemp("whole") / "run", settings=QUICK)


def test_learns_a_rule_that_only_todays_history_tells(tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs", users=200)
    schema = yaml.safe_load((logs / "schema.yaml").read_text())
    schema["history"]["match_counts"] = False  # else they tell the rule
    (logs / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
    api.prepare(logs, tmp_path / "data")
    settings = {
        **SMALL_MODEL,
        "train.epochs": 5,
        "train.batch_size": 128,
        "train.patience": 0,
        "train.warmup_steps": 5,
        # a match between candidate and event is not learned from tables near zero
        "model.embedding_init_std": 0.2,
    }
    api.train(tmp_path / "data", tmp_path / "run", settings=settings)
    figures = api.evaluate(tmp_path / "run", tmp_path / "data", importance_impressions=2000)
    click = figures["tasks"]["click"]
    assert click["auc"] > 0.75  # the rule itself reaches about 0.8
    assert click["popularity_auc"] < 0.55
    first_two = {entry["feature"] for entry in figures["importance"][:2]}
    assert first_two == {"history: real time", "item.category"}
    assert figures["importance"][2]["auc_drop"] < 0.02


@pytest.mark.usefixtures("deterministic")
def test_same_seed_same_bytes_and_another_seed_others(planted_data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        api.train(planted_data, tmp_path / name, settings={**QUICK, "train.seed": seed})
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


@pytest.mark.parametrize(
    ("stop_at", "signal_number"),
    [(1, signal.SIGINT), (9, signal.SIGTERM), (13, signal.SIGINT)],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    planted_data: Path, whole: Path, tmp_path: Path, stop_at: int, signal_number: int
) -> None:
    def stop(step: int, _total: int) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal_number)

    with raises(Interrupted, f"step {stop_at} of 24", "hemix train --resume"):
        api.train(
            planted_data,
            tmp_path / "halved",
            settings=QUICK,
            callback=function_callback(on_step=stop),
        )
    assert not (tmp_path / "halved" / "run.json").exists()
    api.train(planted_data, tmp_path / "halved", resume=True)
    assert weights(whole) == weights(tmp_path / "halved")
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "halved" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)


def test_resume_leaves_a_finished_run_alone_and_starts_an_absent_one(
    planted_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    api.train(planted_data, run, settings=QUICK, resume=True)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    api.train(planted_data, run, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_run_folder_is_never_overwritten(planted_data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with raises(UsageError, run, code="out_exists", field="--out"):
        api.train(planted_data, run, settings=QUICK)
    (run / "run.json").unlink()
    with raises(UsageError, run, code="unfinished_run", field="--out"):
        api.train(planted_data, run, settings=QUICK)
    with raises(UsageError, run, field="--resume"):
        api.train(planted_data, run, settings={"train.epochs": 9}, resume=True)


def test_from_starts_at_another_runs_weights(planted_data: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "train.calibrate": False}
    api.train(planted_data, tmp_path / "first", settings=settings)
    rates = ("dense_learning_rate", "table_learning_rate", "bias_learning_rate")
    still = {**settings, **{f"train.{name}": 1e-30 for name in rates}}
    api.train(planted_data, tmp_path / "second", settings=still, init_from=tmp_path / "first")
    assert weights(tmp_path / "second") == weights(tmp_path / "first")
    with raises(UsageError, "size: 'base' against 'tiny'", field="--init-from"):
        api.train(
            planted_data,
            tmp_path / "third",
            settings={**QUICK, "model.size": "base"},
            init_from=tmp_path / "first",
        )


def test_early_stopping_keeps_the_best_weights(planted_data: Path, tmp_path: Path) -> None:
    settings = {
        **QUICK,
        "train.epochs": 30,
        "train.patience": 2,
        "train.table_learning_rate": 0.05,
        "train.calibrate": False,
    }
    api.train(planted_data, tmp_path / "run", settings=settings)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [record["valid_loss"] for record in log if "valid_loss" in record]
    assert len(losses) < 30
    assert min(losses) == losses[-3], "two evaluations without gain end the run"
    valid_steps = [record["step"] for record in log if "valid_loss" in record]
    assert log[-1]["stopped_early"] == 2
    assert log[-1]["kept_step"] == valid_steps[-3]
    valid = api.evaluate(tmp_path / "run", planted_data, split="valid", importance_impressions=0)[
        "tasks"
    ]
    assert valid["click"]["logloss"] + valid["order"]["logloss"] == pytest.approx(
        losses[-3], abs=1e-5
    )


def test_a_run_that_is_stopped_as_it_stops_early_trains_no_further_step(
    planted_data: Path, tmp_path: Path
) -> None:
    settings = {**QUICK, "train.epochs": 30, "train.patience": 1, "train.table_learning_rate": 0.05}

    def stop(record: dict[str, object]) -> None:
        if "stopped_early" in record:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        api.train(
            planted_data,
            tmp_path / "run",
            settings=settings,
            callback=function_callback(on_record=stop),
        )
    before = (tmp_path / "run" / "log.jsonl").read_text()
    api.train(planted_data, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_text() == before
    assert (
        json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"]
        == json.loads(before.splitlines()[-1])["step"]
    )


def test_what_cannot_be_trained_is_refused_before_the_folder_is_made(
    planted_data: Path, tmp_path: Path
) -> None:
    with raises(SettingsError, "cuda:7", field="train.device"):
        api.train(planted_data, tmp_path / "run", settings={"train.device": "cuda:7"})
    with raises(SettingsError, field="train.epochs"):
        api.train(planted_data, tmp_path / "run", settings={"train.epochs": 0})
    assert not (tmp_path / "run").exists()


def test_a_first_label_of_one_class_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs", users=20)
    shown = pq.read_table(logs / "impressions.parquet").num_rows
    write_logs(logs, users=20, click=pa.array([None] * shown, pa.int8()))
    api.prepare(logs, tmp_path / "data")
    with raises(DataError, "0 positives", "0 train rows", code="one_class", field="labels.click"):
        api.train(tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_says_what_to_lower(planted_data: Path, tmp_path: Path) -> None:
    wild = {**QUICK, "train.dense_learning_rate": 1e30, "train.max_grad_norm": 0, "train.epochs": 3}
    with raises(RunError, "train.dense_learning_rate", code="diverged"):
        api.train(planted_data, tmp_path / "run", settings=wild)


def test_training_without_sharing_learns_the_same(planted_data: Path, tmp_path: Path) -> None:
    """The same steps on the same impressions: weights differ by rounding alone."""
    for name, deduplicate in (("on", True), ("off", False)):
        settings = {
            **SMALL_MODEL,
            "train.deduplicate": deduplicate,
            "train.batch_size": 512,
            "train.oov_dropout": 0.0,
            "train.dense_learning_rate": 1e-5,
        }
        api.train(planted_data, tmp_path / name, settings=settings)
    on, off = (
        json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])
        for name in ("on", "off")
    )
    assert on["valid_loss"] == pytest.approx(off["valid_loss"], rel=1e-4)
