"""Probabilities worked out by hand, and memory."""

from __future__ import annotations

from dataclasses import replace
from math import e, exp, log

import numpy as np
import pytest

from hemix.lab.simulator.choice import Factors, Memory, click_logit, order_logit, probabilities
from hemix.lab.simulator.city import City
from hemix.lab.simulator.parameters import PARAMETERS

PLACE = Factors(
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
    hour=np.array([[0.2]]),
)


def test_probabilities_by_hand() -> None:
    # bias, taste, style, intent (category and group), log(1 + km) = 1, four squared tiers, quality
    # - 0.5 = 0.3, fame, hour
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
    p_click, p_order = probabilities(PLACE, 0, PARAMETERS)
    assert p_click[0, 0] == pytest.approx(1 / (1 + exp(0.945)))
    assert p_order[0, 0] == pytest.approx(1 / (1 + exp(2.37)))


def test_the_position_lowers_clicks_and_not_orders() -> None:
    logits = click_logit(PLACE, np.array([[0, 1, 9]]), PARAMETERS.click)[0]
    assert logits[0] - logits[1] == pytest.approx(0.42 * log(2))
    assert logits[0] - logits[2] == pytest.approx(0.42 * log(10))
    p_orders = {float(probabilities(PLACE, position, PARAMETERS)[1][0, 0]) for position in (0, 9)}
    assert len(p_orders) == 1


@pytest.mark.parametrize(
    ("change", "click", "order"),
    [
        ({"rain": True}, -0.35, -0.3),
        ({"visits": np.array([[e - 1]])}, 0.4, 0.45),
        ({"visits": np.array([[100.0]])}, 0.4 * log(7), 0.45 * log(7)),
        ({"chain_visits": np.array([[e - 1]])}, 0.15, 0.1),
        ({"intent_category": np.array([[0.0]])}, -1.25, -0.9),
        ({"price_gap": np.array([[-2.0]])}, 0.0, 0.0),
    ],
)
def test_what_one_factor_changes(change: dict[str, object], click: float, order: float) -> None:
    other = replace(PLACE, **change)  # type: ignore[arg-type]
    assert (
        click_logit(other, 0, PARAMETERS.click) - click_logit(PLACE, 0, PARAMETERS.click)
    ).item() == pytest.approx(click)
    assert (
        order_logit(other, PARAMETERS.order) - order_logit(PLACE, PARAMETERS.order)
    ).item() == pytest.approx(order)


def test_memory_counts_places_and_their_chains(city: City) -> None:
    memory = Memory(city, city.people([0, 1]))
    chain = city.places.chain
    branches = np.flatnonzero(chain == np.bincount(chain[chain >= 0]).argmax())[:2]
    alone = int(np.flatnonzero(chain < 0)[0])
    memory.add(np.array([0, 0, 0, 1]), np.array([branches[0], branches[0], branches[1], alone]))
    assert memory.visits[0, branches].tolist() == [2, 1] and memory.visits[1, alone] == 1
    assert memory.chain_visits[0, chain[branches[0]]] == 3
    assert memory.chain_visits.sum() == 3 and memory.visits.sum() == 4
    memory.add(np.array([1]), np.array([alone]), times=500)
    assert memory.visits[1, alone] == 255
