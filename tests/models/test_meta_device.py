"""A step asks its device for nothing: shapes are decided in the host's memory.

On PyTorch's meta device tensors have no values, so that whatever a GPU would have to be waited for fails there.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from hemix.config import build_settings
from hemix.models import build_model
from hemix.training.table_optimizers import build_table_optimizer
from tests.batches import make_batch, make_spec

META = torch.device("meta")


@pytest.mark.parametrize("candidates", [1, 4])
@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adagrad"])
def test_a_training_step_reads_nothing_from_its_device(
    age: str, optimizer: str, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the meta device
    spec = make_spec()
    model = build_model(spec, build_settings(overrides={"model.age": age}).model, seed=0).to(META).train()
    batch = make_batch(spec, candidates=candidates).to(META)
    table_optimizer = build_table_optimizer(optimizer, model.tables)
    model.loss(model(batch).float(), batch).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(list(model.dense_parameters()), 1.0)
    table_optimizer.step(1e-3)
    assert all(p.grad is not None for name, p in model.named_dense_parameters())


def test_the_guard_fails_where_a_value_is_read() -> None:
    batch = make_batch(make_spec()).to(META)
    with pytest.raises((RuntimeError, NotImplementedError)):
        int(batch.visible.max())


def test_a_moved_batch_keeps_the_host_s() -> None:
    batch = make_batch(make_spec())
    moved = batch.to(META)
    assert moved.host is batch and moved.visible.device == META and batch.host is batch
    assert moved.to("meta") is moved and batch.to("cpu") is batch
