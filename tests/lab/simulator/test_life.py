"""How the city's users live: the process, not the files."""

from __future__ import annotations

import numpy as np

from hemix.lab.simulator.choice import Moment
from hemix.lab.simulator.city import DAY_MS, HOUR_MS, City, build_city
from hemix.lab.simulator.life import Lives
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.lab.simulator.recall import logging_policy, show
from hemix.lab.simulator.record import ACTIONS, record
from hemix.lab.simulator.sessions import next_intent, react
from tests.lab.simulator.conftest import DAYS, USERS, Lived

VIEW, CLICK, ORDER = (ACTIONS.index(name) for name in ("view", "click", "order"))


def first_day(city: City, users: int = USERS) -> tuple[Lives, Moment]:
    """The first requests of day 0 of newly arrived users."""
    lives = Lives(city, city.people(np.arange(users)))
    lives.begin_day(0)
    return lives, lives.begin_session(0)[0]


def test_lives_do_not_depend_on_the_company(lived: Lived) -> None:
    some = np.array([3, 17, 120])
    events, impressions = record(lived.city, lived.city.people(some))
    for alone, together in ((events, lived.events), (impressions, lived.impressions)):
        rows = np.isin(together["user"], some)
        assert rows.sum() > 0
        for name, column in alone.items():
            np.testing.assert_array_equal(column, together[name][rows], err_msg=name)


def test_marginal_rates_are_realistic(lived: Lived) -> None:
    shown = lived.impressions
    clicks, orders = shown["click"].sum(), shown["order"].sum()
    assert 0.06 < clicks / len(shown["click"]) < 0.10
    assert 0.06 < orders / clicks < 0.15
    assert 7 < len(shown["click"]) / USERS / DAYS < 15
    past = lived.events["time_ms"] < lived.city.start_ms
    history = np.bincount(lived.events["user"][past], minlength=USERS)
    assert 130 < np.median(history) < 400
    assert 1000 < history.max() < 6000
    assert history.min() < 60


def test_clicks_and_orders_follow_their_probabilities(lived: Lived) -> None:
    shown = lived.impressions
    p, click = shown["p_click"], shown["click"]
    assert abs(click.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    q = shown["p_order_given_click"][click]
    assert abs(shown["order"][click].sum() - q.sum()) < 4 * np.sqrt((q * (1 - q)).sum())
    assert not shown["order"][~click].any()


def test_intent_and_taste_both_have_a_real_share_of_the_truth(lived: Lived) -> None:
    w = PARAMETERS.click
    intent = w.intent_category * lived.factor("intent_category") + w.intent_group * lived.factor(
        "intent_group"
    )
    taste = w.taste * lived.factor("taste") + w.style * lived.factor("style")
    logit = np.concatenate([np.log(p.p_click / (1 - p.p_click)) for p in lived.pages])
    assert 0.15 < intent.var() / logit.var() < 0.45
    assert 0.15 < taste.var() / logit.var() < 0.45


def test_todays_behaviour_reveals_the_intent_and_earlier_behaviour_does_not(lived: Lived) -> None:
    events, city = lived.events, lived.city
    views = events["action"] == VIEW
    user, time_ms = events["user"][views], events["time_ms"][views]
    category = city.places.category[events["place"][views]]
    today_shares, before_shares = [], []
    shown = lived.impressions
    for row in np.flatnonzero(shown["position"] == 0):
        mine = (user == shown["user"][row]) & (time_ms < shown["time_ms"][row])
        today = mine & (time_ms >= city.day_start_ms(int(shown["day"][row])))
        recent = time_ms >= shown["time_ms"][row] - 15 * 60_000
        before = mine & ~today & (time_ms >= shown["time_ms"][row] - 14 * DAY_MS)
        today_shares.append(
            (category[today & recent] == shown["intent"][row]).mean()
            if (today & recent).any()
            else 0
        )
        if before.any():
            before_shares.append((category[before] == shown["intent"][row]).mean())
    assert np.mean(today_shares) > 0.6
    assert np.mean(before_shares) < 0.15


def test_a_new_day_begins_with_a_new_intent(city: City) -> None:
    lives, moment = first_day(city)
    taste = lives.people.taste(0)
    never = np.zeros(len(moment), dtype=np.bool_)
    other = Moment(
        **{
            **{name: getattr(moment, name) for name in moment.__dataclass_fields__},
            "category": (moment.category + 1) % 24,
        }
    )
    fresh, fresh_other = (
        next_intent(city, moment, taste, never, True),
        next_intent(city, other, taste, never, True),
    )
    np.testing.assert_array_equal(fresh.category, fresh_other.category)

    later = moment.at(number=moment.number + 8, time_ms=moment.time_ms)
    kept = next_intent(city, later, taste, never, False)
    assert 0.7 < (kept.category == later.category).mean() < 0.95
    satisfied = next_intent(city, later, taste, ~never, False)
    assert (satisfied.category == later.category).mean() < 0.25


def test_candidates_are_distinct_near_and_open(city: City) -> None:
    lives, moment = first_day(city)
    places = lives.candidates(moment)
    of, slot = np.nonzero(places >= 0)
    place = places[of, slot]
    distance = np.hypot(
        city.places.x_km[place] - moment.x_km[of], city.places.y_km[place] - moment.y_km[of]
    )
    assert distance.max() <= PARAMETERS.recall.radius_km + 1e-5
    assert (city.places.opening_day[place] <= 0).all()
    assert len(np.unique(of * 100_000 + place)) == len(place)
    assert np.median((places >= 0).sum(axis=1)) >= 20


def test_more_draws_recall_more_candidates() -> None:
    """A live request of 100 candidates uses the same recall."""
    lives, moment = first_day(build_city(3000, DAYS, 7))
    counts = [
        np.median((lives.candidates(moment, draws) >= 0).sum(axis=1)) for draws in (20, 56, 200)
    ]
    assert counts[0] < counts[1] < counts[2] and counts[2] >= 90


def test_places_are_shown_only_once_they_are_open(lived: Lived) -> None:
    shown, opening = lived.impressions, lived.city.places.opening_day
    assert (opening[shown["place"]] <= shown["day"]).all()
    assert (opening[shown["place"]] >= 0).any(), (
        "a place that opened during the logged days is shown from then on"
    )
    day = (lived.events["time_ms"] - lived.city.start_ms) // DAY_MS
    assert (opening[lived.events["place"]] <= day).all()


def test_the_best_scores_are_shown_in_order(city: City) -> None:
    lives, moment = first_day(city, 20)
    places = lives.candidates(moment)
    score = logging_policy(city, moment, places)
    page = show(places, score, 10)
    for row in range(len(moment)):
        expected = places[row][np.argsort(-score[row])][:10]
        assert page[row].tolist() == expected.tolist()
    few = np.array([[4, -1, 9, -1]], dtype=np.int32)
    assert show(few, np.array([[0.1, -np.inf, 0.2, -np.inf]]), 10).tolist() == [[9, 4, -1, -1]]


def test_luck_belongs_to_user_moment_and_place_not_to_the_page(city: City) -> None:
    _, moment = first_day(city)
    n = len(moment)
    place, sure = np.arange(n) % len(city.places), np.full(n, 0.5)
    here = react(city, moment, place, np.zeros(n, dtype=np.int64), sure, sure)
    rows = np.arange(0, n, 3)
    there = react(
        city, moment.take(rows), place[rows], np.full(len(rows), 7), sure[rows], sure[rows]
    )
    assert 0.3 < here.click.mean() < 0.7
    np.testing.assert_array_equal(there.click, here.click[rows])
    np.testing.assert_array_equal(there.order, here.order[rows])
    np.testing.assert_array_equal(there.amount_yuan, here.amount_yuan[rows])


def test_time_runs_forward_and_days_do_not_overlap(lived: Lived) -> None:
    city, shown = lived.city, lived.impressions
    hour = (shown["time_ms"] - city.start_ms - shown["day"].astype(np.int64) * DAY_MS) / HOUR_MS
    assert hour.min() > 6 and hour.max() < 24
    clicked, ordered = shown["click"], shown["order"]
    assert (shown["order_ms"][ordered] >= shown["time_ms"][ordered] + 60_000).all()
    # every click of the logged days is an event, after its impression
    clicks = (lived.events["action"] == CLICK) & (lived.events["time_ms"] >= city.start_ms)
    assert clicks.sum() == clicked.sum()
    for name in ("events", "impressions"):
        columns = getattr(lived, name)
        same = np.diff(columns["user"]) == 0
        assert (np.diff(columns["time_ms"])[same] >= 0).all() and (
            np.diff(columns["user"]) >= 0
        ).all()


def test_orders_make_places_familiar_from_the_next_day_on(city: City) -> None:
    lives, moment = first_day(city)
    before = lives.memory.visits.sum()
    page = lives.show(
        moment,
        show(lives.candidates(moment), logging_policy(city, moment, lives.candidates(moment)), 10),
    )
    assert page.reaction.order.any()
    assert lives.memory.visits.sum() == before
    lives.end_day()
    assert lives.memory.visits.sum() == before + page.reaction.order.sum()
