"""Choice probabilities worked out by hand, and visit counts."""

from __future__ import annotations

from dataclasses import replace
from math import e, exp, log

import numpy as np
import pytest

from hemix.lab.simulator.choice_model import (
    Factors,
    choice_probabilities,
    click_logit,
    order_logit,
)
from hemix.lab.simulator.city import City
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.lab.simulator.state import VisitCounts

FACTORS = Factors(
    taste=np.array([[1.0]]),
    style=np.array([[-0.5]]),
    intent_category=np.array([[1.0]]),
    intent_group=np.array([[1.0]]),
    distance_km=np.array([[e - 1]]),
    rain=False,
    price_gap=np.array([[2.0]]),
    quality=np.array([[0.8]]),
    fame=np.array([[0.5]]),
    visits=np.array([[0.0]]),
    chain_visits=np.array([[0.0]]),
    hourly_demand=np.array([[0.2]]),
)


def test_probabilities_equal_the_hand_computed_sums() -> None:
    # bias, taste, style, intent (category, group), log(1 + km) = 1, squared tiers = 4,
    # quality - 0.5 = 0.3, fame, hourly demand
    click = (
        -2.6
        + 0.45
        - 0.5 * 0.42
        + 1.25
        + 0.45
        - 0.55
        - 4 * 0.13
        + 0.3 * 2.0
        + 0.5 * 0.25
        + 0.2 * 0.3
    )
    order = -2.9 + 0.15 - 0.5 * 0.2 + 0.9 + 0.2 - 0.45 - 4 * 0.2 + 0.3 * 1.8 + 0.2 * 0.45
    assert click == pytest.approx(-0.945) and order == pytest.approx(-2.37)
    p_click, p_order = choice_probabilities(FACTORS, 0, PARAMETERS)
    assert p_click[0, 0] == pytest.approx(1 / (1 + exp(0.945)))
    assert p_order[0, 0] == pytest.approx(1 / (1 + exp(2.37)))


def test_position_lowers_clicks_but_not_orders() -> None:
    logits = click_logit(FACTORS, np.array([[0, 1, 9]]), PARAMETERS.click)[0]
    assert logits[0] - logits[1] == pytest.approx(0.42 * log(2))
    assert logits[0] - logits[2] == pytest.approx(0.42 * log(10))
    p_orders = {
        float(choice_probabilities(FACTORS, position, PARAMETERS)[1][0, 0]) for position in (0, 9)
    }
    assert len(p_orders) == 1


@pytest.mark.parametrize(
    ("change", "click_difference", "order_difference"),
    [
        ({"rain": True}, -0.35, -0.3),
        ({"visits": np.array([[e - 1]])}, 0.4, 0.45),
        ({"visits": np.array([[100.0]])}, 0.4 * log(7), 0.45 * log(7)),
        ({"chain_visits": np.array([[e - 1]])}, 0.15, 0.1),
        ({"intent_category": np.array([[0.0]])}, -1.25, -0.9),
        ({"price_gap": np.array([[-2.0]])}, 0.0, 0.0),
    ],
)
def test_a_factor_changes_the_log_odds_by_its_weight(
    change: dict[str, object], click_difference: float, order_difference: float
) -> None:
    changed = replace(FACTORS, **change)  # type: ignore[arg-type]
    assert (
        click_logit(changed, 0, PARAMETERS.click) - click_logit(FACTORS, 0, PARAMETERS.click)
    ).item() == pytest.approx(click_difference)
    assert (
        order_logit(changed, PARAMETERS.order) - order_logit(FACTORS, PARAMETERS.order)
    ).item() == pytest.approx(order_difference)


def test_visits_count_for_the_venue_and_its_chain(city: City) -> None:
    visits = VisitCounts(city, city.users([0, 1]))
    chain = city.venues.chain
    branches = np.flatnonzero(chain == np.bincount(chain[chain >= 0]).argmax())[:2]
    independent = int(np.flatnonzero(chain < 0)[0])
    visits.add(
        np.array([0, 0, 0, 1]), np.array([branches[0], branches[0], branches[1], independent])
    )
    assert visits.by_venue[0, branches].tolist() == [2, 1]
    assert visits.by_venue[1, independent] == 1
    assert visits.by_chain[0, chain[branches[0]]] == 3
    assert visits.by_chain.sum() == 3 and visits.by_venue.sum() == 4


def test_visit_counts_stop_at_255(city: City) -> None:
    visits = VisitCounts(city, city.users([0]))
    visits.add(np.array([0]), np.array([5]), times=500)
    assert visits.by_venue[0, 5] == 255
