"""Boosted trees end to end: a run like any other, the same bytes from the same seed, and what is
refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from hemix import api
from hemix.data.dataset import Dataset
from hemix.errors import DataError, RunError, SettingsError, UsageError
from hemix.evaluation.metrics import auc
from hemix.models.lightgbm import LightGBM
from hemix.runs import Run
from hemix.runs.weights import DENSE_FILE, TABLES_FILE
from tests.planted import write_logs
from tests.refusals import raises

lightgbm = pytest.importorskip("lightgbm", reason="LIGHTGBM ABSENT: pip install 'hemix[baselines]'")

SMALL = {
    "boosting.rounds": 40,
    "boosting.leaves": 7,
    "boosting.min_data_in_leaf": 20,
    "train.threads": 1,
    "train.calibrate": False,
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clicks that depend on the position and the item's price, and nothing else."""
    folder = write_logs(tmp_path_factory.mktemp("boosting") / "logs", users=80)
    table = pq.read_table(folder / "impressions.parquet")
    rng = np.random.default_rng(5)
    price = np.array([float(item[1:]) for item in table["item_id"].to_pylist()])
    rate = 1 / (1 + np.exp(-(price - 20) / 8 + table["position"].to_numpy()))
    click = rng.random(len(table)) < rate
    order = click & (rng.random(len(table)) < 0.5)
    for name, values in (("click", click), ("order", order)):
        table = table.set_column(
            table.column_names.index(name), name, pa.array(values.astype(np.int8))
        )
    pq.write_table(table, folder / "impressions.parquet")
    return folder


@pytest.fixture(scope="module")
def data(logs: Path) -> Path:
    api.prepare(logs, logs.parent / "data")
    return logs.parent / "data"


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    return api.train(data, data.parent / "run", model="lightgbm", settings=SMALL)


def test_a_run_like_any_other(run: Path, data: Path, tmp_path: Path) -> None:
    figures = api.evaluate(run, data)
    click = figures["tasks"]["click"]
    assert click["auc"] > click["popularity_auc"] + 0.05, "position is more than popularity"
    assert 0.8 < click["pcoc"] < 1.25
    metrics = json.loads((run / "metrics.json").read_text())
    trees = Run.load(run).model
    assert isinstance(trees, LightGBM)
    assert metrics["dense_parameters"] == trees.leaves() > 0
    assert metrics["embedding_parameters"] == 0
    assert sum(metrics["trees"].values()) == metrics["steps"]
    valid = api.evaluate(run, data, split="valid", importance_impressions=0)["tasks"]
    (line,) = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert valid["click"]["logloss"] + valid["order"]["logloss"] == pytest.approx(
        line["valid_loss"], abs=1e-5
    )
    assert valid["click"]["auc"] == pytest.approx(line["valid_auc"], abs=1e-6)
    assert api.predict(run, data, tmp_path / "scores.parquet")["rows"] == figures["rows"]


def test_the_boosters_are_the_ones_that_the_run_scores_with(run: Path, data: Path) -> None:
    """Probabilities of LightGBM itself, from the text that the weights hold, on the rows that the
    model lays.
    """
    loaded = Run.load(run)
    batch = Dataset(data).split("test").batch(np.arange(20))
    texts = [
        bytes(load_file(run / DENSE_FILE)[f"trees_{task}"].numpy()).decode() for task in range(2)
    ]
    rows = loaded.model.rows(batch).numpy()
    click, order = (lightgbm.Booster(model_str=text).predict(rows) for text in texts)
    scores = loaded.model.predict(batch)
    np.testing.assert_allclose(scores["click"].numpy(), click, rtol=1e-5)
    np.testing.assert_allclose(scores["order"].numpy(), np.minimum(order, click), rtol=1e-4)
    assert all(tensor.numel() == 0 for tensor in load_file(run / TABLES_FILE).values())


def test_serving_puts_every_candidate_at_one_position(run: Path, data: Path) -> None:
    """At the logged positions the last place scores lower than the first; at serve_as it does
    not.
    """
    split = Dataset(data).split("test")
    batch = split.batch(np.arange(split.requests))
    logged_position = batch.bias.numpy()
    loaded = Run.load(run)
    means = []
    for position in ("logged", "serving"):
        click = loaded.predict(data, "test", position=position)["click"].to_numpy()
        means.append([click[logged_position == shown].mean() for shown in (0, 3)])
    assert means[0][0] > 2 * means[0][1]
    assert means[1][0] == pytest.approx(means[1][1], rel=0.2)


def test_three_steps_score_what_one_call_does(run: Path, data: Path) -> None:
    model = Run.load(run).model
    batch = Dataset(data).split("test").batch(np.arange(12))
    inputs = model.embed(batch, ["user"])
    state = model.encode_request(model.encode_user(inputs), model.embed(batch, ["request"]))
    assert torch.equal(model.score(state, model.embed(batch, ["candidate"])), model(batch))


def test_same_seed_same_bytes(run: Path, data: Path, tmp_path: Path) -> None:
    for name, seed in (("again", 0), ("other", 1)):
        api.train(data, tmp_path / name, model="lightgbm", settings={**SMALL, "train.seed": seed})
    assert (tmp_path / "again" / DENSE_FILE).read_bytes() == (run / DENSE_FILE).read_bytes()
    assert (tmp_path / "other" / DENSE_FILE).read_bytes() != (run / DENSE_FILE).read_bytes()


def test_rows_whose_label_is_unknown_teach_nothing(logs: Path, tmp_path: Path) -> None:
    """With half of the labels unknown it still ranks; taken for zeros they would halve the rate."""
    import shutil

    folder = Path(shutil.copytree(logs, tmp_path / "logs"))
    table = pq.read_table(folder / "impressions.parquet")
    hidden = np.arange(len(table)) % 2 == 1
    for name in ("click", "order"):
        values = [
            None if gone else value
            for gone, value in zip(hidden, table[name].to_pylist(), strict=True)
        ]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int8()))
    pq.write_table(table, folder / "impressions.parquet")
    api.prepare(folder, tmp_path / "data")
    api.train(tmp_path / "data", tmp_path / "run", model="lightgbm", settings=SMALL)
    scores = Run.load(tmp_path / "run").predict(tmp_path / "data", "test", position="logged")
    known = pq.read_table(logs / "impressions.parquet").take(scores["log_row"])
    assert auc(known["click"].to_numpy(), scores["click"].to_numpy()) > 0.75
    assert scores["click"].to_numpy().mean() == pytest.approx(
        known["click"].to_numpy().mean(), rel=0.15
    )


@pytest.mark.parametrize(
    ("rounds", "patience", "noted"), [(3, 100, ["click", "order"]), (300, 1, []), (3, 0, [])]
)
def test_rounds_that_end_before_early_stopping_does_are_noted(
    data: Path, tmp_path: Path, rounds: int, patience: int, noted: list[str]
) -> None:
    """Not where early stopping ended, and not without it."""
    changes = {
        "boosting.rounds": rounds,
        "boosting.patience": patience,
        "boosting.learning_rate": 0.3,
    }
    run = api.train(data, tmp_path / "run", model="lightgbm", settings={**SMALL, **changes})
    notes = json.loads((run / "metrics.json").read_text())["notes"]
    assert [note["task"] for note in notes if note["code"] == "boosting_cut_off"] == noted


def test_what_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    with raises(UsageError, "lightgbm", field="--init-from"):
        api.train(data, tmp_path / "run", model="lightgbm", settings=SMALL, init_from=run)
    with raises(SettingsError, "cuda", field="train.device"):
        api.train(
            data, tmp_path / "run", model="lightgbm", settings={**SMALL, "train.device": "cuda"}
        )
    with raises(SettingsError, field="boosting.leaves"):
        api.train(data, tmp_path / "run", model="lightgbm", settings={"boosting.leaves": 1})
    with raises(RunError, code="damaged_file", field=tmp_path / "cut" / DENSE_FILE):
        (tmp_path / "cut").mkdir()
        _cut(run, tmp_path / "cut")
        Run.load(tmp_path / "cut")
    assert not (tmp_path / "run").exists()


def _cut(run: Path, to: Path) -> None:
    import shutil

    shutil.copytree(run, to, dirs_exist_ok=True)
    file = to / DENSE_FILE
    file.write_bytes(file.read_bytes()[:-1])


def test_resume_leaves_a_finished_run_starts_an_absent_one_and_refuses_an_unfinished_one(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    api.train(data, run, model="lightgbm", settings=SMALL, resume=True)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    api.train(data, run, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    (run / "run.json").unlink()
    with raises(UsageError, "lightgbm", field="--resume"):
        api.train(data, run, resume=True)


def test_a_task_of_one_class_is_named(tmp_path: Path) -> None:
    folder = write_logs(tmp_path / "logs", users=30)
    shown = pq.read_table(folder / "impressions.parquet").num_rows
    write_logs(folder, users=30, order=pa.array([0] * shown, pa.int8()))
    api.prepare(folder, tmp_path / "data")
    with raises(DataError, "0 positives", code="one_class", field="labels.order"):
        api.train(tmp_path / "data", tmp_path / "run", model="lightgbm", settings=SMALL)
    assert not (tmp_path / "run").exists()
