"""How simulated users behave, and what the logs show of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hemix.lab.simulator.behaviour import draw_intents, draw_reactions
from hemix.lab.simulator.city import DAY_MS, HOUR_MS, City, build_city
from hemix.lab.simulator.generate import ACTIONS, generate_logs
from hemix.lab.simulator.parameters import PARAMETERS
from hemix.lab.simulator.ranking import logging_policy_scores, top_page
from hemix.lab.simulator.simulation import UserSimulation
from hemix.lab.simulator.state import Requests
from tests.lab.simulator.conftest import DAYS, USERS, GeneratedLogs

VIEW, CLICK = ACTIONS.index("view"), ACTIONS.index("click")


def begin_first_day(city: City, users: int = USERS) -> tuple[UserSimulation, Requests]:
    """A new simulation with the first requests of day 0."""
    simulation = UserSimulation(city, city.users(np.arange(users)))
    simulation.begin_day(0)
    return simulation, simulation.begin_session(0)[0]


def test_a_user_s_logs_do_not_depend_on_other_users(generated: GeneratedLogs) -> None:
    users = np.array([3, 17, 120])
    events, impressions = generate_logs(generated.city, generated.city.users(users))
    for few, all_users in ((events, generated.events), (impressions, generated.impressions)):
        rows = np.isin(all_users["user"], users)
        assert rows.sum() > 0
        for name, column in few.items():
            np.testing.assert_array_equal(column, all_users[name][rows], err_msg=name)


def test_marginal_rates_are_realistic(generated: GeneratedLogs) -> None:
    impressions = generated.impressions
    clicks, orders = impressions["click"].sum(), impressions["order"].sum()
    assert 0.06 < clicks / len(impressions["click"]) < 0.10
    assert 0.06 < orders / clicks < 0.15
    assert 7 < len(impressions["click"]) / USERS / DAYS < 15
    is_past = generated.events["time_ms"] < generated.city.start_ms
    past_events = np.bincount(generated.events["user"][is_past], minlength=USERS)
    assert 130 < np.median(past_events) < 400
    assert 1000 < past_events.max() < 6000
    assert past_events.min() < 60


def test_clicks_and_orders_follow_their_probabilities(generated: GeneratedLogs) -> None:
    impressions = generated.impressions
    p, click = impressions["p_click"], impressions["click"]
    assert abs(click.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    q = impressions["p_order_given_click"][click]
    assert abs(impressions["order"][click].sum() - q.sum()) < 4 * np.sqrt((q * (1 - q)).sum())
    assert not impressions["order"][~click].any()


def test_intent_and_taste_each_explain_a_large_fraction_of_the_log_odds(
    generated: GeneratedLogs,
) -> None:
    w = PARAMETERS.click
    intent = w.intent_category * generated.factor(
        "intent_category"
    ) + w.intent_group * generated.factor("intent_group")
    taste = w.taste * generated.factor("taste") + w.style * generated.factor("style")
    logit = np.concatenate(
        [np.log(pages.p_click / (1 - pages.p_click)) for pages in generated.pages]
    )
    assert 0.15 < intent.var() / logit.var() < 0.45
    assert 0.15 < taste.var() / logit.var() < 0.45


def test_views_of_today_reveal_the_intent_and_earlier_views_do_not(
    generated: GeneratedLogs,
) -> None:
    events, city = generated.events, generated.city
    is_view = events["action"] == VIEW
    user, time_ms = events["user"][is_view], events["time_ms"][is_view]
    category = city.venues.category[events["venue"][is_view]]
    today_fractions, earlier_fractions = [], []
    impressions = generated.impressions
    for row in np.flatnonzero(impressions["position"] == 0):
        request_ms, intent = impressions["time_ms"][row], impressions["intent"][row]
        day_start_ms = city.day_start_ms(int(impressions["day"][row]))
        before_request = (user == impressions["user"][row]) & (time_ms < request_ms)
        today = before_request & (time_ms >= day_start_ms)
        recent = today & (time_ms >= request_ms - 15 * 60_000)
        earlier = before_request & ~today & (time_ms >= request_ms - 14 * DAY_MS)
        today_fractions.append((category[recent] == intent).mean() if recent.any() else 0)
        if earlier.any():
            earlier_fractions.append((category[earlier] == intent).mean())
    assert np.mean(today_fractions) > 0.6
    assert np.mean(earlier_fractions) < 0.15


def test_the_first_session_of_a_day_has_a_new_intent(city: City) -> None:
    simulation, requests = begin_first_day(city)
    taste = simulation.users.taste(0)
    unsatisfied = np.zeros(len(requests), dtype=np.bool_)
    other = replace(requests, intent=(requests.intent + 1) % 24)
    intents, other_intents = (
        draw_intents(city, previous, taste, unsatisfied, first_of_day=True).intent
        for previous in (requests, other)
    )
    np.testing.assert_array_equal(intents, other_intents)


def test_an_intent_lasts_until_an_order_satisfies_it(city: City) -> None:
    simulation, requests = begin_first_day(city)
    taste = simulation.users.taste(0)
    unsatisfied = np.zeros(len(requests), dtype=np.bool_)
    later = replace(requests, number=requests.number + 8)
    lasting = draw_intents(city, later, taste, unsatisfied, first_of_day=False)
    assert 0.7 < (lasting.intent == later.intent).mean() < 0.95
    satisfied = draw_intents(city, later, taste, ~unsatisfied, first_of_day=False)
    assert (satisfied.intent == later.intent).mean() < 0.25


def test_candidates_are_distinct_near_and_open(city: City) -> None:
    simulation, requests = begin_first_day(city)
    candidates = simulation.candidates(requests)
    request_row, slot = np.nonzero(candidates >= 0)
    venue = candidates[request_row, slot]
    distance = np.hypot(
        city.venues.x_km[venue] - requests.x_km[request_row],
        city.venues.y_km[venue] - requests.y_km[request_row],
    )
    assert distance.max() <= PARAMETERS.recall.radius_km + 1e-5
    assert (city.venues.opening_day[venue] <= 0).all()
    assert len(np.unique(request_row * 100_000 + venue)) == len(venue)
    assert np.median((candidates >= 0).sum(axis=1)) >= 20


def test_more_draws_recall_more_candidates() -> None:
    simulation, requests = begin_first_day(build_city(3000, DAYS, 7))
    counts = [
        np.median((simulation.candidates(requests, draw_count) >= 0).sum(axis=1))
        for draw_count in (20, 56, 200)
    ]
    assert counts[0] < counts[1] < counts[2] and counts[2] >= 90


def test_venues_are_shown_from_their_opening_day_on(generated: GeneratedLogs) -> None:
    impressions, opening_day = generated.impressions, generated.city.venues.opening_day
    assert (opening_day[impressions["venue"]] <= impressions["day"]).all()
    assert (opening_day[impressions["venue"]] >= 0).any(), "some venues open on logged days"
    day = (generated.events["time_ms"] - generated.city.start_ms) // DAY_MS
    assert (opening_day[generated.events["venue"]] <= day).all()


def test_a_page_shows_the_best_scores_in_order(city: City) -> None:
    simulation, requests = begin_first_day(city, 20)
    candidates = simulation.candidates(requests)
    scores = logging_policy_scores(city, requests, candidates)
    pages = top_page(candidates, scores, 10)
    for row in range(len(requests)):
        expected = candidates[row][np.argsort(-scores[row])][:10]
        assert pages[row].tolist() == expected.tolist()


def test_a_page_of_few_candidates_is_padded() -> None:
    candidates = np.array([[4, -1, 9, -1]], dtype=np.int32)
    scores = np.array([[0.1, -np.inf, 0.2, -np.inf]])
    assert top_page(candidates, scores, 10).tolist() == [[9, 4, -1, -1]]


def test_random_reactions_depend_on_user_request_and_venue_but_not_on_the_page(
    city: City,
) -> None:
    _, requests = begin_first_day(city)
    n = len(requests)
    venue, p = np.arange(n) % len(city.venues), np.full(n, 0.5)
    reactions = draw_reactions(city, requests, venue, np.zeros(n, dtype=np.int64), p, p)
    rows = np.arange(0, n, 3)
    lower = draw_reactions(
        city, requests.select(rows), venue[rows], np.full(len(rows), 7), p[rows], p[rows]
    )
    assert 0.3 < reactions.click.mean() < 0.7
    np.testing.assert_array_equal(lower.click, reactions.click[rows])
    np.testing.assert_array_equal(lower.order, reactions.order[rows])
    np.testing.assert_array_equal(lower.amount_yuan, reactions.amount_yuan[rows])


def test_times_ascend_and_days_do_not_overlap(generated: GeneratedLogs) -> None:
    city, impressions = generated.city, generated.impressions
    since_midnight_ms = (
        impressions["time_ms"] - city.start_ms - impressions["day"].astype(np.int64) * DAY_MS
    )
    hour = since_midnight_ms / HOUR_MS
    assert hour.min() > 6 and hour.max() < 24
    clicked, ordered = impressions["click"], impressions["order"]
    order_delay_ms = impressions["order_ms"][ordered] - impressions["time_ms"][ordered]
    assert (order_delay_ms >= 60_000).all()
    # every click of the logged days is an event, after its impression
    click_events = (generated.events["action"] == CLICK) & (
        generated.events["time_ms"] >= city.start_ms
    )
    assert click_events.sum() == clicked.sum()
    for columns in (generated.events, generated.impressions):
        same_user = np.diff(columns["user"]) == 0
        assert (np.diff(columns["time_ms"])[same_user] >= 0).all()
        assert (np.diff(columns["user"]) >= 0).all()


def test_orders_count_as_visits_from_the_next_day_on(city: City) -> None:
    simulation, requests = begin_first_day(city)
    before = simulation.visits.by_venue.sum()
    candidates = simulation.candidates(requests)
    scores = logging_policy_scores(city, requests, candidates)
    pages = simulation.show(requests, top_page(candidates, scores, 10))
    assert pages.reactions.order.any()
    assert simulation.visits.by_venue.sum() == before
    simulation.end_day()
    assert simulation.visits.by_venue.sum() == before + pages.reactions.order.sum()
