"""New models start at the train log-odds by position, and biases learn at a rate of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from hemix import api
from hemix.data.dataset import Dataset
from hemix.models import Ranker, build_model
from hemix.runs.folder import Run
from hemix.settings import build_settings
from hemix.training.base_rates import BaseRates, start_at_base_rates, train_base_rates
from hemix.training.optimizers import Optimizers
from tests.planted import SCHEMA, SMALL_MODEL, write_logs

STILL = {
    **SMALL_MODEL,
    "train.dense_learning_rate": 1e-30,
    "train.table_learning_rate": 1e-30,
    "train.bias_learning_rate": 1e-30,
    "train.calibrate": False,
    "train.threads": 1,
}
SMOOTHING = 20.0


def log_odds(positives: float, rows: float, rate: float | None = None) -> float:
    """Of counted rows, smoothed by 20 rows of ``rate`` if it is given."""
    if rate is not None:
        positives, rows = positives + SMOOTHING * rate, rows + SMOOTHING
    return math.log(positives / (rows - positives))


def expected(data: Dataset) -> tuple[list[float], list[list[float]]]:
    """Count by hand: log-odds of click and of order given click, of all rows and by position."""
    split = data.split("train")
    partitions = [split.partition(place) for place in range(len(data.partitions))]
    position = np.concatenate([partition.bias for partition in partitions])
    click, order = np.concatenate([partition.labels for partition in partitions]).T
    overall, by_position = [], []
    for label, rows in ((click, click >= 0), (order, click == 1)):
        rate = ((label[rows] == 1).sum() + 0.5) / (rows.sum() + 1)
        overall.append(log_odds(rate, 1))
        at = [rows & (position == p) for p in range(data.spec.bias_rows)]
        by_position.append([log_odds((label[m] == 1).sum(), m.sum(), rate) for m in at])
    return overall, np.transpose(by_position).tolist()


def test_rates_are_counted_by_task_and_position(planted_data: Path) -> None:
    data = Dataset(planted_data)
    rates = train_base_rates(data.split("train"), data.spec)
    overall, by_position = expected(data)
    assert rates.log_odds_T.tolist() == pytest.approx(overall)
    assert rates.log_odds_PT == pytest.approx(np.array(by_position))
    # the logs have four positions and the schema six: an unseen one has the overall rate
    assert rates.log_odds_PT[5].tolist() == pytest.approx(overall)


@pytest.mark.parametrize("model", ["hemix", "sim"])
def test_a_new_run_starts_there_and_serves_it(
    planted_data: Path, tmp_path: Path, model: str
) -> None:
    settings = {key: value for key, value in STILL.items() if not key.startswith("model.")}
    run = Run.load(api.train(planted_data, tmp_path / "run", model=model, settings=settings))
    overall, by_position = expected(Dataset(planted_data))
    assert isinstance(run.model, Ranker)
    assert run.model.all_heads()
    for heads in run.model.all_heads():
        assert heads.position is not None and heads.second.bias is not None
        assert heads.second.bias.flatten().tolist() == pytest.approx(overall, abs=1e-5)
        starts = (heads.position + heads.second.bias.flatten()).detach()
        assert starts.numpy() == pytest.approx(np.array(by_position), abs=1e-5)


def test_a_steep_position_curve_is_known_after_few_steps(tmp_path: Path) -> None:
    """The log-odds fall by 3.6 from position 0 to 3; a run of 23 steps keeps the fall."""
    rng = np.random.default_rng(3)
    positions = np.tile(np.arange(4), 60 * 5 * 2)
    click = (rng.random(len(positions)) < 1 / (1 + np.exp(1.2 * positions))).astype(int)
    logs = write_logs(
        tmp_path / "logs",
        click=pa.array(click),
        order=pa.array(np.zeros_like(click)),
        schema=SCHEMA.replace("  order: {given: click}\n", "").replace(
            "order * price + 0.1 * click", "click"
        ),
    )
    api.prepare(logs, tmp_path / "data")
    run = Run.load(
        api.train(
            tmp_path / "data",
            tmp_path / "run",
            settings={**SMALL_MODEL, "train.batch_size": 64, "train.threads": 1},
        )
    )
    assert run.metrics["steps"] == 23
    assert isinstance(run.model, Ranker) and run.model.heads.position is not None
    position = run.model.heads.position[:, 0].tolist()
    assert position[0] - position[3] == pytest.approx(3.6, abs=0.5)


def test_a_warm_start_keeps_what_was_learned(planted_data: Path, tmp_path: Path) -> None:
    learning = {**STILL, "train.bias_learning_rate": 0.05}
    first = api.train(planted_data, tmp_path / "first", settings=learning)
    second = api.train(planted_data, tmp_path / "second", settings=STILL, init_from=first)
    learned, kept = (position_weights(folder) for folder in (first, second))
    _, start = expected(Dataset(planted_data))
    assert kept == pytest.approx(learned, abs=1e-6)
    assert np.abs(learned - (np.array(start) - expected(Dataset(planted_data))[0])).max() > 0.05


def position_weights(folder: Path) -> Any:
    model = Run.load(folder).model
    assert isinstance(model, Ranker) and model.heads.position is not None
    return model.heads.position.detach().numpy()


def test_biases_have_a_learning_rate_of_their_own(planted_data: Path) -> None:
    """Adam's first step moves each weight by its rate."""
    data = Dataset(planted_data)
    settings = build_settings(
        overrides={
            **SMALL_MODEL,
            "train.bias_learning_rate": 0.25,
            "train.dense_learning_rate": 1e-3,
            "train.weight_decay": 0.5,
            "train.warmup_steps": 0,
            "train.max_grad_norm": 0.0,
        }
    ).resolved(1000)
    model = build_model(data.spec, settings.model, 0)
    zeros = np.zeros((data.spec.bias_rows, 2))
    start_at_base_rates(model, BaseRates(log_odds_T=np.zeros(2), log_odds_PT=zeros + 2.0))
    optimizers = Optimizers(model, settings.train, 10)
    position = model.heads.position
    assert position is not None
    position.grad = torch.ones_like(position)
    assert model.heads.second.bias is not None
    model.heads.second.bias.grad = torch.ones_like(model.heads.second.bias)
    before = model.heads.second.bias.detach().clone()
    optimizers.step(0)
    assert position.detach().numpy() == pytest.approx(zeros + 1.75, abs=1e-4)
    moved: Any = (before * (1 - 5e-4) - model.heads.second.bias.detach()).flatten().tolist()
    assert moved == pytest.approx([1e-3] * 2, abs=1e-6)
