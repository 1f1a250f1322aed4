"""A server whose engine is made up, so that what is HTTP's can be tested without a model: ``python
-m tests.serving.http.fake PORT``.

Scores are the item's number; ``context.sleep`` (seconds) makes a ranking slow and ``context.fail``
makes it fail.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hemix.errors import StoreError
from hemix.schema import Schema
from hemix.serving.http.admission import Access
from hemix.serving.http.app import make_app
from hemix.serving.http.service import RequestLimits, Service
from hemix.serving.http.uvicorn_server import bind, serve
from hemix.serving.json_logging import configure_logging
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.stores import Store, open_store
from hemix.serving.types import Attribution, RankedItem, Ranking, RankRequest

SCHEMA = """
name: fake
features:
  user: {user_id: {type: categorical}, likes: {type: categorical, multi: true},
    home: {type: coordinates, latitude: lat, longitude: lon}}
  context: {hour: {type: clock, part: hour}, sleep: {type: numeric}, fail: {type: categorical}}
  item: {item_id: {type: categorical}, price: {type: numeric}, picture: {type: vector, size: 2}}
  cross: {match: {type: numeric}}
history: {fields: {tab: {type: categorical}}, global_length: 20, realtime_length: 5}
labels: {click: {}}
split: {valid: 2026-01-07, test: 2026-01-08}
"""


class FakeEngine:
    """Ranks by the number in an item's id; knows items i0 to i999 and users u0 to u99."""

    schema = Schema.parse(SCHEMA)

    def __init__(self, folder: Path, name: str, version: str, store: Store) -> None:
        if (folder / "broken").exists():
            raise ValueError("these weights are broken")
        self.name, self.version, self._store = name, version, store
        self._slow = (folder / "slow").exists()

    def warm_up(self) -> None:
        if self._slow:
            time.sleep(1.0)

    def close(self) -> None:
        pass

    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        rankings = [self._rank(request) for request in requests]
        for ranking in rankings if check is not None else ():
            check(ranking)
        return rankings

    def _rank(self, request: RankRequest) -> Ranking:
        time.sleep(float(request.context.get("sleep") or 0))
        if request.context.get("fail"):
            raise RuntimeError("a defect")
        degraded: tuple[str, ...] = ()
        revision, events = 0, ()
        try:
            history = self._store.history(request.user, limit=5)
            revision, events = (
                history.revision,
                tuple(e for e in history.events if e.time_ms < request.time_ms),
            )
        except StoreError:
            degraded = ("history", "features")
        because = tuple(Attribution(event.item or "", 0.5, 1.0, event.action) for event in events)
        known = {f"i{n}" for n in range(1000)}
        items = [
            RankedItem(
                item.id,
                float(item.id[1:]) if item.id[1:].isdigit() else 0.0,
                {"click": 0.5},
                "OK" if item.id in known else "UNKNOWN_ITEM",
                because if request.explain else (),
            )
            for item in request.items
        ]
        return Ranking(
            id=request.id,
            model=self.name,
            version=self.version,
            items=tuple(sorted(items, key=lambda item: -item.score)),
            degraded=degraded,
            took_ms=0.1,
            history_revision=revision,
            history_ranges=(0, 0, len(events)),
            stages_ms={"score": 0.1},
            user_known=request.user in {f"u{n}" for n in range(100)},
        )


def main(options: dict[str, Any]) -> None:
    """Serve as ``options`` say; prints one JSON line with the URL when ready."""
    bound = bind("127.0.0.1", 0)
    store = open_store(options.get("store", "memory://"))
    limits = RequestLimits(**options.get("limits", {}))
    registry = Path(options["registry"]) if "registry" in options else None
    models = LoadedModels(
        lambda folder, name, version: FakeEngine(folder, name, version, store),
        registry,
        strict=limits.strict,
    )
    models.put("fake", "1", Path(options["run"]))
    access = Access(options.get("token"), options.get("admin_token"))
    configure_logging()
    app = make_app(Service(models=models, store=store, access=access, limits=limits))
    port = bound.getsockname()[1]
    ready_line = json.dumps({"url": f"http://127.0.0.1:{port}"})
    serve(app, bound, lambda: print(ready_line, flush=True), **options.get("server", {}))
