"""Rank candidates: the policy behind the logs, and the page of the highest scores.

The logging policy uses fame, rating, distance and noise. Positions are therefore confounded with
quality, as in real logs.
"""

from __future__ import annotations

import numpy as np

from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import Float64Array, Int32Array
from hemix.lab.simulator.choice_model import distance_km
from hemix.lab.simulator.city import City
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests

__all__ = ["logging_policy_scores", "top_page"]


def logging_policy_scores(city: City, requests: Requests, candidates: Int32Array) -> Float64Array:
    """Score candidates as the policy behind the logs does.

    Args:
        city: City of the venues.
        requests: n requests.
        candidates: Venues [n, k], with gaps of NO_VENUE.

    Returns:
        Scores [n, k]; -inf for a gap.
    """
    r, v = city.parameters.recall, city.venues
    keys = draws.key(city.seed, "policy", requests.user_index[:, None], requests.number[:, None])
    score = (
        r.policy_fame * v.fame[candidates]
        + r.policy_rating * v.rating[candidates]
        - r.policy_distance * np.log1p(distance_km(city, requests, candidates))
        + r.policy_noise * draws.gumbel(draws.extend(keys, candidates))
    )
    return np.where(candidates == NO_VENUE, -np.inf, score)


def top_page(candidates: Int32Array, scores: Float64Array, page_size: int) -> Int32Array:
    """Select the candidates with the highest scores.

    Args:
        candidates: Venues [n, k], with gaps of NO_VENUE.
        scores: Scores [n, k]; -inf for a gap.
        page_size: Maximum number of venues on a page.

    Returns:
        Venues [n, min(page_size, k)], the best first; NO_VENUE after the last one.
    """
    size = min(page_size, candidates.shape[1])
    best = np.argpartition(-scores, size - 1, axis=1)[:, :size]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(candidates, np.take_along_axis(best, order, axis=1), axis=1)
