"""What holds for every baseline that reads events one by one, HyFormer and TokenMixer-Large too:
sharing changes nothing, they learn, they train.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hemix import api
from hemix.cli import main
from hemix.data.batch import RequestBatch
from hemix.evaluation.metrics import auc
from hemix.models import Ranker, build_model, count_parameters
from hemix.settings import build_settings
from hemix.training.table_optimizers import build_table_optimizer
from tests.batches import (
    make_batch,
    make_config,
    make_spec,
    reorder_users,
    take_requests,
    without_events,
)
from tests.models.test_parity import SMALL, randomised
from tests.models.test_sizes import city_spec

SPEC = make_spec()
SAME: dict[str, Any] = dict(rtol=1e-9, atol=1e-9)
MODELS = {
    "din": dict(name="din", history_events=7),
    "sim": dict(name="sim", history_events=4, search_events=5),
    "sim-hard": dict(name="sim", search="category", search_events=3),
    "onetrans": dict(name="onetrans", history_events=6, layers=3),
    "longer": dict(name="longer", history_events=30, merge=3, query_tokens=2, layers=3),
    "hyformer": dict(name="hyformer", queries=2),
    "tokenmixer": dict(name="tokenmixer", mix_heads=4, layers=3),
    "hstu": dict(name="hstu", history_events=20, layers=3),
}
EACH = pytest.mark.parametrize("options", MODELS.values(), ids=MODELS.keys())


def setting(options: dict[str, Any], **batch: Any) -> tuple[Ranker, RequestBatch]:
    model = randomised(SPEC, make_config(**{**SMALL, **options}), torch.float64).eval()
    return model, make_batch(
        SPEC, **{"history": 40, "realtime": 9, "dtype": torch.float64, **batch}
    )


@EACH
@torch.no_grad()
def test_the_steps_apart_and_every_split_give_the_same(options: dict[str, Any]) -> None:
    """Each request alone, without the other users' events, and from a kept user state, as a server
    does it.
    """
    model, batch = setting(options)
    whole = model(batch)
    user_state = model.keep_user(model.encode_user(model.embed(batch, stages=("user",))))
    for request in range(batch.requests_count):
        alone = take_requests(batch, torch.tensor([request]))
        expected = whole[batch.request_index == request]
        torch.testing.assert_close(model(alone), expected, **SAME)
        inputs = model.embed(without_events(alone), stages=("request", "candidate"))
        torch.testing.assert_close(
            model.score(model.encode_request(user_state, inputs), inputs), expected, **SAME
        )


@EACH
@torch.no_grad()
def test_what_a_request_does_not_see_changes_nothing(options: dict[str, Any]) -> None:
    """Events outside a request's own cuts may be anything, though another request of the user sees
    them.
    """
    model, batch = setting(options)
    whole = model(batch)
    position = torch.arange(batch.event_item.shape[0])
    for request in range(batch.requests_count):
        alone = take_requests(batch, torch.tensor([request]))
        unseen = (position < alone.history_ranges[0, 0]) | (position >= alone.history_ranges[0, 2])
        other = dataclasses.replace(
            alone,
            event_item=torch.where(unseen, (batch.event_item + 7) % 40, batch.event_item),
            event_ids=torch.where(unseen.unsqueeze(1), (batch.event_ids + 1) % 6, batch.event_ids),
        )
        torch.testing.assert_close(model(other), whole[batch.request_index == request], **SAME)


@EACH
@torch.no_grad()
def test_both_parts_of_the_history_are_read(options: dict[str, Any]) -> None:
    """The control: without either part the scores differ."""
    model, batch = setting({**options, "history_events": 50})
    begin, middle, end = batch.history_ranges.unbind(1)
    for ranges in ((middle, middle, end), (begin, middle, middle)):
        assert (
            model(dataclasses.replace(batch, history_ranges=torch.stack(ranges, 1))) - model(batch)
        ).abs().max() > 1e-3


@EACH
@torch.no_grad()
def test_the_order_of_users_and_of_candidates_changes_nothing(options: dict[str, Any]) -> None:
    model, batch = setting(options)
    whole = model(batch)
    order = torch.randperm(batch.users_count, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(model(reorder_users(batch, order)), whole, **SAME)
    position = torch.arange(batch.candidates_count)
    turned = torch.argsort(
        batch.request_index * 1000 - position
    )  # last candidate of each request first
    moved = dataclasses.replace(
        batch,
        item_index=batch.item_index[turned],
        bias=batch.bias[turned],
        cross=batch.cross.select(turned),
    )
    torch.testing.assert_close(model(moved), whole[turned], **SAME)


@EACH
@torch.no_grad()
def test_a_long_neighbour_changes_nothing(options: dict[str, Any]) -> None:
    model, long = setting(options, users=5, requests_per_user=2, history=400, realtime=50)
    longest = int(long.event_offsets.diff().argmax())
    others = (long.user_index != longest).nonzero().squeeze(1)
    of_others = torch.isin(long.request_index, others)
    torch.testing.assert_close(model(take_requests(long, others)), model(long)[of_others], **SAME)


@EACH
@pytest.mark.parametrize("history", [0, 1])
def test_empty_histories_are_safe(options: dict[str, Any], history: int) -> None:
    """No event at all, in forward and backward; and the null event's vector moves the scores."""
    model, batch = setting(options, history=history, realtime=0, ragged=False)
    model.train()
    loss = model.training_loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.dense_parameters() if p.grad is not None)
    model.tables.take_step()
    with torch.no_grad():
        before = model.eval()(batch)
        null = model.get_parameter("events.null")
        null.add_(torch.linspace(-1, 1, null.shape[0]))  # LayerNorm would take out a constant
        assert torch.allclose(model(batch), before) is (history == 1 and options["name"] == "din")


@EACH
def test_no_candidate_and_no_request(options: dict[str, Any]) -> None:
    model, batch = setting(options)
    nobody = take_requests(batch, torch.zeros(0, dtype=torch.int64))
    assert model(nobody).shape == (0, 2)


@EACH
def test_every_weight_is_reached_by_a_gradient(options: dict[str, Any]) -> None:
    model, batch = (
        build_model(SPEC, make_config(**{**options, "history_events": 50}), 0).train(),
        make_batch(SPEC),
    )
    model.training_loss(batch).backward()
    assert [
        name
        for name, p in model.named_dense_parameters()
        if p.numel() and (p.grad is None or not p.grad.any())
    ] == []


@pytest.mark.usefixtures("deterministic")
@EACH
def test_two_trainings_give_the_same_bytes(options: dict[str, Any]) -> None:
    first, second = (_trained(options, 3, 1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@EACH
def test_bf16_autocast_is_close_and_its_gradients_are_fp32(options: dict[str, Any]) -> None:
    model, batch = build_model(SPEC, make_config(**options), 0).train(), make_batch(SPEC)
    exact = model(batch).detach()
    model.tables.take_step()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.detach().sigmoid(), exact.sigmoid(), rtol=0, atol=0.02)
    model.loss(logits, batch).backward()
    assert {p.grad.dtype for p in model.dense_parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.slow
@EACH
def test_it_learns_that_the_history_has_the_candidates_category(options: dict[str, Any]) -> None:
    """A click is a candidate whose category is among the last events; nothing else tells, so no
    features alone can know.
    """
    model = _trained(options, 120, 0).eval()
    batch = _matching(1000)
    with torch.no_grad():
        area = auc(batch.labels[:, 0].numpy(), model(batch)[:, 0].numpy())  # type: ignore[index]
    assert isinstance(area, float) and area > 0.8


def _trained(options: dict[str, Any], steps: int, seed: int) -> Ranker:
    model = build_model(SPEC, make_config(**{**options, "history_events": 50}), seed).train()
    dense = torch.optim.AdamW(list(model.dense_parameters()), 3e-3)
    tables = build_table_optimizer("adam", model.tables)
    for step in range(steps):
        batch = _matching(step)
        model.training_loss(batch).backward()
        dense.step()
        dense.zero_grad()
        tables.step(1e-2)
    return model


def _matching(seed: int) -> RequestBatch:
    batch = make_batch(
        SPEC, seed=seed, users=40, requests_per_user=1, candidates=6, history=4, realtime=2
    )
    category = batch.items.ids[:, 2]

    def has(n: int) -> bool:
        begin, _, end = batch.history_ranges[batch.request_index[n]].tolist()
        return bool((category[batch.event_item[begin:end]] == category[batch.item_index[n]]).any())

    clicked = torch.tensor([float(has(n)) for n in range(batch.candidates_count)])
    labels: Tensor = torch.stack([clicked, torch.zeros_like(clicked)], 1)
    return dataclasses.replace(batch, labels=labels, weights=torch.ones_like(labels))


@pytest.mark.parametrize(
    "name", ["din", "sim", "onetrans", "longer", "hyformer", "tokenmixer", "hstu"]
)
def test_hemix_train_takes_it_by_name(  # type: ignore[no-untyped-def]
    name: str, planted_data: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train = [
        "hemix",
        "train",
        "--data",
        planted_data,
        "--out",
        out,
        "--model",
        name,
        "--set",
        "train.batch_size=256",
    ]
    monkeypatch.setattr("sys.argv", [str(word) for word in train])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text())["model"] == name
    figures = api.evaluate(out, planted_data, importance_impressions=0)
    assert 0 < figures["tasks"]["click"]["auc"] < 1


@pytest.mark.parametrize("size", ["tiny", "base", "small", "large"])
@pytest.mark.parametrize(
    "name", ["din", "sim", "onetrans", "longer", "hyformer", "tokenmixer", "hstu"]
)
def test_a_named_size_has_parameters_of_hemixs_order(name: str, size: str) -> None:
    ours, theirs = (
        count_parameters(city_spec(), build_settings(size=size, model=each).model)[0]
        for each in (name, "hemix")
    )
    assert 0.2 < ours / theirs < 3


@pytest.mark.parametrize(
    ("name", "tiny", "base"),
    [
        ("din", 603_129, 2_813_529),
        ("sim", 665_909, 3_175_829),
        ("onetrans", 301_580, 1_727_980),
    ],
)
def test_dense_parameters_are_those_of_the_docs(name: str, tiny: int, base: int) -> None:
    counts = (
        count_parameters(city_spec(), build_settings(size=size, model=name).model)[0]
        for size in ("tiny", "base")
    )
    assert tuple(counts) == (tiny, base)
