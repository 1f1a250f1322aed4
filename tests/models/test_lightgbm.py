"""LightGBM as a ranker: what a row of the trees holds, by hand, and how boosters' scores become a
funnel's logits.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.dataset import Dataset
from hemix.data.jagged import Jagged
from hemix.data.spec import InputSpec, LevelSpec, Task
from hemix.errors import MissingExtra
from hemix.models import build_predictor
from hemix.models import lightgbm as module
from hemix.models.lightgbm import LightGBM
from hemix.nn.heads import probabilities
from hemix.settings import build_settings
from tests.batches import make_batch, make_spec
from tests.refusals import raises

SPEC = InputSpec(
    tables={"user": 1000, "age": 6, "hash": 5000, "tags": 9, "brand": 20, "hour": 26},
    user=LevelSpec(
        names=("user_id", "age"),
        tables=("user", "age"),
        jagged_names=("likes",),
        jagged_tables=("tags",),
    ),
    context=LevelSpec(
        names=("hour",),
        tables=("hour",),
        number_names=("speed", "speed.missing", "at.latitude", "at.longitude", "at.missing"),
    ),
    item=LevelSpec(names=("brand", "sku"), tables=("brand", "hash")),
    cross=LevelSpec(number_names=("lift",)),
    event=LevelSpec(),
    event_item_columns=(),
    vocabularies=("user", "brand", "tags"),
    bias_rows=6,
    tasks=(Task(name="click"), Task(name="order", given=0)),
    logit_shift=(0.0, 0.0),
)


def ids(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def batch() -> RequestBatch:
    """Two users, two requests (of user 1, then 0), three candidates."""
    jagged = Jagged.from_lists([[2, 3], [1]])
    numbers = torch.tensor([[0.5, 0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0]])
    return RequestBatch(
        users=Columns(ids=ids([7, 1], [0, 4]), numbers=torch.zeros(2, 0), jagged=(jagged,)),
        event_offsets=torch.tensor([0, 3, 4]),
        event_item=torch.zeros(4, dtype=torch.int64),
        event_time_ms=torch.zeros(4, dtype=torch.int64),
        event_ids=torch.zeros(4, 0, dtype=torch.int64),
        user_index=torch.tensor([1, 0]),
        request_time_ms=torch.zeros(2, dtype=torch.int64),
        context=Columns(ids=ids([5], [1]), numbers=numbers),
        history_ranges=torch.tensor([[3, 3, 4], [0, 2, 3]]),
        request_index=torch.tensor([0, 1, 1]),
        item_index=torch.tensor([1, 0, 1]),
        cross=Columns(
            ids=torch.zeros(3, 0, dtype=torch.int64), numbers=torch.tensor([[0.1], [0.2], [0.3]])
        ),
        bias=torch.tensor([0, 3, 5]),
        items=Columns(ids=ids([1, 70], [12, 80]), numbers=torch.zeros(2, 0)),
    )


def build(spec: InputSpec = SPEC, **settings: Any) -> LightGBM:
    overrides = {"model.name": "lightgbm", **{f"model.{k}": v for k, v in settings.items()}}
    model = build_predictor(spec, build_settings(overrides=overrides).model)
    assert isinstance(model, LightGBM)
    return model.eval()


def test_rows_by_hand() -> None:
    """An unknown user ranks behind all 1,000 rows; missing ids of ordered columns and flagged
    numbers are NaN; a missing value of a list does not count; a hashed column is left out.
    """
    n = math.nan
    names = [
        "user.user_id",
        "user.age",
        "user.likes",
        "context.hour",
        "context.speed",
        "context.at.latitude",
        "context.at.longitude",
    ]
    names += ["history.global", "history.realtime", "item.brand", "cross.lift", "bias"]
    expected = [
        [1000, 4, 0, 5, 0.5, 1, 2, 0, 1, 12, 0.1, 0],
        [7, n, 2, n, n, n, n, 2, 1, 1, 0.2, 3],
        [7, n, 2, n, n, n, n, 2, 1, 12, 0.3, 5],
    ]
    model = build()
    assert [name for name, _ in model.features] == names
    assert [name for name, category in model.features if category] == ["item.brand"]
    torch.testing.assert_close(
        model.rows(batch()), torch.tensor(expected), equal_nan=True, rtol=0, atol=1e-7
    )


def test_the_names_of_any_batch_fit_its_columns() -> None:
    spec = make_spec()
    model = build(spec)
    rows = model.rows(make_batch(spec))
    assert rows.shape[1] == len(model.features) and rows.dtype == torch.float32


def test_match_counts_are_features_and_an_age_without_a_match_is_nan(rich_data: Path) -> None:
    data = Dataset(rich_data)
    split, model = data.split("test"), build(data.spec)
    names = [name for name, _ in model.features]
    rows = model.rows(split.batch(np.arange(split.requests)))
    assert "cross.match_age.category.missing" not in names
    age = rows[:, names.index("cross.match_age.category")]
    matches = sum(
        rows[:, at]
        for at, n in enumerate(names)
        if n.startswith("cross.match_counts.category.") and n.endswith(".all")
    )
    assert torch.equal(age.isnan(), matches == 0)
    assert age.isnan().any() and (age > 0).any()


class Fixed:
    """Stands for a booster: the same raw scores whatever it sees."""

    def __init__(self, raw: list[float]) -> None:
        self.raw = np.array(raw)

    def predict(self, *_: object, **__: object) -> np.ndarray:
        return self.raw


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_the_funnels_product_is_the_boosters_own_probability() -> None:
    """p(order) of the booster comes back from p(click) * p(order | click), but never above
    p(click).
    """
    model = build()
    model._boosters = [
        Fixed([logit(0.5), logit(0.2), logit(0.2)]),
        Fixed([logit(0.1), logit(0.05), logit(0.3)]),
    ]
    scores = probabilities(model(batch()), SPEC)
    torch.testing.assert_close(scores["click"], torch.tensor([0.5, 0.2, 0.2]))
    torch.testing.assert_close(
        scores["order"], torch.tensor([0.1, 0.05, 0.2]), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        scores["order_given_click"], torch.tensor([0.2, 0.25, 1.0]), rtol=1e-4, atol=1e-5
    )


def test_a_chain_of_three() -> None:
    spec = dataclasses.replace(
        SPEC,
        tasks=(Task(name="a"), Task(name="b", given=0), Task(name="c", given=1)),
        logit_shift=(0.0,) * 3,
    )
    model = build(spec)
    model._boosters = [Fixed([logit(p)] * 3) for p in (0.5, 0.2, 0.02)]
    scores = probabilities(model(batch()), spec)
    assert [float(scores[name][0]) for name in "abc"] == pytest.approx([0.5, 0.2, 0.02], rel=1e-5)


def test_given_only_scores_are_conditional_already() -> None:
    model = build(funnel="given_only")
    model._boosters = [Fixed([logit(0.5)] * 3), Fixed([logit(0.1)] * 3)]
    assert float(probabilities(model(batch()), SPEC)["order"][0]) == pytest.approx(0.05)


def test_without_trees_every_logit_is_zero_and_there_is_nothing_to_embed() -> None:
    model = build()
    assert not model(batch()).any()
    assert {name: tuple(t.shape) for name, t in model.table_tensors().items()} == {
        name: (rows, 0) for name, rows in SPEC.tables.items()
    }
    assert model.embed(batch()).user_RW is None


def test_trees_make_room_for_themselves() -> None:
    model = build()
    model.set_trees(["tree one", "tree"])
    other = build()
    other.take_shapes({name: tuple(tensor.shape) for name, tensor in model.dense_tensors().items()})
    for name, tensor in other.dense_tensors().items():
        tensor.copy_(model.dense_tensors()[name])
    assert bytes(other.dense_tensors()["trees_0"].numpy()) == b"tree one"


def test_the_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> None:
        raise ModuleNotFoundError("no")

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with raises(MissingExtra, "model.name=lightgbm", "hemix[baselines]", field="lightgbm"):
        module.load_lightgbm()
