"""Match counts of live requests: values that the run never saw, features said by events, and states
that go on; that they are training's numbers is test_parity.py's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hemix.data.versions import NO_ITEM_ROW
from hemix.runs import Run
from hemix.serving.encoded import RequestSide, UserSide
from hemix.serving.field_validation import FieldValidator
from hemix.serving.request_encoder import RequestEncoder
from hemix.serving.types import Candidate, Event, HistoryOverride, LiveFeatures, RankRequest
from tests.planted import DAY_MS, START_MS

NOW_MS = START_MS + 3 * DAY_MS + 12 * 3_600_000
ITEM_FEATURES = {
    name: LiveFeatures(revision=1, values={"category": category}, since_ms=START_MS)
    for name, category in (("new1", "fresh"), ("new2", "fresh"), ("new3", None))
}


@pytest.fixture(scope="module")
def encoder(rich_run: Path) -> RequestEncoder:
    run = Run.load(rich_run)
    return RequestEncoder(
        run.encoders(),
        run.statistics(),
        run.entities("user"),
        run.entities("item"),
        FieldValidator(run.schema),
    )


def event(item: str, minutes_ago: int, action: str = "a0") -> Event:
    return Event(
        id=f"{item}-{minutes_ago}",
        kind="interaction",
        time_ms=NOW_MS - minutes_ago * 60_000,
        user="nobody",
        item=item,
        action=action,
    )


def user_side(encoder: RequestEncoder, events: list[Event]) -> UserSide:
    return encoder.user_side("nobody", -1, {}, events, ITEM_FEATURES)


def request(*items: Candidate, history: HistoryOverride | None = None) -> RankRequest:
    return RankRequest(id="q", user="nobody", time_ms=NOW_MS, items=items, history=history)


def number(encoder: RequestEncoder, side: RequestSide, item: int, name: str) -> float:
    names = encoder._encoders.spec().cross.number_names
    return float(side.cross.numbers[item, names.index(name)])


def count(encoder: RequestEncoder, side: RequestSide, item: int, name: str) -> float:
    return float(np.expm1(number(encoder, side, item, name)).round())


def test_values_that_the_run_never_saw_match(encoder: RequestEncoder) -> None:
    user = user_side(encoder, [event("new1", 300), event("new3", 200), event("i1", 10)])
    candidates = [Candidate(name) for name in ("new2", "new3", "i1")]
    candidates.append(Candidate("else", {"category": "fresh"}))
    side = encoder.request_side(request(*candidates), user, ITEM_FEATURES)
    own, kind = "match_counts.item_id.a0.all", "match_counts.category.a0.all"
    assert [count(encoder, side, n, own) for n in range(4)] == [0, 1, 1, 0]
    kinds = [count(encoder, side, n, kind) for n in range(4)]
    assert kinds[0] == kinds[3] == 1 and kinds[1] == 0
    age = number(encoder, side, 0, "match_age.category")
    assert age == pytest.approx(np.log1p(5) / np.log1p(10 * 8760), rel=1e-6), "5 hours"


def test_a_request_s_own_history_is_counted(encoder: RequestEncoder) -> None:
    events = [event("new1", 30), event("new1", 20), event("new1", 10)]
    own = HistoryOverride(global_=tuple(events[:2]), realtime=tuple(events[2:]))
    side = encoder.request_side(
        request(Candidate("new1"), history=own), user_side(encoder, events), ITEM_FEATURES
    )
    names = [f"match_counts.item_id.a0.{w}" for w in ("15min", "1h", "realtime", "all")]
    assert [count(encoder, side, 0, name) for name in names] == [1, 3, 1, 3]


def test_a_state_that_goes_on_counts_as_one_made_anew(encoder: RequestEncoder) -> None:
    """Some events are late, and old ones make room."""
    events = [event(f"i{n % 5}", 900 - 7 * n, f"a{n % 3}") for n in range(40)]
    new = [event("new1", 650), event("i2", 5), event("new2", 3, "never seen")]
    every = sorted(events + new, key=lambda e: e.time_ms)
    candidates = [Candidate(name) for name in ("i1", "i2", "new2", "new3")]
    for most in (43, 20):
        anew = user_side(encoder, every[-most:])
        extended, _ = encoder.extended(
            user_side(encoder, events).without_items(), user_side(encoder, new), most
        )
        sides = [
            encoder.request_side(request(*candidates), user, ITEM_FEATURES)
            for user in (anew, extended)
        ]
        assert (sides[0].cross.numbers == sides[1].cross.numbers).all()
        assert (sides[0].context.numbers == sides[1].context.numbers).all()
        assert sides[0].cross.numbers.any()
        assert anew.matches is not None and extended.matches is not None
        anew_keys, extended_keys = anew.matches.event_keys(), extended.matches.event_keys()
        assert (anew_keys.values == extended_keys.values).all()


def test_an_event_without_an_item_is_as_training_has_it(
    encoder: RequestEncoder, rich_run: Path
) -> None:
    """The unknown item's row, beside events that have an item."""
    search = dataclasses.replace(event("", 20, "a1"), item=None)
    side = user_side(encoder, [event("i1", 30), search, event("new1", 10)])
    items, row = Run.load(rich_run).entities("item"), NO_ITEM_ROW
    at = side.item_index[1]
    assert (side.items.ids[at] == items.features.ids[row]).all()
    assert (side.items.numbers[at] == items.features.numbers[row]).all()
    assert side.actions.to_pylist()[1] == "a1" and side.matches is not None
    assert not side.matches.event_keys().values[1].any()
    ranked = encoder.request_side(request(Candidate("i1")), side, ITEM_FEATURES)
    assert count(encoder, ranked, 0, "match_counts.item_id.a0.all") == 1
    assert count(encoder, ranked, 0, "match_counts.item_id.a1.all") == 0
