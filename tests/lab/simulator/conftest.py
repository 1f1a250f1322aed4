"""A small city and its logs, simulated once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix.lab.simulator import simulate
from hemix.lab.simulator.city import City, build_city
from hemix.lab.simulator.generate import Columns, generate_logs
from hemix.lab.simulator.simulation import ShownPages

USERS, DAYS, SEED = 200, 4, 7


@dataclass
class GeneratedLogs:
    """A city with its logs as arrays and all logged pages."""

    city: City
    events: Columns
    impressions: Columns
    pages: list[ShownPages] = field(default_factory=list)

    def factor(self, name: str) -> np.ndarray:
        """A factor of all impressions, in the order of the pages."""
        return np.concatenate(
            [
                np.broadcast_to(getattr(pages.factors, name), (len(pages.venue), 1))[:, 0]
                for pages in self.pages
            ]
        )


@pytest.fixture(scope="session")
def city() -> City:
    return build_city(USERS, DAYS, SEED)


@pytest.fixture(scope="session")
def generated(city: City) -> GeneratedLogs:
    pages: list[ShownPages] = []
    events, impressions = generate_logs(city, city.users(np.arange(USERS)), on_pages=pages.append)
    return GeneratedLogs(city, events, impressions, pages)


@dataclass
class LogsFolder:
    """A logs folder and the counts that `simulate` returned."""

    folder: Path
    counts: dict[str, Any]


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> LogsFolder:
    folder = tmp_path_factory.mktemp("city") / "logs"
    return LogsFolder(folder, simulate(folder, users=USERS, days=DAYS, seed=SEED))
