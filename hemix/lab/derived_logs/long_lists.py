"""A log of lists of 25 with a strong effect of the position, as of search results.

The city's logs show 10 venues, and what a list of 25 would have got is not in them. So the city is
simulated again, with the same users and venues, a longer list, and log-odds that fall by 3.65 up to
position 20.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hemix.errors import UsageError
from hemix.lab.derived_logs.derivation import Derivation
from hemix.lab.derived_logs.source import Source
from hemix.lab.simulator import simulate
from hemix.lab.simulator.city import CITY_FORMAT
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.schema import Schema

__all__ = ["LongLists"]

_LENGTH = 25
_FALL, _AT_POSITION = -3.65, 20
"""Log-odds of a click at a position, against the first one"""
_MORE_CLICKS = 1.0
"""Added to all log-odds, because few positions of a long list are clicked at all"""

_PARAMETERS = replace(
    PARAMETERS,
    recall=replace(PARAMETERS.recall, page=_LENGTH),
    click=replace(
        PARAMETERS.click,
        bias=PARAMETERS.click.bias + _MORE_CLICKS,
        position=_FALL / math.log1p(_AT_POSITION),
    ),
)


class LongLists(Derivation):
    """A log whose clicks depend on the position first."""

    summary = "lists of 25 with a strong effect of the position"
    max_rows = 90_000

    @contextmanager
    def open(self, logs: Path, *, max_rows: int, seed: int) -> Iterator[Source]:
        """Simulate the city of the logs again.

        Args:
            logs: Logs of ``hemix simulate``.
            max_rows: Most impressions to use.
            seed: Of the draw of users.

        Raises:
            UsageError: The logs are not those of a simulated city.
        """
        city_file = logs / "truth" / "city.json"
        if not city_file.is_file():
            raise UsageError(
                f"{logs}: expected the logs of a simulated city; there is no truth/city.json",
                code="not_a_city",
                field="LOGS",
                hint="make them with hemix simulate",
            )
        city = CITY_FORMAT.read(city_file)
        with TemporaryDirectory(prefix="hemix-") as folder:
            simulate(
                Path(folder) / "logs",
                users=city["users"],
                days=city["days"],
                seed=city["seed"],
                parameters=_PARAMETERS,
            )
            yield Source(Path(folder) / "logs", max_rows=max_rows, seed=seed)

    def schema(self, schema: Schema) -> dict[str, Any]:
        """Give every position of the list a bias of its own."""
        content = super().schema(schema)
        content["roles"]["bias"]["max"] = _LENGTH
        return content
