"""The padded form says what the model says, whatever the options and whatever stands in the
padding.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec, LevelSpec, Task
from hemix.errors import UsageError
from hemix.exporting.export_model import padded_form
from hemix.exporting.feed import by_candidate, request_feed, user_feed
from hemix.exporting.tensor_specs import takes_times
from hemix.models import Ranker
from hemix.nn.inputs import Inputs
from tests.batches import make_batch, make_config, make_spec
from tests.exporting.sizes import OPTIONS, lively
from tests.refusals import raises
from tests.tolerances import PARITY_FP32_PROBABILITY


@torch.no_grad()
def dense_scores(model: Ranker, batch: RequestBatch, **changes: Any) -> dict[str, torch.Tensor]:
    """The padded form's probabilities of a batch's candidates; ``changes`` replace inputs."""
    user, request = padded_form(model)
    given = {
        **user_feed(batch, model.spec),
        **request_feed(batch, model.spec, takes_times(model)),
        **changes,
    }
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    state = user(*(tensors[tensor_spec.name] for tensor_spec in user.inputs))
    tensors |= {
        tensor_spec.name: value for tensor_spec, value in zip(user.outputs, state, strict=True)
    }
    assert set(tensors) == {tensor_spec.name for tensor_spec in (*user.inputs, *request.inputs)}
    values = request(*(tensors[tensor_spec.name] for tensor_spec in request.inputs))
    return {
        tensor_spec.name: torch.from_numpy(by_candidate(batch, value.numpy()))
        for tensor_spec, value in zip(request.outputs, values, strict=True)
    }


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_padded_form_agrees_with_the_model(options: dict[str, Any], seed: int) -> None:
    model = lively(make_spec(), **options)
    batch = make_batch(model.spec, seed=seed)
    expected, scores = model.predict(batch), dense_scores(model, batch)
    assert list(scores) == list(expected) == ["click", "order", "order_given_click"]
    for name, value in expected.items():
        torch.testing.assert_close(scores[name], value, **PARITY_FP32_PROBABILITY)
    assert float(expected["click"].std()) > 0.01


@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_attention_as_a_graph_has_it(age: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(make_spec(), time_encoding=age)
    batch = make_batch(model.spec, seed=3)
    expected = model.predict(batch)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    for name, value in dense_scores(model, batch).items():
        torch.testing.assert_close(value, expected[name], **PARITY_FP32_PROBABILITY)


@pytest.mark.parametrize(
    "sizes",
    [
        dict(users=1, requests_per_user=1, candidates=1, history=1, realtime=1, ragged=False),
        dict(history=0, realtime=0, ragged=False),
        dict(history=9, realtime=0, ragged=False),
        dict(history=9, realtime=9, ragged=False),
    ],
    ids=["one of everything", "no events", "no real time", "real time only"],
)
def test_borders(sizes: dict[str, Any]) -> None:
    model = lively(make_spec())
    batch = make_batch(model.spec, seed=2, **sizes)
    for name, value in dense_scores(model, batch).items():
        torch.testing.assert_close(value, model.predict(batch)[name], **PARITY_FP32_PROBABILITY)


@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_what_stands_in_the_padding_does_not_matter(age: str) -> None:
    model = lively(make_spec(), time_encoding=age)
    batch = make_batch(model.spec, seed=1)
    before = user_feed(batch, model.spec)
    padding = (
        np.arange(before["event_item"].shape[1]) >= batch.event_offsets.diff().numpy()[:, None]
    )
    changes = {
        "event_item": np.where(padding, 5, before["event_item"]),
        "event_ids": np.where(padding[..., None], 1, before["event_ids"]),
        "event_time_ms": np.where(padding, 1_769_999_999_999, before["event_time_ms"]),
    }
    assert padding.any()
    changed, plain = dense_scores(model, batch, **changes), dense_scores(model, batch)
    for name, value in plain.items():
        assert torch.equal(changed[name], value)


def test_a_real_time_range_beyond_the_history_is_an_error() -> None:
    """Not the events of the next user."""
    model = lively(make_spec())
    batch = make_batch(model.spec, seed=1)
    visible = request_feed(batch, model.spec)["visible"]
    visible[0] = (0, 20, 60)
    with pytest.raises(IndexError):
        dense_scores(model, batch, visible=visible)


def test_a_spec_with_next_to_nothing_in_it() -> None:
    spec = InputSpec(
        tables={"item_id": 7},
        user=LevelSpec(),
        context=LevelSpec(),
        item=LevelSpec(names=("item_id",), tables=("item_id",)),
        cross=LevelSpec(),
        event=LevelSpec(),
        event_item_columns=(),
        tasks=(Task(name="view"),),
        logit_shift=(0.7,),
    )
    model = lively(spec)
    batch = make_batch(spec, seed=1)
    user, request = padded_form(model)
    assert [tensor_spec.name for tensor_spec in user.inputs] == ["event_time_ms"]
    assert [tensor_spec.name for tensor_spec in request.outputs] == ["view"]
    torch.testing.assert_close(
        dense_scores(model, batch)["view"], model.predict(batch)["view"], **PARITY_FP32_PROBABILITY
    )


def test_negative_sampling_is_undone() -> None:
    spec = dataclasses.replace(make_spec(), logit_shift=(-1.5, 0.0))
    model = lively(spec)
    batch = make_batch(spec, seed=1)
    torch.testing.assert_close(
        dense_scores(model, batch)["click"],
        model.predict(batch)["click"],
        **PARITY_FP32_PROBABILITY,
    )


@pytest.mark.parametrize("history", ["use_global", "use_realtime"])
def test_a_model_without_a_history_is_refused_by_the_setting(history: str) -> None:
    with raises(UsageError, code="not_exportable", field=f"model.{history}"):
        padded_form(lively(make_spec(), **{history: False}))


def test_other_models_are_refused_by_name() -> None:
    class Other(Ranker):
        def encode_user(self, inputs: Inputs) -> None: ...

        def encode_request(self, state: None, inputs: Inputs) -> None: ...

        def score(self, state: None, inputs: Inputs) -> torch.Tensor:
            raise NotImplementedError

    model = lively(make_spec())
    other = Other(model.spec, make_config("dlrm"))
    with raises(UsageError, "'dlrm'", code="not_exportable", field="model.name"):
        padded_form(other)
