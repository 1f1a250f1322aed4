"""The first sentence of a study's report: which model stands where, by the interval of the primary
pair.
"""

from __future__ import annotations

from typing import Any

import pytest

from hemix.lab.studies.report import _headline


def compared(low: float, high: float) -> dict[str, Any]:
    """A comparison of HeMix with DLRM whose click AUCs differ by between ``low`` and ``high``."""
    auc = {"hemix": 0.75, "dlrm": 0.75 - (low + high) / 2}
    pair = {
        "a": "hemix",
        "b": "dlrm",
        "task": "click",
        "metric": "auc",
        "delta": (low + high) / 2,
        "ci95": [low, high],
    }
    models = {label: {"tasks": {"click": {"auc": {"mean": value}}}} for label, value in auc.items()}
    return {"models": models, "pairs": [{**pair, "primary": True}]}


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [
        (0.01, 0.03, "HeMix is ahead of DLRM:"),
        (-0.03, -0.01, "HeMix is behind DLRM:"),
        (-0.01, 0.02, "HeMix is neither surely ahead of nor surely behind DLRM:"),
    ],
)
def test_the_headline_says_who_stands_where(low: float, high: float, standing: str) -> None:
    assert standing in _headline("compare", compared(low, high), "click")
