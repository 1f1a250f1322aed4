"""Map, venues and users: the city before users do anything."""

from __future__ import annotations

import numpy as np

from hemix.lab.simulator.city import City, build_city
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.lab.simulator.venues import ALWAYS_OPEN


def test_a_venue_does_not_depend_on_the_number_of_venues(city: City) -> None:
    larger = build_city(900, city.days, city.seed)
    assert len(larger.venues) == 1650 > len(city.venues) == 1200
    for name in ("category", "chain", "x_km", "price_tier", "quality", "style", "tags"):
        np.testing.assert_array_equal(
            getattr(larger.venues, name)[:1200], getattr(city.venues, name), err_msg=name
        )
    np.testing.assert_array_equal(larger.venues.opening_day[:1200], city.venues.opening_day)


def test_a_user_does_not_depend_on_other_users(city: City) -> None:
    fifty, two = city.users(np.arange(50)), city.users([31, 7])
    for name in ("home_x_km", "price_tier", "style", "sessions_per_day", "rhythm", "mean_taste"):
        np.testing.assert_array_equal(
            getattr(two, name), getattr(fifty, name)[[31, 7]], err_msg=name
        )
    np.testing.assert_array_equal(two.taste(3), fifty.taste(3)[[31, 7]])


def test_taste_drifts_slowly(city: City) -> None:
    users = city.users(np.arange(300))
    start = users.taste(0)
    correlation = [
        np.corrcoef(start.ravel(), users.taste(day).ravel())[0, 1] for day in (1, 7, 28, 84)
    ]
    assert correlation == sorted(correlation, reverse=True)
    assert correlation[0] > 0.99 and 0.9 < correlation[1] < 0.99 and correlation[3] < 0.7


def test_the_spatial_index_lists_the_nearest_venues(city: City) -> None:
    index = city.spatial_index
    x, y = 1.0, -2.0
    cell = int(index.cell_of([x], [y])[0])
    row, column = divmod(cell, index.cells_per_side)
    middle_x = (column + 0.5) * index.cell_km - index.half_width_km
    middle_y = (row + 0.5) * index.cell_km - index.half_width_km
    assert abs(middle_x - x) <= index.cell_km / 2 and abs(middle_y - y) <= index.cell_km / 2
    distance = np.hypot(city.venues.x_km - middle_x, city.venues.y_km - middle_y)
    np.testing.assert_allclose(
        distance[index.nearest[cell]], np.sort(distance)[: PARAMETERS.recall.nearest], atol=1e-4
    )
    lists = index.nearest_of_category[cell]
    for category in range(len(PARAMETERS.categories)):
        venues = lists[category][lists[category] >= 0]
        assert (city.venues.category[venues] == category).all()
        count = int((city.venues.category == category).sum())
        assert len(venues) == min(count, PARAMETERS.recall.nearest_of_category)


def test_points_outside_the_map_belong_to_its_edge_cells(city: City) -> None:
    index = city.spatial_index
    assert index.cell_of([-99.0], [-99.0])[0] == 0
    assert index.cell_of([99.0], [99.0])[0] == index.cells_per_side**2 - 1


def test_venues_are_plausible() -> None:
    venues = build_city(3000, 14, 0).venues
    assert 0.04 < (venues.opening_day != ALWAYS_OPEN).mean() < 0.06
    assert venues.opening_day.max() == 13
    assert 0.27 < (venues.chain >= 0).mean() < 0.33
    assert np.corrcoef(venues.quality, venues.rating)[0, 1] > 0.7
    assert ((venues.rating >= 1) & (venues.rating <= 5)).all() and (venues.price_yuan >= 1).all()
    assert all(len(set(row) - {-1}) == (3 if row[2] >= 0 else 2) for row in venues.tags.tolist())


def test_day_0_is_a_monday(city: City) -> None:
    weekend = [day for day in range(-2, 8) if city.is_weekend(day)]
    assert weekend == [-2, -1, 5, 6]
    assert city.day_start_ms(0) == 1_767_542_400_000  # 2026-01-05 00:00 in Shanghai
