"""Small models of every option, for the tests of the export."""

from __future__ import annotations

from typing import Any

import torch

from hemix.data.spec import InputSpec
from hemix.models import Ranker, build_model
from tests.batches import make_config

SMALL: dict[str, Any] = dict(
    embedding_size=8,
    token_width=16,
    attention_heads=2,
    layers=1,
    mix_heads=4,
    mix_rank=8,
    tokenizer_hidden=24,
    tower_hidden=8,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "rotary": dict(time_encoding="rotary"),
    "embedding": dict(time_encoding="embedding"),
    "timeless": dict(time_encoding="none"),
    "pre rms swiglu group flatten": dict(
        norm_position="pre",
        norm="rms",
        ffn="per_group",
        ffn_activation="swiglu",
        pooling="flatten",
        mix_activation="gelu",
    ),
    "shared, no fixed queries": dict(
        ffn="shared", fixed_queries_global=0, fixed_queries_realtime=0
    ),
    "no dynamic queries": dict(dynamic_queries=False, fixed_queries_realtime=2),
    "shared projection, transformer": dict(query_projection="shared", block="transformer"),
    "cosines": dict(qk_norm=True),
    "candidate query": dict(candidate_query=True),
    "no products": dict(products="none"),
    "no products, and no age": dict(products="none", time_encoding="none"),
    "products of fields": dict(products="fields"),
    "rankmixer": dict(
        block="rankmixer",
        ns_tokens_global=2,
        ns_tokens_realtime=2,
        fixed_queries_global=1,
        fixed_queries_realtime=1,
    ),
    "one history's fixed queries": dict(
        fixed_queries_realtime=0, ns_tokens_global=3, ns_tokens_realtime=1, layers=2
    ),
}

GRAPHS: dict[str, dict[str, Any]] = {
    " and ".join(names): {key: value for name in names for key, value in OPTIONS[name].items()}
    for names in (
        ("rotary", "pre rms swiglu group flatten", "no dynamic queries", "products of fields"),
        ("embedding", "shared projection, transformer", "shared, no fixed queries"),
        ("no products, and no age", "timeless", "rankmixer"),
        ("cosines", "candidate query", "one history's fixed queries"),
    )
}
"""Every option in one graph at least: writing a graph takes half a minute of a core"""


def lively(spec: InputSpec, **options: Any) -> Ranker:
    """A model in evaluation mode whose every weight has an effect, with random noise on all."""
    model = build_model(spec, make_config(**{**SMALL, **options}), seed=3)
    g = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=g) * 0.2
    return model.eval()
