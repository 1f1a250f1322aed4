"""How closely two ways of computing the same thing must agree.

The only place where this is said.
"""

from __future__ import annotations

from typing import Any

PARITY_FP64: dict[str, Any] = dict(rtol=1e-9, atol=1e-9)
"""Fast path against reference in fp64: logits, probabilities, gradients."""

PARITY_FP32_PROBABILITY: dict[str, Any] = dict(rtol=0, atol=1e-5)
PARITY_FP32_GRADIENT: dict[str, Any] = dict(rtol=1e-4, atol=1e-4)

INVARIANCE_PROBABILITY: dict[str, Any] = dict(rtol=0, atol=1e-6)
"""The same impressions with more padding, other neighbours or another order, in fp32."""
