"""Settings that switch parts of HeMix off or put another block in: how many tokens are left, what
is refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from hemix.errors import SettingsError
from hemix.settings import build_settings
from tests.batches import make_config


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, 24),
        (dict(dynamic_queries=False), 16),
        (dict(fixed_queries_global=0, fixed_queries_realtime=0), 16),
        (dict(use_global=False), 16),
        (dict(use_realtime=False), 16),
        (dict(use_global=False, use_realtime=False), 8),
    ],
)
def test_tokens_that_are_left(options: dict[str, Any], tokens: int) -> None:
    """By default 8 NS tokens, and 4 dynamic and 4 fixed interests of each history."""
    assert make_config(**options).tokens == tokens


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"model.block": "mlp"}, "model.block: "),
        (
            {"model.block": "rankmixer", "model.token_width": 16},
            "block: rankmixer needs a token_width of at least the 24 tokens, got 16",
        ),
        (
            {"model.dynamic_queries": False, "model.fixed_queries_realtime": 0},
            "use_realtime: needs dynamic_queries or fixed_queries_realtime",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(override: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        build_settings(overrides=override)
