"""validate(): the loss of a split is that of one large batch, however it is cut, with masked and
weighted labels in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hemix.data.dataset import Dataset
from hemix.data.sampler import SequentialSampler
from hemix.evaluation.metrics import auc
from hemix.models import Ranker, build_model
from hemix.settings import build_settings
from hemix.training.validate import validate
from tests.data.small import PLAIN, at, prepared, shown

CPU = torch.device("cpu")


def settings(batch_size: int, funnel: str = "entire_space"):  # type: ignore[no-untyped-def]
    return build_settings(
        overrides={
            "train.batch_size": batch_size,
            "model.funnel": funnel,
            "model.embedding_init_std": 1.0,
        }
    ).resolved(1000)


def build(data: Dataset, funnel: str = "entire_space") -> Ranker:
    return build_model(data.spec, settings(1, funnel).model, seed=4)


@pytest.mark.parametrize("funnel", ["entire_space", "given_only"])
def test_batches_add_up_to_the_loss_of_all(rich_data: Path, funnel: str) -> None:
    data = Dataset(rich_data)
    model, split = build(data, funnel).eval(), data.split("valid")
    whole = split.batch(np.arange(split.requests))
    assert whole.labels is not None and whole.weights is not None
    assert (whole.weights == 0).any(0).all() and len(whole.weights.unique()) == 4, (
        "unknown labels; weights 1, 2 and 3"
    )
    with torch.no_grad():
        logits = model(whole)
        expected = float(model.loss(logits, whole))
    known = whole.weights[:, 0] > 0
    expected_auc = auc(whole.labels[known, 0].numpy(), logits[known, 0].numpy())
    for size in (1, 3, 8, 1000):  # batches of 4, 12, 32 and all
        validation = validate(model, split, settings(size, funnel), CPU)
        assert validation.loss == pytest.approx(expected, rel=1e-5)
        assert validation.first_auc == pytest.approx(expected_auc, abs=1e-6)
    parts = [
        b
        for b in split.batches(SequentialSampler(split, 4))
        if b.weights is not None and (b.weights.sum(0) > 0).all()
    ]
    with torch.no_grad():
        mean = np.mean([float(model.loss(model(b), b)) for b in parts])
    assert mean != pytest.approx(expected, rel=1e-3), (
        "the mean of the batches' means would be another number"
    )


def test_the_loss_by_hand(rich_data: Path) -> None:
    """Of every task the weighted mean over known labels; summed over tasks.

    Probabilities from the model's own outputs.
    """
    data = Dataset(rich_data)
    model, split = build(data).eval(), data.split("valid")
    whole = split.batch(np.arange(split.requests))
    with torch.no_grad():
        logits = model(whole).double().numpy()
    click = 1 / (1 + np.exp(-logits[:, 0]))
    p = np.stack([click, click / (1 + np.exp(-logits[:, 1]))], 1)
    labels, weight = split.labels[np.arange(split.impressions)], split.weight.read()
    total = 0.0
    for task in range(2):
        known = labels[:, task] >= 0
        y, q, w = labels[known, task], p[known, task], weight[known]
        total += float(-(w * (y * np.log(q) + (1 - y) * np.log(1 - q))).sum() / w.sum())
    assert validate(model, split, settings(2), CPU).loss == pytest.approx(total, rel=1e-5)


def test_a_split_of_one_class_and_one_without_any_known_label(tmp_path: Path) -> None:
    rows = [
        ("u", "i", at(0), 1),
        ("u", "i", at(0, 1), 0),
        ("u", "i", at(1), 0),
        ("v", "i", at(1), 0),
        ("u", "i", at(2), None),
    ]
    data = Dataset(prepared(tmp_path, PLAIN, impressions=shown(rows)).folder)
    model = build(data)
    validation = validate(model, data.split("valid"), settings(1), CPU)
    assert validation.loss is not None and validation.loss > 0 and validation.first_auc is None
    empty = validate(model, data.split("test"), settings(1), CPU)
    assert (empty.loss, empty.first_auc, empty.tasks) == (None, None, {})


def test_it_neither_trains_nor_asks_for_gradients(rich_data: Path) -> None:
    data = Dataset(rich_data)
    model = build(data).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    validate(model, data.split("valid"), settings(4), CPU)
    assert not model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.tables.take_step() is None
