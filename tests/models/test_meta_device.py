"""A step asks its device for nothing: shapes are decided in the host's memory.

On PyTorch's meta device tensors have no values, so whatever a GPU would have to be waited for fails
there; and it is another device than the CPU, so a tensor of the host that is taken for one of the
device, or the other way round, fails too.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from hemix.config import TrainSettings
from hemix.models import Ranker, build_model, find_model, model_names
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.slots import HostIndex
from hemix.settings import build_settings
from hemix.training.optimizers import Optimizers
from tests.batches import make_batch, make_spec

META = torch.device("meta")
MODELS: dict[str, dict[str, Any]] = {
    **{
        name: {"model.name": name}
        for name in model_names()
        if issubclass(find_model(name).model, Ranker)
    },
    **{f"hemix, {kind}": {"model.time_encoding": kind} for kind in ("rotary", "embedding", "none")},
    **{
        f"rankmixer, {kind}": {"model.name": "rankmixer", "model.time_encoding": kind}
        for kind in ("rotary", "embedding")
    },
    "sim, hard": {"model.name": "sim", "model.search": "category"},
    **{
        f"hemix, {kind}, cosines": {"model.time_encoding": kind, "model.qk_norm": True}
        for kind in ("bias", "rotary", "embedding")
    },
    "hemix with the candidate": {"model.candidate_query": True},
    "hemix without products": {"model.products": "none"},
}


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not know the meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


@pytest.mark.sampled(5)
@pytest.mark.parametrize("candidates", [1, 4])
@pytest.mark.parametrize("tables", ["adam", "rowwise_adagrad"])
@pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
def test_a_training_step_reads_nothing_from_its_device(
    overrides: dict[str, Any], tables: str, candidates: int
) -> None:
    spec = make_spec()
    model = build_model(spec, build_settings(overrides=overrides).model, seed=0).to(META).train()
    batch = make_batch(spec, candidates=candidates).to(META)
    settings = TrainSettings.model_validate(
        {"table_optimizer": tables, "embedding_backend": "torch"}
    )
    optimizers = Optimizers(model, settings.resolved(2560), total_steps=10)
    for optimizer in optimizers._dense:  # PyTorch's fused kernels refuse the meta device
        for group in optimizer.param_groups:
            group["fused"] = False
    logits, *auxiliary = model.training_logits(batch)
    assert logits.device == META and logits.shape == (batch.candidates_count, len(spec.tasks))
    model.loss(logits, batch, auxiliary).backward()  # type: ignore[no-untyped-call]
    unreached = [name for name, p in model.named_dense_parameters() if p.grad is None and p.numel()]
    assert unreached == []
    optimizers.step(0)


@pytest.mark.parametrize("overrides", MODELS.values(), ids=MODELS)
def test_a_server_s_steps_read_nothing_from_their_device(overrides: dict[str, Any]) -> None:
    spec = make_spec()
    model = build_model(spec, build_settings(overrides=overrides).model, seed=0).to(META).eval()
    batch = make_batch(spec).to(META)
    with torch.no_grad():
        user = model.keep_user(model.encode_user(model.embed(batch, ["user"])))
        inputs = model.embed(batch, ["request", "candidate"])
        logits = model.score(model.encode_request(model.join_users([user]), inputs), inputs)
    assert logits.device == META


def test_the_guard_fails_where_a_value_is_read() -> None:
    batch = make_batch(make_spec()).to(META)
    with pytest.raises((RuntimeError, NotImplementedError)):
        int(batch.history_ranges.max())


def test_shapes_depend_on_cpu_tensors_only() -> None:
    batch = make_batch(make_spec()).to(META)
    assert HostIndex.of_candidates(batch).values.device.type == "cpu"
    assert HistoryRanges.of(batch, "global").begin_Q.device.type == "cpu"
    with pytest.raises(AssertionError):
        HostIndex(batch.request_index)
    begin, middle, _ = batch.history_ranges.unbind(1)
    with pytest.raises(AssertionError):
        HistoryRanges(user_index_Q=batch.user_index, begin_Q=begin, end_Q=middle)


def test_a_moved_batch_keeps_the_host_s() -> None:
    batch = make_batch(make_spec())
    moved = batch.to(META)
    assert (
        moved.cpu_batch is batch
        and moved.history_ranges.device == META
        and batch.cpu_batch is batch
    )
    assert moved.to("meta") is moved and batch.to("cpu") is batch
