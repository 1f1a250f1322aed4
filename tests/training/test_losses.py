"""The training objective: weights of tasks, smoothing, ranking losses over slots, and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hemix import api
from hemix.errors import DataError, SchemaError, SettingsError
from hemix.models import build_model
from hemix.nn import heads
from hemix.nn.heads import LossOptions
from hemix.nn.ranking_loss import log_odds, rank_groups, ranking_loss
from hemix.schema import Schema
from hemix.settings import Settings, build_settings
from hemix.training.losses import TrainingLoss
from tests.batches import make_batch, make_config, make_spec, smallest_spec
from tests.planted import SCHEMA, SMALL_MODEL, write_logs
from tests.refusals import raises

USERS = {"train.ranking_loss": "pairwise", "train.ranking_group": "user"}
PLANTED = Schema.parse(SCHEMA)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def settings_of(kind: str, **train: Any) -> Settings:
    options = {"ranking_loss": kind, "ranking_group": "user", "shuffle": "users", **train}
    return build_settings(overrides={f"train.{name}": value for name, value in options.items()})


def test_label_smoothing_moves_labels_towards_a_half() -> None:
    logits, labels, weights = (
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[1.0], [0.0]]),
        torch.ones(2, 1),
    )
    loss = heads.loss(
        logits, labels, weights, smallest_spec(), options=LossOptions(label_smoothing=0.2)
    )
    first = 0.9 * softplus(-1.0) + 0.1 * softplus(1.0)
    second = 0.1 * softplus(-2.0) + 0.9 * softplus(2.0)
    assert float(loss) == pytest.approx((first + second) / 2)


def test_task_weights_multiply_each_tasks_mean() -> None:
    spec = make_spec()
    logits, labels, weights = torch.randn(9, 2), torch.ones(9, 2), torch.ones(9, 2)
    total, weight = heads.loss_sums(logits, labels, weights, spec)
    mean = total / weight
    loss = heads.loss(logits, labels, weights, spec, options=LossOptions(task_weights=[1.0, 0.25]))
    assert float(loss) == pytest.approx(float(mean[0] + 0.25 * mean[1]))


@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
@pytest.mark.parametrize("group", ["user", "request"])
def test_the_objective_adds_the_ranking_loss_of_every_task(kind: str, group: str) -> None:
    spec, batch = make_spec(), make_batch(make_spec())
    assert batch.labels is not None and batch.weights is not None
    model = build_model(spec, make_config(), seed=0)
    schema = Schema.parse(SCHEMA.replace("given: click", "given: click, loss_weight: 0.5"))
    loss = TrainingLoss(model, settings_of(kind, ranking_group=group, ranking_weight=2.0), schema)
    logits = torch.randn(batch.candidates_count, 2)
    objective, log_loss = loss(logits, batch, [], loss.rank(batch))
    of_row = batch.request_index if group == "request" else batch.user_index[batch.request_index]
    means = []
    for task, ranked in enumerate(rank_groups(batch.labels, batch.weights, of_row, spec)):
        assert ranked.groups > 0
        means.append(ranking_loss(kind, log_odds(logits, spec)[:, task], ranked) / ranked.weight)
    torch.testing.assert_close(objective - log_loss, 2.0 * (means[0] + 0.5 * means[1]))
    weighted = LossOptions(task_weights=[1.0, 0.5])
    torch.testing.assert_close(log_loss, model.loss(logits, batch, [], weighted))


def test_slots_add_up_to_the_step_and_copies_of_users_change_nothing() -> None:
    spec, batch = make_spec(), make_batch(make_spec())
    model = build_model(spec, make_config(), seed=0)
    loss = TrainingLoss(model, settings_of("pairwise"), PLANTED)
    logits = torch.randn(batch.candidates_count, 2)
    whole_ranked = loss.rank(batch)
    assert whole_ranked is not None
    objective, log_loss = loss(logits, batch, [], whole_ranked)
    half = batch.users_count // 2
    slots = [
        batch.select_users(torch.arange(half)),
        batch.select_users(torch.arange(half, batch.users_count)),
    ]
    ranked = [loss.rank(slot) for slot, _ in slots]
    divisor = sum(r.divisor_T for r in ranked if r is not None)
    torch.testing.assert_close(divisor, whole_ranked.divisor_T)
    total = torch.tensor(0.0)
    for (slot, rows), slot_ranked in zip(slots, ranked, strict=True):
        assert slot_ranked is not None
        whole = type(slot_ranked)(tasks=slot_ranked.tasks, divisor_T=whole_ranked.divisor_T)
        slot_objective, slot_log_loss = loss(logits[rows], slot, [], whole)
        total = total + slot_objective - slot_log_loss
    torch.testing.assert_close(total, objective - log_loss)
    copies = batch.expand_per_impression()
    torch.testing.assert_close(loss(logits, copies, [], whole_ranked)[0], objective)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({**USERS, "train.shuffle": "requests"}, "train.shuffle"),
        ({**USERS, "train.shuffle": "time"}, "train.shuffle"),
        ({"train.ranking_weight": 0}, "train.ranking_weight"),
        ({"train.ranking_weight": -1}, "train.ranking_weight"),
        ({"train.label_smoothing": 0.5}, "train.label_smoothing"),
        ({"train.ranking_loss": "triplet"}, "train.ranking_loss"),
    ],
)
def test_settings_without_pairs_or_with_wrong_weights_are_refused(
    overrides: dict[str, Any], field: str
) -> None:
    with raises(SettingsError, field=field):
        build_settings(overrides=overrides)


@pytest.mark.parametrize("weight", ["0", "-1", ".nan", ".inf"])
def test_a_label_weight_that_is_not_positive_is_refused(weight: str) -> None:
    with raises(SchemaError, field="labels.click.loss_weight"):
        Schema.parse(SCHEMA.replace("click: {}", f"click: {{loss_weight: {weight}}}"))


def test_a_label_weight_changes_no_column() -> None:
    weighted = Schema.parse(SCHEMA.replace("click: {}", "click: {loss_weight: 0.5}"))
    assert weighted.labels["click"].loss_weight == 0.5
    assert weighted.fingerprint() == PLANTED.fingerprint()


def test_train_rows_without_pairs_are_refused(tmp_path: Path) -> None:
    schema = SCHEMA.replace("request_id: request_id, ", "")
    api.prepare(write_logs(tmp_path / "logs", users=20, schema=schema), tmp_path / "data")
    settings = {"train.ranking_loss": "listwise", "train.ranking_group": "request", **SMALL_MODEL}
    with raises(DataError, "request", code="no_pairs", field="train.ranking_loss"):
        api.train(tmp_path / "data", tmp_path / "run", settings=settings)


@pytest.mark.parametrize(
    ("kind", "group", "shuffle"),
    [("pairwise", "user", "users"), ("listwise", "request", "requests")],
)
def test_a_run_with_a_ranking_loss_logs_log_loss_and_calibrates(
    planted_data: Path, tmp_path: Path, kind: str, group: str, shuffle: str
) -> None:
    settings = {
        **SMALL_MODEL,
        "train.batch_size": 128,
        "train.ranking_loss": kind,
        "train.ranking_group": group,
        "train.shuffle": shuffle,
        "train.ranking_weight": 50.0,
        "train.gradient_accumulation": 2,
        "train.log_every_steps": 1,
    }
    run = api.train(planted_data, tmp_path / "run", settings=settings)
    first = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] < 2  # log loss of two labels, not 50 times the ranking loss
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["calibration"]) == {"click", "order"}
    assert ("ranking_within_users" in {note["code"] for note in metrics["notes"]}) == (
        group == "user"
    )
