"""The headline of a study's report: the relation of the primary pair follows its interval."""

from __future__ import annotations

from typing import Any

import pytest

from hemix.lab.studies.report import headline


def comparison(low: float, high: float) -> dict[str, Any]:
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
    ("low", "high", "relation"),
    [
        (0.01, 0.03, "HeMix is ahead of DLRM:"),
        (-0.03, -0.01, "HeMix is behind DLRM:"),
        (-0.01, 0.02, "HeMix is not significantly different from DLRM:"),
    ],
)
def test_headline_follows_the_interval(low: float, high: float, relation: str) -> None:
    assert relation in headline("compare", comparison(low, high), "click")
