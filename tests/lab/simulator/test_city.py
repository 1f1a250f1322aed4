"""Map, places and people: what does not depend on what users do."""

from __future__ import annotations

import numpy as np

from hemix.lab.simulator.city import City, build_city
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.lab.simulator.places import ALWAYS_OPEN


def test_a_place_does_not_depend_on_how_many_there_are(city: City) -> None:
    larger = build_city(900, city.days, city.seed)
    assert len(larger.places) == 1650 > len(city.places) == 1200
    for name in ("category", "chain", "x_km", "tier", "quality", "style", "tags", "opening_day"):
        np.testing.assert_array_equal(
            getattr(larger.places, name)[:1200], getattr(city.places, name), err_msg=name
        )


def test_a_user_does_not_depend_on_the_others(city: City) -> None:
    everyone, some = city.people(np.arange(50)), city.people([31, 7])
    for name in ("home_x_km", "tier", "style", "sessions_per_day", "rhythm", "mean_taste"):
        np.testing.assert_array_equal(
            getattr(some, name), getattr(everyone, name)[[31, 7]], err_msg=name
        )
    np.testing.assert_array_equal(some.taste(3), everyone.taste(3)[[31, 7]])


def test_taste_drifts_slowly(city: City) -> None:
    people = city.people(np.arange(300))
    start = people.taste(0)
    correlation = [
        np.corrcoef(start.ravel(), people.taste(day).ravel())[0, 1] for day in (1, 7, 28, 84)
    ]
    assert correlation == sorted(correlation, reverse=True)
    assert correlation[0] > 0.99 and 0.9 < correlation[1] < 0.99 and correlation[3] < 0.7


def test_the_neighbourhood_lists_the_nearest_places(city: City) -> None:
    near = city.neighbourhood
    x, y = 1.0, -2.0
    cell = int(near.cell([x], [y])[0])
    row, column = divmod(cell, near.cells_a_side)
    middle = (
        (column + 0.5) * near.cell_km - near.half_width_km,
        (row + 0.5) * near.cell_km - near.half_width_km,
    )
    assert abs(middle[0] - x) <= near.cell_km / 2 and abs(middle[1] - y) <= near.cell_km / 2
    distance = np.hypot(city.places.x_km - middle[0], city.places.y_km - middle[1])
    np.testing.assert_allclose(
        distance[near.near[cell]], np.sort(distance)[: PARAMETERS.recall.nearest], atol=1e-4
    )
    listed = near.of_category[cell]
    for category in range(len(PARAMETERS.categories)):
        members = listed[category][listed[category] >= 0]
        assert (city.places.category[members] == category).all()
        count = int((city.places.category == category).sum())
        assert len(members) == min(count, PARAMETERS.recall.nearest_of_category)


def test_points_outside_the_map_fall_into_its_edge_cells(city: City) -> None:
    assert city.neighbourhood.cell([-99.0], [-99.0])[0] == 0
    assert city.neighbourhood.cell([99.0], [99.0])[0] == city.neighbourhood.cells_a_side**2 - 1


def test_places_are_plausible() -> None:
    places = build_city(3000, 14, 0).places
    assert 0.04 < (places.opening_day != ALWAYS_OPEN).mean() < 0.06
    assert places.opening_day.max() == 13
    assert 0.27 < (places.chain >= 0).mean() < 0.33
    assert np.corrcoef(places.quality, places.rating)[0, 1] > 0.7
    assert ((places.rating >= 1) & (places.rating <= 5)).all() and (places.price_yuan >= 1).all()
    assert all(len(set(row) - {-1}) == (3 if row[2] >= 0 else 2) for row in places.tags.tolist())


def test_the_week_begins_on_the_first_day(city: City) -> None:
    assert [city.weekend(day) for day in range(-2, 8)] == [
        True,
        True,
        *[False] * 5,
        True,
        True,
        False,
    ]
    assert city.day_start_ms(0) == 1_767_542_400_000  # 2026-01-05 00:00 in Shanghai
