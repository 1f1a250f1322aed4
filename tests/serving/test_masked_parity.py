"""A masked request has the scores that a server gives an unknown user, and so have items."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hemix import api
from hemix.data.dataset import Dataset
from hemix.data.masking import Masking
from hemix.models import build_predictor
from hemix.runs import Run
from hemix.runs.scoring import InputChange, score_split
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Candidate, RankRequest
from tests.batches import make_config
from tests.planted import SMALL_MODEL
from tests.rich import SCHEMA, write_rich
from tests.serving.parity import TOLERANCE, live_events, logged_requests, replayed

# a server counts the rows of a missing age, category, distance or quality in the statistics that
# go; of an unknown user or item, the loader counts none
OWN_SCHEMA = (
    SCHEMA.replace("  of_place: {label: order, by: [user.age, context.city], smoothing: 5}\n", "")
    .replace("  of_kind: {label: click, by: [item.category]}\n", "")
    .replace("  of_far: {label: order, by: [cross.far, cross.reason]}\n", "")
    .replace("by: [user, item.quality]", "by: [user, item]")
    .replace(
        "    far: {type: distance",
        "    near: {type: distance, between: [user.home, item.place], buckets: 4}\n"
        "    far: {type: distance",
    )
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, Run]:
    """Logs, their dataset, and a model of random weights that reads every input."""
    folder = tmp_path_factory.mktemp("masked")
    logs = write_rich(folder / "logs")
    (logs / "schema.yaml").write_text(OWN_SCHEMA)
    api.prepare(logs, folder / "data")
    settings = {**SMALL_MODEL, "train.threads": 1, "train.batch_size": 64}
    trained = Run.load(api.train(folder / "data", folder / "run", settings=settings))
    config = make_config(name="hemix", embedding_init_std=0.5)
    model = build_predictor(trained.spec, config, seed=3).eval()
    return logs, Dataset(folder / "data"), dataclasses.replace(trained, model=model)


def new_user(request: RankRequest) -> RankRequest:
    return dataclasses.replace(request, user=f"new-{request.user}")


def new_items(request: RankRequest) -> RankRequest:
    items = tuple(
        Candidate(f"new-{number}", candidate.fields)
        for number, candidate in enumerate(request.items)
    )
    return dataclasses.replace(request, items=items)


@pytest.mark.parametrize("kind", ["user_features", "history", "user", "item"])
def test_a_masked_request_is_served_alike(world: tuple[Path, Dataset, Run], kind: str) -> None:
    logs, data, run = world
    split = data.split("test")
    scored = list(
        score_split(
            run, split, position="serving", change=InputChange(masking=Masking(**{kind: 1.0}))
        )
    )
    rows = np.concatenate([batch.impression_index for batch in scored])
    expected = {
        name: dict(
            zip(
                split.log_row[rows].tolist(),
                np.concatenate([batch.outputs[name] for batch in scored]).tolist(),
                strict=True,
            )
        )
        for name in run.schema.outputs
    }
    store = open_store("memory://", StoreLimits(ttl_ms=None))
    engine = Engine(run, store, ServeConfig(store_timeout=5))
    events = [] if kind in ("history", "user") else live_events(logs, run.schema)
    if kind == "user_features":
        events = [dataclasses.replace(event, user=f"new-{event.user}") for event in events]
    compared = 0
    for logged in replayed(store, events, logged_requests(logs, data)):
        request = logged.request
        if kind in ("user_features", "user"):
            request = new_user(request)
        if kind == "item":
            request = new_items(request)
        served: dict[str, list[dict[str, float]]] = {}
        for item in engine.rank([request])[0].items:
            served.setdefault(item.id, []).append(item.outputs)
        for candidate, row in zip(request.items, logged.log_rows, strict=True):
            theirs = {name: of_row[row] for name, of_row in expected.items()}
            assert any(
                all(abs(ours[name] - theirs[name]) < TOLERANCE for name in theirs)
                for ours in served[candidate.id]
            ), (kind, row, served[candidate.id], theirs)
            compared += 1
    assert compared == split.impressions > 20
    engine.close()
