"""Schemas with next to nothing in them: every model builds, learns and scores, and the exported
form says the same or says why not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from hemix.data.spec import InputSpec
from hemix.errors import UsageError
from hemix.exporting.export_model import padded_form, takes_times
from hemix.exporting.feed import by_candidate, request_feed, user_feed
from hemix.exporting.random_batch import random_batch
from hemix.models import Ranker, build_model, build_predictor, model_names
from hemix.nn.embedding import EmbeddingTables
from hemix.nn.products import cross_dots, pair_dots
from hemix.settings import build_settings
from hemix.training.optimizers import Optimizers
from tests.batches import make_batch, make_config
from tests.exporting.sizes import SMALL, lively
from tests.models.degenerate import DEGENERATE
from tests.refusals import raises

HEMIX: list[dict[str, Any]] = [
    {"products": "none"},
    {"products": "fields"},
    {"block": "transformer"},
    {"use_global": False},
    {"dynamic_queries": False},
]
MODELS_AND_OPTIONS = [
    *((name, {}) for name in model_names()),
    *(("hemix", options) for options in HEMIX),
]


def scored(model: Ranker, spec: InputSpec) -> list[torch.Tensor]:
    """Probabilities of a batch of several users, and of one request of a user without events."""
    batches = (
        make_batch(spec),
        make_batch(spec, users=1, requests_per_user=1, history=0, realtime=0, candidates=1),
    )
    return [value for batch in batches for value in model.eval().predict(batch).values()]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "options"), MODELS_AND_OPTIONS, ids=str)
def test_every_model_learns_and_scores(name: str, options: dict[str, Any]) -> None:
    settings = make_config(**{**SMALL, **options, "name": name})
    train = build_settings().train.resolved(10**6)
    for what, spec in DEGENERATE.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = build_predictor(spec, settings)
        if isinstance(model, Ranker):  # trees are no matter of steps
            optimizers = Optimizers(model.train(), train, 2, None)
            for step in range(2):
                batch = make_batch(spec, seed=step)
                model.training_loss(batch).backward()  # type: ignore[no-untyped-call]
                optimizers.step(step)
        assert all(
            bool(torch.isfinite(p).all())
            for p in model.dense_tensors().values()
            if p.is_floating_point()
        ), what
        assert all(bool(((p >= 0) & (p <= 1)).all()) for p in scored(model, spec)), what


@pytest.mark.parametrize("name", [name for name in model_names() if name != "lightgbm"])
@pytest.mark.parametrize("what", ["an item id alone", "numbers of items alone"])
def test_one_column_of_the_item_makes_a_difference(name: str, what: str) -> None:
    """What a model is given, it reads."""
    spec = DEGENERATE[what]
    model = build_model(
        spec, make_config(**{**SMALL, "name": name, "embedding_init_std": 1.0}), 3
    ).eval()
    (probabilities,) = model.predict(
        make_batch(
            spec, users=1, requests_per_user=1, candidates=4, history=0, realtime=0, ragged=False
        )
    ).values()
    assert len(probabilities.unique()) > 1


@pytest.mark.sampled(3)
@pytest.mark.parametrize("products", ["histories", "fields", "none"])
def test_the_exported_form_gives_the_same_scores(products: str) -> None:
    for what, spec in DEGENERATE.items():
        model = lively(spec, products=products)
        if not (
            spec.item.names
            or spec.item.jagged_names
            or spec.item.numbers
            or spec.cross.names
            or spec.cross.numbers
            or spec.bias_rows
        ):
            with raises(UsageError, code="not_exportable", field="features.item"):
                padded_form(model)
            continue
        user, request = padded_form(model)
        for seed, sizes in enumerate(
            (
                dict(users=1, requests=1, candidates=1, events=1, realtime=1),
                dict(users=3, requests=5, candidates=4, events=9, realtime=3),
                dict(users=2, requests=3, candidates=4, events=0, realtime=0),
            )
        ):
            batch = random_batch(spec, seed, **sizes)
            feed = {**user_feed(batch, spec), **request_feed(batch, spec, takes_times(model))}
            given = {name: torch.from_numpy(value) for name, value in feed.items()}
            with torch.no_grad():
                state = user(*(given[tensor_spec.name] for tensor_spec in user.inputs))
                given |= {
                    tensor_spec.name: value
                    for tensor_spec, value in zip(user.outputs, state, strict=True)
                }
                (scores,) = request(*(given[tensor_spec.name] for tensor_spec in request.inputs))
            (expected,) = model.predict(batch).values()
            np.testing.assert_allclose(
                by_candidate(batch, scores.numpy()), expected, atol=1e-6, err_msg=what
            )


def test_products_of_fewer_than_two_vectors() -> None:
    none, one, two = (torch.ones(5, count, 3) for count in (0, 1, 2))
    assert [pair_dots(vectors).shape[1] for vectors in (none, one, two)] == [0, 0, 1]
    shapes = {
        (a, b): cross_dots(x, y).shape[1]
        for a, x in enumerate((none, one, two))
        for b, y in enumerate((none, one, two))
    }
    assert shapes == {(c, f): c * f + c * (c - 1) // 2 for c in range(3) for f in range(3)}


def test_a_schema_without_ids_has_no_tables() -> None:
    assert EmbeddingTables({}, 4).by_name() == {}
    assert EmbeddingTables({"a": 2, "b": 3}, 4).ranges() == {"a": (0, 2), "b": (2, 5)}
