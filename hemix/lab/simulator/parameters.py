"""All constants of the simulated city.

They were chosen before any model code and are never tuned for a model. The reasons stand in
docs/project/decisions/0003-the-city.md; a test pins their fingerprint. Units: distances in km,
prices in yuan, hours of the local day, weights in log-odds per unit of their factor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "PARAMETERS",
    "Category",
    "CityParameters",
    "ClickWeights",
    "GeographyParameters",
    "OrderWeights",
    "RecallParameters",
    "SessionParameters",
    "UserParameters",
    "VenueParameters",
]


@dataclass(frozen=True)
class Category:
    """A category of venues: its frequency, its prices and when users want it."""

    name: str
    group: str
    fraction: float
    """Relative frequency among venues; the values of all categories are normalised."""
    price_yuan: float
    """Median price."""
    peaks: tuple[tuple[float, float], ...]
    """(hour, width in hours) of the demand's peaks."""
    weekend: float
    """Factor of the demand on Saturdays and Sundays."""


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
class GeographyParameters:
    """The map: a square with several centres, of which the first is the largest."""

    latitude: float = 30.27
    """Latitude of the city's middle, in degrees."""
    longitude: float = 120.15
    centres: int = 7
    centre_spread_km: float = 5.0
    """Standard deviation of a centre's coordinates."""
    centre_zipf: float = 0.8
    """Exponent of the centres' weights by rank."""
    half_width_km: float = 14.0
    """All coordinates lie in a square of twice this width."""
    cell_km: float = 0.7
    """Width of the spatial index's square grid cells."""


@dataclass(frozen=True, kw_only=True)
class VenueParameters:
    """The venues."""

    minimum: int = 1200
    per_root_user: float = 55.0
    """The number of venues is this times the square root of the number of users, at least
    ``minimum``.
    """
    spread_km: float = 1.5
    """Standard deviation of a venue's coordinates around its centre."""
    outside_fraction: float = 0.15
    """Fraction of venues that lie anywhere on the map instead of around a centre."""
    styles: int = 8
    """Dimensions of the hidden style vectors of venues and users."""
    tags: int = 24
    tag_noise: float = 0.8
    price_spread: float = 0.45
    """Standard deviation of the log price within a category."""
    quality_of_price: float = 0.3
    """Effect of the price tier on the quality's log-odds."""
    quality_spread: float = 1.0
    """Standard deviation of the quality's log-odds at one price tier."""
    rating_noise: float = 0.35
    fame_of_quality: float = 0.4
    """Effect of the quality's log-odds on the fame."""
    fame_of_chain: float = 0.4
    """Added to the fame of a chain's branches."""
    reviews_median: float = 60.0
    reviews_of_fame: float = 1.1
    """Effect of the fame on the log number of reviews."""
    reviews_noise: float = 0.4
    chains: int = 40
    chain_fraction: float = 0.3
    """Fraction of venues that belong to a chain."""
    chain_zipf: float = 0.9
    """Exponent of the chains' weights by rank."""
    chain_style: float = 0.7
    """Weight of the chain's style in the style of a branch."""
    opening_fraction: float = 0.05
    """Fraction of venues that open during the logged days."""


@dataclass(frozen=True, kw_only=True)
class UserParameters:
    """The users."""

    home_spread_km: float = 2.5
    """Standard deviation of a home's coordinates around its centre."""
    work_spread_km: float = 1.2
    sessions_per_day: float = 0.75
    """Mean over users."""
    activity_spread: float = 1.0
    """Standard deviation of the log of a user's sessions per day; makes the tail heavy."""
    ages: tuple[tuple[str, float], ...] = (
        ("18-24", 0.22),
        ("25-34", 0.36),
        ("35-44", 0.22),
        ("45-54", 0.13),
        ("55+", 0.07),
    )
    """(age band, fraction of users)."""
    taste_of_age: float = 0.35
    """Standard deviation of the mean taste of an age band, and of a gender."""
    taste_of_group: float = 0.55
    """Standard deviation of a user's own taste for a group of categories."""
    taste_of_category: float = 0.75
    """Standard deviation of a user's own taste for a category within its group."""
    taste_memory: float = 0.93
    """Correlation of a user's own taste with that of a week later: it drifts slowly."""
    price_spread: float = 0.9
    """Standard deviation of the preferred price tier, in the units of ``Venues.price_tier``."""
    price_band_noise: float = 0.6
    """Noise of the observed price band."""
    favourites: int = 8
    favourite_visits: int = 3
    """Maximum number of visits to a favourite before the first simulated day."""
    rhythm: tuple[tuple[float, float, float], ...] = (
        (8.3, 0.9, 0.7),
        (12.0, 0.9, 1.2),
        (15.5, 1.4, 0.8),
        (18.6, 1.2, 1.4),
        (21.3, 1.1, 1.0),
    )
    """(hour, width in hours, weight) of the times of day when users open the app."""
    rhythm_spread: float = 0.8
    """Standard deviation over users of the log of those weights."""
    weekend_spread: float = 0.4
    """Standard deviation over users of the log of the weekend's activity factor."""


@dataclass(frozen=True, kw_only=True)
class SessionParameters:
    """Days and sessions."""

    past_days: int = 90
    """Days of events before the first logged impression."""
    weekend: float = 1.2
    """Median factor of the activity at the weekend."""
    maximum_a_day: int = 6
    gap_minutes: float = 40.0
    """Minimum time between the starts of two sessions."""
    first_hour: float = 6.5
    last_hour: float = 23.3
    at_work: float = 0.75
    """Probability of being at work during a session on a weekday between 9 and 18 h."""
    elsewhere: float = 0.15
    """Probability of being near a random centre."""
    elsewhere_spread_km: float = 1.0
    jitter_km: float = 0.25
    """Standard deviation of the coordinates around home and work."""
    weather: tuple[tuple[str, float], ...] = (("clear", 0.5), ("cloudy", 0.28), ("rain", 0.22))
    """(weather, probability)."""
    intent_of_taste: float = 0.55
    """Weight of the long-term taste in the intent; the hour and chance decide the rest."""
    intent_persists: float = 0.8
    """Probability that the intent stays until the day's next session, if no order met it."""
    mood_spread: float = 0.6
    """Standard deviation of an intent's shift of the preferred price tier."""
    views_mean: float = 3.2
    """Mean number of views after the first one of a session."""
    views_maximum: int = 7
    view_choices: int = 4
    """A viewed venue is the most appealing one of this many."""
    view_of_intent: float = 0.78
    """Probability that a view's venues are of the intended category."""
    view_of_favourite: float = 0.12
    """Probability that they are favourites; otherwise they are any venues nearby."""
    view_seconds: tuple[float, float] = (15.0, 75.0)
    request_seconds: tuple[float, float] = (90.0, 240.0)
    """Time from one request to the next."""
    requests_maximum: int = 3
    continues: float = 0.28
    """Probability of another request after a page without a click."""
    continues_after_click: float = 0.15
    """Added to it after a click."""
    click_seconds: tuple[float, float] = (3.0, 55.0)
    order_minutes_median: float = 18.0
    order_minutes_spread: float = 1.1
    """Standard deviation of the log of the time from click to order."""
    order_minutes_maximum: float = 1440.0
    extra_units: float = 0.5
    """Mean number of units after the first one in an order."""
    favourite_of_click: float = 0.03
    """Probability that a user marks a clicked venue as a favourite."""
    favourite_of_order: float = 0.15
    """The same for an ordered venue."""


@dataclass(frozen=True, kw_only=True)
class RecallParameters:
    """The recall stage, and the policy that ranked the logged pages."""

    radius_km: float = 5.0
    nearest: int = 320
    """Length of a grid cell's list of nearest venues."""
    nearest_of_category: int = 28
    """Length of a grid cell's list of nearest venues by category."""
    nearest_popular: int = 60
    """Length of a grid cell's list of the most famous among the nearest venues."""
    draws: int = 56
    """Candidates drawn per request, before duplicates are removed."""
    of_intent: float = 0.28
    """Fraction of the draws from the intended category."""
    of_taste: float = 0.22
    """Fraction of the draws by long-term taste."""
    of_popular: float = 0.22
    of_favourites: float = 0.07
    """The other draws are from all nearby venues."""
    page: int = 10
    """Venues shown per request."""
    policy_fame: float = 0.5
    policy_rating: float = 0.4
    policy_distance: float = 0.7
    policy_noise: float = 0.8


@dataclass(frozen=True, kw_only=True)
class ClickWeights:
    """Weigh the factors of a click's log-odds."""

    bias: float = -2.6
    taste: float = 0.45
    style: float = 0.42
    intent_category: float = 1.25
    intent_group: float = 0.45
    distance: float = -0.55
    """Per log(1 + km)."""
    distance_rain: float = -0.35
    """Added to ``distance`` on rainy days."""
    price: float = -0.13
    """Per squared tier between the venue's price and the wanted price."""
    quality: float = 2.0
    fame: float = 0.25
    familiarity: float = 0.4
    """Per log(1 + visits)."""
    chain_familiarity: float = 0.15
    """Per log(1 + visits to the chain)."""
    hour: float = 0.3
    position: float = -0.42
    """Per log(1 + position); the first position is 0."""


@dataclass(frozen=True, kw_only=True)
class OrderWeights:
    """Weigh the factors of an order's log-odds, given a click; the position has no effect."""

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


_FINGERPRINT_KEYS = {
    "chain_fraction": "chain_share",
    "fraction": "share",
    "opening_fraction": "opening_share",
    "outside_fraction": "outside_share",
    "users": "people",
    "venues": "places",
}
"""Keys of the fingerprint's JSON where they differ from a field's name; saved logs name it."""


@dataclass(frozen=True, kw_only=True)
class CityParameters:
    """All constants of a city."""

    start_date: str = "2026-01-05"
    """Local date of day 0, a Monday."""
    timezone: str = "Asia/Shanghai"
    categories: tuple[Category, ...] = CATEGORIES
    geography: GeographyParameters = GeographyParameters()
    venues: VenueParameters = VenueParameters()
    users: UserParameters = UserParameters()
    sessions: SessionParameters = SessionParameters()
    recall: RecallParameters = RecallParameters()
    click: ClickWeights = ClickWeights()
    order: OrderWeights = OrderWeights()

    def fingerprint(self) -> str:
        """Return the SHA-256 of all constants as sorted JSON."""
        constants = dataclasses.asdict(self, dict_factory=_fingerprint_object)
        return hashlib.sha256(json.dumps(constants, sort_keys=True).encode()).hexdigest()


def _fingerprint_object(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {_FINGERPRINT_KEYS.get(name, name): value for name, value in fields}


PARAMETERS = CityParameters()
