"""The fast path computes what the reference computes: probabilities, and gradients of every weight,
tables included.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec, Task
from hemix.models import ModelConfig, build_model
from hemix.models.base import Ranker
from hemix.nn.heads import loss, probabilities
from tests.batches import make_batch, make_config, make_spec, smallest_spec
from tests.models.reference import Reference
from tests.tolerances import PARITY_FP32_GRADIENT, PARITY_FP32_PROBABILITY, PARITY_FP64

SMALL: dict[str, Any] = dict(
    embedding_size=4,
    token_width=8,
    tokenizer_hidden=12,
    mix_rank=5,
    tower_hidden=6,
    embedding_init_std=0.3,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    dict(time_encoding="rotary"),
    dict(time_encoding="embedding"),
    dict(time_encoding="none"),
    dict(norm="rms", norm_position="pre"),
    dict(norm="rms", ffn="per_group", ffn_activation="swiglu"),
    dict(norm_position="pre", ffn="shared", mix_activation="gelu", pooling="flatten"),
    dict(ffn_activation="swiglu", funnel="given_only", time_encoding="rotary"),
    dict(
        ffn="per_group",
        ns_tokens_global=3,
        ns_tokens_realtime=1,
        fixed_queries_global=0,
        fixed_queries_realtime=2,
    ),
    dict(
        time_encoding="embedding",
        ns_tokens_global=1,
        ns_tokens_realtime=2,
        fixed_queries_global=5,
        fixed_queries_realtime=0,
    ),
    dict(block="transformer", norm_position="pre"),
    dict(
        block="rankmixer",
        ns_tokens_global=2,
        ns_tokens_realtime=1,
        fixed_queries_global=1,
        fixed_queries_realtime=1,
    ),
    dict(dynamic_queries=False, ffn="per_group"),
    dict(query_projection="shared"),
    dict(
        query_projection="shared",
        dynamic_queries=False,
        time_encoding="rotary",
        fixed_queries_global=1,
    ),
    dict(use_global=False, ffn="per_group"),
    dict(use_realtime=False, ffn="per_group", pooling="flatten"),
    dict(use_global=False, use_realtime=False),
    dict(qk_norm=True),
    dict(qk_norm=True, time_encoding="rotary"),
    dict(qk_norm=True, time_encoding="embedding", candidate_query=True),
    dict(candidate_query=True, use_realtime=False),
    dict(candidate_query=True, qk_norm=True, query_projection="shared"),
    dict(candidate_query=True, dynamic_queries=False),
    dict(products="none"),
    dict(products="fields"),
]


def randomised(spec: InputSpec, settings: ModelConfig, dtype: torch.dtype) -> Ranker:
    """A model in train mode none of whose weights is at a special value such as 0 or 1."""
    model = build_model(spec, settings, seed=1).to(dtype).train()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype),
                alpha=0.3,
            )
    return model


def both_sides(
    spec: InputSpec, settings: ModelConfig, batch: RequestBatch, dtype: torch.dtype
) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """(fast logits, reference logits, both gradients of every weight)."""
    assert batch.labels is not None and batch.weights is not None
    model = randomised(spec, settings, dtype)
    reference = Reference(spec, settings, model.state_dict())
    fast, plain = model(batch), reference(batch)
    model.loss(fast, batch).backward()
    loss(plain, batch.labels, batch.weights, spec, settings.funnel).backward()
    gradients = {
        name: (
            p.grad if p.grad is not None else torch.zeros_like(p),
            g if (g := reference.weights[name].grad) is not None else torch.zeros_like(p),
        )
        for name, p in model.named_dense_parameters()
    }
    table_step = model.tables.take_step()
    assert table_step is not None
    table_gradient = torch.zeros_like(model.tables.weight)
    table_gradient[table_step[0]] = table_step[1]
    expected = reference.weights["tables.weight"].grad
    assert expected is not None
    return fast, plain, {**gradients, "tables.weight": (table_gradient, expected)}


def compare(
    spec: InputSpec, settings: ModelConfig, batch: RequestBatch, dtype: torch.dtype
) -> None:
    fast, plain, gradients = both_sides(spec, settings, batch, dtype)
    exact = dtype == torch.float64
    for name, value in probabilities(fast, spec).items():
        torch.testing.assert_close(
            value,
            probabilities(plain, spec)[name],
            **(PARITY_FP64 if exact else PARITY_FP32_PROBABILITY),
        )
    for name, (ours, theirs) in gradients.items():
        tolerance = PARITY_FP64 if exact else PARITY_FP32_GRADIENT
        torch.testing.assert_close(
            ours, theirs, **tolerance, msg=lambda m, name=name: f"gradient of {name}: {m}"
        )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "default"
)
def test_parity_fp64(options: dict[str, Any]) -> None:
    """Ragged and empty histories, timeless events, several requests a user at different times, all
    options.
    """
    spec = make_spec()
    compare(
        spec, make_config(**SMALL, **options), make_batch(spec, dtype=torch.float64), torch.float64
    )


@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_parity_fp32(age: str) -> None:
    spec = make_spec()
    compare(spec, make_config(**SMALL, time_encoding=age), make_batch(spec, seed=3), torch.float32)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
@pytest.mark.parametrize(("requests", "candidates"), [(1, 1), (1, 12), (4, 5)])
def test_parity_of_few_and_many_queries(age: str, requests: int, candidates: int) -> None:
    """Few queries and many take different ways through the attention."""
    spec = make_spec()
    batch = make_batch(
        spec,
        seed=5,
        users=3,
        requests_per_user=requests,
        candidates=candidates,
        history=12,
        ragged=False,
        dtype=torch.float64,
    )
    compare(spec, make_config(**SMALL, time_encoding=age), batch, torch.float64)


@pytest.mark.parametrize("history", [0, 1])
def test_parity_without_history(history: int) -> None:
    spec = make_spec()
    batch = make_batch(
        spec, users=2, history=history, realtime=0, ragged=False, dtype=torch.float64
    )
    compare(spec, make_config(**SMALL), batch, torch.float64)


def test_parity_of_a_long_ragged_batch_in_several_groups() -> None:
    """Lengths from 0 to 300 are padded in several groups."""
    spec = make_spec()
    batch = make_batch(
        spec,
        seed=7,
        users=24,
        requests_per_user=1,
        candidates=1,
        history=300,
        realtime=40,
        dtype=torch.float64,
    )
    compare(spec, make_config(**SMALL), batch, torch.float64)


def test_parity_without_lists_numbers_fields_or_bias() -> None:
    """The smallest schema: a user id, an item id, one label, an action."""
    spec = smallest_spec()
    compare(spec, make_config(**SMALL), make_batch(spec, dtype=torch.float64), torch.float64)


def test_parity_of_a_chain_of_three_tasks() -> None:
    tasks = (Task(name="click"), Task(name="cart", given=0), Task(name="order", given=1))
    spec = make_spec(tasks=tasks, bias_rows=0)
    compare(spec, make_config(**SMALL), make_batch(spec, dtype=torch.float64), torch.float64)
