"""Rankings to log, without an engine."""

from __future__ import annotations

from collections.abc import Mapping

from hemix.serving.ranking_log.tables import LoggedRanking
from hemix.serving.types import LiveFeatures, RankedItem, Ranking, RankRequest


def logged_ranking(
    request: RankRequest, outputs: Mapping[str, float], version: str = "1"
) -> LoggedRanking:
    """The candidates in the order of the request, all with these outputs and score 0.5."""
    ranking = Ranking(
        id=request.id,
        model="m",
        version=version,
        items=tuple(
            RankedItem(item.id, 0.5, dict(outputs), position=n)
            for n, item in enumerate(request.items)
        ),
        took_ms=1.0,
        history_revision=0,
        history_ranges=(0, 0, 0),
    )
    return LoggedRanking(request=request, ranking=ranking, user=LiveFeatures(), items={})
