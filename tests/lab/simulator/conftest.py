"""A small city, lived once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix.lab.simulator import simulate
from hemix.lab.simulator.city import City, build_city
from hemix.lab.simulator.life import Page
from hemix.lab.simulator.record import Columns, record

USERS, DAYS, SEED = 200, 4, 7


@dataclass
class Lived:
    """A city with its logs and every logged page."""

    city: City
    events: Columns
    impressions: Columns
    pages: list[Page] = field(default_factory=list)

    def factor(self, name: str) -> np.ndarray:
        """A factor of all impressions, in the order of the pages."""
        return np.concatenate(
            [np.broadcast_to(getattr(p.factors, name), (len(p.place), 1))[:, 0] for p in self.pages]
        )


@pytest.fixture(scope="session")
def city() -> City:
    return build_city(USERS, DAYS, SEED)


@pytest.fixture(scope="session")
def lived(city: City) -> Lived:
    pages: list[Page] = []
    events, impressions = record(city, city.people(np.arange(USERS)), observe=pages.append)
    return Lived(city, events, impressions, pages)


@dataclass
class Written:
    """A logs folder and what `simulate` said of it."""

    folder: Path
    counts: dict[str, Any]


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("city") / "logs"
    return Written(folder, simulate(folder, users=USERS, days=DAYS, seed=SEED))
