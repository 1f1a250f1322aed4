"""Settings of HeMix (arXiv 2602.09387); the model is in `hemix.models.hemix`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from hemix.config import Count, CountOrZero
from hemix.models.base import SizedConfig, check_divisor, check_rotary, named_sizes
from hemix.nn.layers import ActivationKind, NormKind
from hemix.nn.mixer import FFNActivation, NormPosition
from hemix.nn.time_encoding import TimeEncoding
from hemix.validation import InvalidKey

__all__ = ["HeMixConfig"]


class HeMixConfig(SizedConfig):
    """Settings of HeMix. Every choice that the paper leaves open is one."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024),
        attention_heads=(2, 4, 6, 8),
        layers=(2, 3, 3, 7),
        mix_heads=(4, 4, 8, 16),
        mix_rank=(32, 64, 128, 256),
        tokenizer_hidden=(128, 512, 2048, 4096),
    )

    name: Literal["hemix"] = "hemix"
    ns_tokens_global: Count = 4
    """S_G: the NS tokens that query the global history."""
    ns_tokens_realtime: Count = 4
    """S_R: the NS tokens that query the real-time history."""
    fixed_queries_global: CountOrZero = 4
    fixed_queries_realtime: CountOrZero = 4
    dynamic_queries: bool = True
    """Off: histories are read by fixed queries alone."""
    query_projection: Literal["per_query", "shared"] = "per_query"
    qk_norm: bool = False
    """An event's score is the cosine of query and key, times a learned scale of each head; off:
    their product over the root of a head's width, as in the paper."""
    candidate_query: bool = False
    """The key of the candidate, taken as an event, is added to its dynamic queries."""
    use_global: bool = True
    """Off: the model has no global history."""
    use_realtime: bool = True
    """Off: the model has no real-time history."""
    attention_heads: Count = 2
    """H, the heads of the cross-attention."""
    tokenizer_hidden: Count = 128
    """Units of the tokeniser's inner layer."""
    products: Literal["none", "fields", "histories"] = "histories"
    """Dot products of pairs of fields as inputs of the tokeniser: none, of the features, or of
    features and pooled histories."""
    time_encoding: TimeEncoding = "bias"
    """How an event's age enters, without entering keys and values: see docs/project/decisions."""
    block: Literal["heteromixer", "rankmixer", "transformer"] = "heteromixer"
    """How tokens interact in a block."""
    mix_heads: Count = 4
    """M: mix-tokens of a HeteroMixer block."""
    mix_rank: Count = 32
    """r, the inner width of the low-rank interaction."""
    mix_activation: ActivationKind = "relu"
    ffn: Literal["per_token", "per_group", "shared"] = "per_token"
    ffn_activation: FFNActivation = "gelu"
    ffn_expansion: Count = 4
    norm_position: NormPosition = "post"
    norm: NormKind = "layer"
    pooling: Literal["mean", "flatten"] = "mean"

    @model_validator(mode="after")
    def _consistent(self) -> HeMixConfig:
        check_divisor(
            self.token_width, attention_heads=self.attention_heads, mix_heads=self.mix_heads
        )
        for history in ("global", "realtime"):
            if getattr(self, f"use_{history}") and not sum(self.queries(history)):
                raise InvalidKey(
                    f"use_{history}", f"needs dynamic_queries or fixed_queries_{history}"
                )
        if self.block == "rankmixer" and self.token_width < self.tokens:
            needed = f"a token_width of at least the {self.tokens} tokens"
            raise InvalidKey("block", f"rankmixer needs {needed}, got {self.token_width}")
        check_rotary(self.time_encoding, self.token_width, self.attention_heads)
        return self

    @property
    def tokens(self) -> int:
        """S: dynamic and fixed interests of both histories, then the NS tokens."""
        return sum(self.token_groups)

    @property
    def token_groups(self) -> tuple[int, int, int]:
        """How many tokens are real-time interests, global interests, NS tokens; in this order."""
        return sum(self.queries("realtime")), sum(self.queries("global")), self.ns_tokens

    def queries(self, history: Literal["global", "realtime"]) -> tuple[int, int]:
        """Return how many dynamic and how many fixed queries read a history."""
        if not getattr(self, f"use_{history}"):
            return 0, 0
        dynamic: int = getattr(self, f"ns_tokens_{history}") if self.dynamic_queries else 0
        fixed: int = getattr(self, f"fixed_queries_{history}")
        return dynamic, fixed

    @property
    def ns_tokens(self) -> int:
        """S_G + S_R."""
        return self.ns_tokens_global + self.ns_tokens_realtime
