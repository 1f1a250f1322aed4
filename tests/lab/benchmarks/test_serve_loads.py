"""The loads of ``hemix bench serve``: who is ranked, with which histories, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import HemixError
from hemix.lab.benchmarks import serve
from hemix.lab.benchmarks.load_generator import LoadPlan
from hemix.runs import Run
from hemix.serving.stores import StoreLimits, open_store
from tests.refusals import raises


@pytest.mark.parametrize(("scale", "short", "long"), [(0.03, 30, 150), (0.001, 20, 20)])
def test_histories_have_the_scaled_length(
    planted_run: Path, tmp_path: Path, scale: float, short: int, long: int
) -> None:
    bed = serve._make_test_bed(tmp_path, planted_run, scale, full_histories=False)
    assert not set(bed.short_users) & set(bed.long_users)
    store = open_store(f"sqlite:///{bed.store}", StoreLimits(ttl_ms=None))
    for users, length in ((bed.short_users, short), (bed.long_users, long)):
        assert {len(store.history(user, limit=10_000).events) for user in users} == {length}
    events = store.history(bed.short_users[0], limit=10_000).events
    assert {event.item for event in events} <= set(bed.items)
    assert {event.action for event in events} <= set(bed.actions)
    assert [event.time_ms for event in events] == sorted(event.time_ms for event in events)
    store.close()


def test_a_soak_begins_with_full_histories(planted_run: Path, tmp_path: Path) -> None:
    """The schema of the planted logs reads 20 events and 5 of today."""
    history = Run.load(planted_run).schema.history
    bed = serve._make_test_bed(tmp_path, planted_run, 1.0, full_histories=True)
    store = open_store(f"sqlite:///{bed.store}", StoreLimits(ttl_ms=None))
    length = history.global_length + history.realtime_length
    for user in (bed.short_users[0], bed.long_users[0]):
        assert len(store.history(user, limit=10_000).events) == length == 25
    store.close()


def test_every_load_has_its_users_and_rates(planted_run: Path, tmp_path: Path) -> None:
    bed = serve._make_test_bed(tmp_path, planted_run, 0.03, full_histories=False)
    loads = serve._loads(bed, 0.03)
    assert list(loads) == [
        "rank 500, 30 events",
        "rank 500, 150 events",
        "rank 500, 30 events, state kept",
        "events 50",
        "mix",
    ]
    fresh, long, kept, events, *_ = (streams[0] for streams in loads.values())
    assert (fresh.users, long.users) == (bed.short_users, bed.long_users)
    assert [each.fresh for each in (fresh, long, kept, events)] == [True, True, False, False]
    assert [each.per_second * each.size for each in (fresh, long, events)] == [5000, 2500, 2000]
    assert [stream.name for stream in loads["mix"]] == ["rank 500", "rank 50", "events 10"]


def test_a_stream_without_any_response_is_an_error(
    planted_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its latency would be that of errors."""
    bed = serve._make_test_bed(tmp_path, planted_run, 0.001, full_histories=False)
    plan = serve._make_plan(bed, serve._loads(bed, 0.001)["mix"], port=1, seconds=3, seed=2)
    assert (plan.warm_up_seconds, plan.seed) == (1, 2)

    def respond(plan: LoadPlan) -> list[dict[str, object]]:
        return [
            {"stream": each.name, "answered_per_second": rate, "errors": {"503": 4}}
            for each, rate in zip(plan.streams, (1, 0, 1), strict=True)
        ]

    monkeypatch.setattr(serve, "_generate_load_in_process", respond)
    with raises(HemixError, "rank 50", "{'503': 4}", code="no_answer"):
        serve._measure("mix", plan, pid=1)
