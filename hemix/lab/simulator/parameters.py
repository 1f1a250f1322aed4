"""Every constant of the simulated city, in one frozen place.

They were chosen once, for realism, before any model code, and are never turned to suit a model; why
each is what it is stands in docs/decisions/0003-the-city.md. A test holds the fingerprint. This
module knows nothing of how they are used.

Units: distances in km, prices in yuan, hours of the local day, weights in log-odds per unit of
their factor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

__all__ = [
    "PARAMETERS",
    "Category",
    "ClickWeights",
    "Geography",
    "OrderWeights",
    "Parameters",
    "People",
    "Places",
    "Recall",
    "Sessions",
]


@dataclass(frozen=True)
class Category:
    """A kind of place: how common it is, what it costs, when people want it."""

    name: str
    group: str
    share: float
    """Of all places; the shares are normalised."""
    price_yuan: float
    """Median price."""
    peaks: tuple[tuple[float, float], ...]
    """(hour, width in hours) of the times when people want it."""
    weekend: float
    """How much more it is wanted at the weekend."""


_LUNCH, _DINNER, _NIGHT, _MORNING, _AFTERNOON, _DAY = (
    (12.0, 1.3),
    (18.7, 1.6),
    (21.5, 1.8),
    (8.3, 1.2),
    (15.5, 1.8),
    (14.0, 4.5),
)

CATEGORIES = (
    Category("noodles", "meals", 9.0, 28, (_LUNCH, _DINNER), 0.9),
    Category("fast_food", "meals", 7.0, 35, (_LUNCH, _DINNER), 0.9),
    Category("hotpot", "meals", 6.0, 110, (_DINNER, _NIGHT), 1.4),
    Category("barbecue", "meals", 5.0, 95, (_DINNER, _NIGHT), 1.3),
    Category("fine_dining", "meals", 3.0, 260, (_DINNER,), 1.5),
    Category("coffee", "drinks", 7.0, 26, (_MORNING, _AFTERNOON), 0.9),
    Category("milk_tea", "drinks", 7.0, 18, (_LUNCH, _AFTERNOON), 1.1),
    Category("bakery", "drinks", 4.0, 30, (_MORNING, _AFTERNOON), 1.0),
    Category("bar", "drinks", 3.0, 130, (_NIGHT,), 1.4),
    Category("cinema", "leisure", 2.5, 55, (_DINNER, _NIGHT), 1.6),
    Category("karaoke", "leisure", 2.5, 90, (_NIGHT,), 1.6),
    Category("arcade", "leisure", 2.5, 70, (_AFTERNOON, _NIGHT), 1.6),
    Category("escape_room", "leisure", 2.0, 140, (_AFTERNOON, _NIGHT), 1.8),
    Category("hair", "care", 4.5, 80, (_DAY,), 1.3),
    Category("massage", "care", 4.0, 150, (_AFTERNOON, _NIGHT), 1.1),
    Category("nails", "care", 3.0, 130, (_DAY,), 1.3),
    Category("gym", "care", 2.5, 60, (_MORNING, _DINNER), 0.8),
    Category("grocery", "shops", 6.0, 45, (_MORNING, _DINNER), 1.1),
    Category("fruit", "shops", 4.5, 32, (_DAY, _DINNER), 1.0),
    Category("pharmacy", "shops", 3.5, 48, (_DAY,), 0.9),
    Category("flowers", "shops", 2.0, 95, (_DAY,), 1.2),
    Category("park", "outings", 2.0, 40, (_DAY,), 2.0),
    Category("museum", "outings", 1.5, 50, (_DAY,), 2.0),
    Category("hotel", "outings", 3.0, 320, (_AFTERNOON, _NIGHT), 1.5),
)


@dataclass(frozen=True, kw_only=True)
class Geography:
    """A round city with a few centres; the first is the largest."""

    latitude: float = 30.27
    longitude: float = 120.15
    centres: int = 7
    centre_spread_km: float = 5.0
    centre_zipf: float = 0.8
    half_width_km: float = 14.0
    """Everything lies in a square of twice this width."""
    cell_km: float = 0.7
    """Neighbourhoods are looked up by square cells of this width."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """What places are like."""

    minimum: int = 1200
    per_root_user: float = 55.0
    """Their number is this times the square root of the number of users, at least ``minimum``."""
    spread_km: float = 1.5
    outside_share: float = 0.15
    """Places anywhere, rather than around a centre."""
    styles: int = 8
    """Dimensions of the hidden style that tastes respond to."""
    tags: int = 24
    tag_noise: float = 0.8
    price_spread: float = 0.45
    """Standard deviation of the log price within a category."""
    quality_of_price: float = 0.3
    quality_spread: float = 1.0
    rating_noise: float = 0.35
    fame_of_quality: float = 0.4
    fame_of_chain: float = 0.4
    reviews_median: float = 60.0
    reviews_of_fame: float = 1.1
    reviews_noise: float = 0.4
    chains: int = 40
    chain_share: float = 0.3
    chain_zipf: float = 0.9
    chain_style: float = 0.7
    """How much of a branch's style (and price) is its chain's."""
    opening_share: float = 0.05
    """Places that open during the logged days."""


@dataclass(frozen=True, kw_only=True)
class People:
    """What users are like."""

    home_spread_km: float = 2.5
    work_spread_km: float = 1.2
    sessions_per_day: float = 0.75
    """Mean over users."""
    activity_spread: float = 1.0
    """Standard deviation of the log of a user's sessions a day: the heavy tail."""
    ages: tuple[tuple[str, float], ...] = (
        ("18-24", 0.22),
        ("25-34", 0.36),
        ("35-44", 0.22),
        ("45-54", 0.13),
        ("55+", 0.07),
    )
    taste_of_age: float = 0.35
    """Spread of what an age and gender group as a whole likes."""
    taste_of_group: float = 0.55
    taste_of_category: float = 0.75
    taste_memory: float = 0.93
    """Of a week's deviation in taste, what remains a week later: the slow drift."""
    price_spread: float = 0.9
    """Preferred price tier, in standard deviations of a category's log price."""
    price_band_noise: float = 0.6
    """Noise of the observed price band."""
    favourites: int = 8
    favourite_visits: int = 3
    """At most so many earlier visits to a favourite."""
    rhythm: tuple[tuple[float, float, float], ...] = (
        (8.3, 0.9, 0.7),
        (12.0, 0.9, 1.2),
        (15.5, 1.4, 0.8),
        (18.6, 1.2, 1.4),
        (21.3, 1.1, 1.0),
    )
    """(hour, width, weight) of the times when people open the app."""
    rhythm_spread: float = 0.8
    """How much users differ in those weights (standard deviation of the log)."""
    weekend_spread: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """How a day and a session go."""

    past_days: int = 90
    """Days of events before the first logged impression."""
    weekend: float = 1.2
    maximum_a_day: int = 6
    gap_minutes: float = 40.0
    """Least time between the starts of two sessions."""
    first_hour: float = 6.5
    last_hour: float = 23.3
    at_work: float = 0.75
    """On weekdays between 9 and 18."""
    elsewhere: float = 0.15
    elsewhere_spread_km: float = 1.0
    jitter_km: float = 0.25
    weather: tuple[tuple[str, float], ...] = (("clear", 0.5), ("cloudy", 0.28), ("rain", 0.22))
    intent_of_taste: float = 0.55
    """Weight of the long-term taste in what is wanted now; the rest is the hour and chance."""
    intent_persists: float = 0.8
    """From one session to the next of the same day, unless it was satisfied by an order."""
    mood_spread: float = 0.6
    """Today's wish for dearer or cheaper, in price tiers."""
    views_mean: float = 3.2
    """Beyond the first view of a session."""
    views_maximum: int = 7
    view_choices: int = 4
    """A view is the most appealing of so many places."""
    view_of_intent: float = 0.78
    view_of_favourite: float = 0.12
    view_seconds: tuple[float, float] = (15.0, 75.0)
    request_seconds: tuple[float, float] = (90.0, 240.0)
    """From one ranking to the next."""
    requests_maximum: int = 3
    continues: float = 0.28
    continues_after_click: float = 0.15
    """Added when something was clicked."""
    click_seconds: tuple[float, float] = (3.0, 55.0)
    order_minutes_median: float = 18.0
    order_minutes_spread: float = 1.1
    order_minutes_maximum: float = 1440.0
    extra_units: float = 0.5
    """Mean number of units beyond the first in an order."""
    favourite_of_click: float = 0.03
    favourite_of_order: float = 0.15


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Which places come into question, and the policy that showed them in the logs."""

    radius_km: float = 5.0
    nearest: int = 320
    nearest_of_category: int = 28
    nearest_popular: int = 60
    """The most famous of the nearest."""
    draws: int = 56
    of_intent: float = 0.28
    of_taste: float = 0.22
    of_popular: float = 0.22
    of_favourites: float = 0.07
    """The rest is anything near."""
    page: int = 10
    policy_fame: float = 0.5
    policy_rating: float = 0.4
    policy_distance: float = 0.7
    policy_noise: float = 0.8


@dataclass(frozen=True, kw_only=True)
class ClickWeights:
    """Log-odds of a click."""

    bias: float = -2.6
    taste: float = 0.45
    style: float = 0.42
    intent_category: float = 1.25
    intent_group: float = 0.45
    distance: float = -0.55
    """Per log(1 + km)."""
    distance_rain: float = -0.35
    """Added to it when it rains."""
    price: float = -0.13
    """Per squared tier away from the wanted price."""
    quality: float = 2.0
    fame: float = 0.25
    familiarity: float = 0.4
    chain_familiarity: float = 0.15
    hour: float = 0.3
    position: float = -0.42
    """Per log(1 + position), the first position being 0."""


@dataclass(frozen=True, kw_only=True)
class OrderWeights:
    """Log-odds of an order, given a click; position plays no part."""

    bias: float = -2.9
    taste: float = 0.15
    style: float = 0.2
    intent_category: float = 0.9
    intent_group: float = 0.2
    distance: float = -0.45
    distance_rain: float = -0.3
    price: float = -0.2
    quality: float = 1.8
    fame: float = 0.0
    familiarity: float = 0.45
    chain_familiarity: float = 0.1
    hour: float = 0.45


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The whole city."""

    start_date: str = "2026-01-05"
    """Local date of day 0, a Monday."""
    timezone: str = "Asia/Shanghai"
    categories: tuple[Category, ...] = CATEGORIES
    geography: Geography = Geography()
    places: Places = Places()
    people: People = People()
    sessions: Sessions = Sessions()
    recall: Recall = Recall()
    click: ClickWeights = ClickWeights()
    order: OrderWeights = OrderWeights()

    def fingerprint(self) -> str:
        """SHA-256 of all constants as sorted JSON."""
        return hashlib.sha256(
            json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
        ).hexdigest()


PARAMETERS = Parameters()
