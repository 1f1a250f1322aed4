"""A city whose past is short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from hemix.lab.simulator.city import build_city
from hemix.lab.simulator.parameters import PARAMETERS


@pytest.fixture(scope="module")
def short_past() -> Iterator[None]:
    """Cities of this module begin 10 days before their logs, not 90, which simulates faster."""
    sessions = replace(PARAMETERS.sessions, past_days=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_city, "__defaults__", (replace(PARAMETERS, sessions=sessions),))
        yield
