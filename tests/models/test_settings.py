"""Settings that switch parts of HeMix off or put another block in: how many tokens are left, what
is refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from hemix.errors import SettingsError
from hemix.settings import build_settings
from tests.batches import make_config
from tests.refusals import raises


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
    ("override", "field", "values"),
    [
        ({"model.block": "mlp"}, "model.block", ["'mlp'"]),
        (
            {"model.block": "rankmixer", "model.token_width": 16},
            "model.block",
            ["token_width", 24, 16],
        ),
        (
            {"model.dynamic_queries": False, "model.fixed_queries_realtime": 0},
            "model.use_realtime",
            ["dynamic_queries", "fixed_queries_realtime"],
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    override: dict[str, Any], field: str, values: list[object]
) -> None:
    with raises(SettingsError, *values, field=field):
        build_settings(overrides=override)
