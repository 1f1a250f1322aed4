"""The city's constants do not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hemix.lab.simulator.parameters import PARAMETERS

FINGERPRINT = "e38b5be71bae529375b489ef68eaea19d601591a63f3f9180addde1da77b9131"


def test_the_parameters_have_the_documented_fingerprint() -> None:
    assert PARAMETERS.fingerprint() == FINGERPRINT
    decision = Path(__file__).parents[3] / "docs" / "project" / "decisions" / "0003-the-city.md"
    assert FINGERPRINT in decision.read_text(encoding="utf-8")


def test_the_fingerprint_changes_with_a_constant() -> None:
    changed = replace(PARAMETERS, click=replace(PARAMETERS.click, position=-0.43))
    assert changed.fingerprint() != FINGERPRINT
