"""Weights of 0 that leave a class or a split empty: refused, noted or absent with the reason, never
a failure or a silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix import api
from hemix.data.dataset import Dataset
from hemix.errors import DataError
from hemix.evaluation.report import render_report
from hemix.runs import Run
from hemix.training.callbacks import function_callback
from hemix.training.checks import check_labels
from tests.data.small import at, prepared
from tests.planted import SMALL_MODEL
from tests.refusals import raises

SCHEMA = """
name: weighted
labels: {click: {}, order: {given: click}}
split: {valid: 2026-01-06, test: 2026-01-07}
roles: {weight: weight, request_id: request}
features: {user: {user_id: {type: categorical}}, item: {item_id: {type: categorical}}}
"""
LIGHT = {**SMALL_MODEL, "train.threads": 1, "train.batch_size": 128}


def rows() -> dict[str, np.ndarray]:
    """Three days of 8 users, who see 20 items in requests of 5; a click in two, an order in four of
    a click's.
    """
    rng = np.random.default_rng(0)
    day, user, nth = (column.ravel() for column in np.indices((3, 8, 20)))
    click = rng.integers(0, 2, day.size)
    return {
        "user_id": user,
        "item_id": np.concatenate([rng.permutation(6)[:5] for _ in range(day.size // 5)]),
        "request": np.array([f"{d}-{u}-{n // 5}" for d, u, n in zip(day, user, nth, strict=True)]),
        "time_ms": np.array([at(d, 1 + n // 5) for d, n in zip(day, nth, strict=True)])
        + 60_000 * user,
        "click": click,
        "order": click * rng.integers(0, 2, day.size),
        "weight": np.ones(day.size),
        "day": day,
    }


def made(folder: Path, zero: Any) -> Dataset:
    """Those rows, prepared, with weight 0 where ``zero(rows)`` says so and 2 elsewhere."""
    table = rows()
    table["weight"] = np.where(zero(table), 0.0, 2.0)
    return Dataset(
        prepared(
            folder, SCHEMA, impressions={k: v.tolist() for k, v in table.items() if k != "day"}
        ).folder
    )


@pytest.mark.parametrize(
    "zero",
    [
        lambda t: t["click"] == 1,
        lambda t: (t["click"] == 0) & (t["day"] == 0),
        lambda t: t["day"] == 0,
    ],
    ids=["positives", "negatives", "train"],
)
@pytest.mark.parametrize("model", ["hemix", "lightgbm"])
def test_one_class_that_counts_on_train_is_refused(tmp_path: Path, model: str, zero: Any) -> None:
    if model == "lightgbm":
        pytest.importorskip("lightgbm", reason="LIGHTGBM ABSENT: pip install 'hemix[baselines]'")
    data, table = made(tmp_path, zero), rows()
    counted = ~zero(table) & (table["day"] == 0)
    numbers = (int(table["click"][counted].sum()), int(counted.sum()))
    with raises(DataError, *numbers, "weight", code="one_class", field="labels.click"):
        settings = {
            key: value for key, value in LIGHT.items() if model == "hemix" or "model." not in key
        }
        api.train(data.folder, tmp_path / "run", model=model, settings=settings)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_further_task_of_one_class_is_noted(tmp_path: Path) -> None:
    data = made(tmp_path, lambda t: (t["order"] == 1) & (t["day"] == 0))
    [note] = check_labels(data)
    table = rows()
    counted = (table["day"] == 0) & (table["order"] == 0)
    assert (note["code"], note["task"], note["positives"], note["rows"]) == (
        "one_class_in_train",
        "order",
        0,
        counted.sum(),
    )
    run = Run.load(api.train(data.folder, tmp_path / "run", settings=LIGHT))
    assert note in run.metrics["notes"]


@pytest.mark.parametrize("empty", ["positives", "rows"])
def test_a_test_split_that_weighs_nothing_is_evaluated_all_the_same(
    tmp_path: Path, empty: str
) -> None:
    data = made(tmp_path, lambda t: (t["day"] == 2) & ((t["click"] == 1) | (empty == "rows")))
    run = api.train(data.folder, tmp_path / "run", settings=LIGHT)
    figures = api.evaluate(run, data.folder)
    click = figures["tasks"]["click"]
    assert click["absent"]["auc"] == f"no {empty}"
    assert ("logloss" in click) == (empty == "positives")
    assert figures["importance"] == []
    assert figures["absent"] == {"importance": f"no {empty}"}
    assert "auc" in api.evaluate(run, data.folder, split="valid")["tasks"]["click"]
    metrics = Run.load(run).metrics
    assert json.dumps(metrics, allow_nan=False)
    assert f"no {empty}" in render_report(metrics=metrics, split="test")


def test_a_valid_split_that_weighs_nothing_chooses_no_weights(tmp_path: Path) -> None:
    """A loss of 0 would be the best there is: patience would keep the first epoch."""
    data = made(tmp_path, lambda t: t["day"] == 1)
    records: list[dict[str, Any]] = []
    settings = {**LIGHT, "train.epochs": 3, "train.patience": 1}
    run = Run.load(
        api.train(
            data.folder,
            tmp_path / "run",
            settings=settings,
            callback=function_callback(on_record=records.append),
        )
    )
    assert [record["valid_loss"] for record in records if "valid_loss" in record] == [None] * 3
    assert not any("stopped_early" in record for record in records)
    assert run.metrics["steps"] == 3 * -(-160 // 128)
    assert {note["code"] for note in run.metrics["notes"]} == {"calibration_left_out"}


def test_a_run_worse_than_the_base_rate_says_so(tmp_path: Path) -> None:
    """Labels of train are turned round on valid and test."""
    table = rows()
    table["click"] = np.where(
        table["day"] == 0, table["item_id"] < 3, table["item_id"] >= 3
    ).astype(int)
    table["order"] = table["click"]
    schema = SCHEMA + "history: {match_counts: false}\n"  # else they are other numbers each day
    data = Dataset(
        prepared(
            tmp_path, schema, impressions={k: v.tolist() for k, v in table.items() if k != "day"}
        ).folder
    )
    records: list[dict[str, Any]] = []
    settings = {
        **LIGHT,
        "train.epochs": 20,
        "train.patience": 0,
        "train.calibrate": False,
        "train.batch_size": 32,
    }
    settings |= {"model.products": "none", "train.warmup_steps": 1}
    settings |= {"model.use_global": False, "model.use_realtime": False}
    run = api.train(
        data.folder,
        tmp_path / "run",
        settings=settings,
        callback=function_callback(on_record=records.append),
    )
    [note] = [n for n in Run.load(run).metrics["notes"] if n["task"] == "click"]
    assert (note["code"], note["split"]) == ("loss_above_base_rate", "valid")
    assert note["ne"] > 1.1
    assert note in next(record["notes"] for record in records if "notes" in record)
    figures = api.evaluate(run, data.folder, importance_impressions=0)
    codes = {n["code"] for n in figures["notes"] if n["task"] == "click"}
    assert "loss_above_base_rate" in codes
    assert Run.load(run).metrics["split"]["test"]["notes"] == figures["notes"]
