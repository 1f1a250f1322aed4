"""What a server takes, its log, its export, its replay and prepare can read, whatever callers
send.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from hemix.data.dataset import Dataset
from hemix.preparation import prepare
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.http.events import read_events
from hemix.serving.http.messages import ApiError
from hemix.serving.http.rank import rank, read_request
from hemix.serving.http.service import RequestLimits
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.ranking_log import LoggingStore, RankingLog
from hemix.serving.ranking_log.replay import replay
from hemix.serving.ranking_log.training_rows import write_training_rows
from hemix.serving.stores import StoreLimits, open_store

BODY_LIMITS = RequestLimits()
AT = 1_767_700_000_000
VALUES = [
    "true",
    "1.5",
    "-1",
    "1e30",
    "-1e299",
    "1e999",
    "9223372036854775808",
    "NaN",
    '""',
    '"3"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\ufeff\u2028"',
    f'"{"x" * 4096}"',
    "[]",
    "{}",
    "[null]",
    '["a", 1]',
    "[1, 2]",
    "[1e30, 1e30, -1e30]",
    "[true, false]",
    "null",
]
IDS = [
    '"0"',
    '" "',
    '""',
    '"a\\u0000b"',
    '"18446744073709551616"',
    '"1.0"',
    f'"{"i" * 256}"',
    '"e\u0301"',
    '"\ufeffx"',
    '"nan"',
]
TIMES = [
    "0",
    "-1",
    "1.5",
    "631152000000",
    "631151999999",
    "4102444799999",
    "1e12",
    '"1767700000000"',
    "true",
    "9" * 20,
    "null",
]


@dataclass
class Caller:
    """Sends JSON texts to a server that is not behind HTTP."""

    models: LoadedModels
    store: LoggingStore
    sent: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: {"accepted": 0, "rejected": 0, "ranked": 0, "refused": 0}
    )

    def tell(self, kind: str = "interaction", **parts: str) -> None:
        """One event; ``parts`` are JSON texts."""
        self.sent += 1
        event = {
            "event": f'"{kind}"',
            "id": f'"e{self.sent}"',
            "user": '"u1"',
            "item": '"i1"',
            "type": '"click"',
        }
        body = _json({**event, "ranking": '"r0"', "timestamp": str(AT + self.sent), **parts})
        try:
            parsed = read_events(body, self.models.checks(), BODY_LIMITS)
        except ApiError as refusal:
            assert refusal.http_status < 500
            self.counts["rejected"] += 1
            return
        self.counts["accepted"] += sum(self.store.append(parsed.events)) if parsed.events else 0
        self.counts["rejected"] += len(parsed.rejected)

    def ask(self, item: str = '"i1"', fields: str = "{}", **parts: str) -> None:
        """One ranking; ``parts`` are JSON texts."""
        self.sent += 1
        items = f'[{{"id": {item}, "fields": {fields}}}, {{"id": "i2"}}]'
        request = {
            "id": f'"r{self.sent}"',
            "user": '"u1"',
            "timestamp": str(AT + self.sent),
            "items": items,
        }
        try:
            rank(
                read_request(_json({**request, **parts}), BODY_LIMITS),
                self.models,
                BODY_LIMITS,
                "x",
            )
            self.counts["ranked"] += 1
        except ApiError as refusal:
            assert refusal.http_status < 500
            self.counts["refused"] += 1


def _json(parts: dict[str, str]) -> bytes:
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in parts.items()) + "}").encode()


def _send_odd_values(caller: Caller, schema: Schema) -> None:
    columns = {
        level: [c for n, f in schema.features.level(level).items() for c in f.columns(n)]
        for level in ("user", "context", "item", "cross")
    }
    for value in VALUES:
        for column in ("tab", "position", "other"):
            caller.tell("impression", fields=f'{{"{column}": {value}}}')
        for level in ("user", "item"):
            for column in columns[level]:
                caller.tell(level, fields=f'{{"{column}": {value}}}')
        for column in columns["context"]:
            caller.ask(context=f'{{"{column}": {value}}}')
        for column in columns["item"] + columns["cross"]:
            caller.ask(fields=f'{{"{column}": {value}}}')
        for part in ("type", "user", "item", "ranking", "id"):
            caller.tell(**{part: value})
    for value in IDS:
        caller.ask(item=value, id=value, user=value)
        caller.tell(id=value, user=value, item=value, type=value, ranking=value)
        caller.tell("user", user=value, fields=f"{{{value}: {value}}}")
    for value in TIMES:
        caller.ask(timestamp=value)
        caller.tell(timestamp=value)


def test_whatever_is_accepted_can_be_exported_prepared_and_replayed(
    rich_logs: Path, rich_run: Path, tmp_path: Path
) -> None:
    schema = Schema.load(rich_run / "schema.yaml")
    log = RankingLog(tmp_path / "served" / "feed-1", schema)
    store = LoggingStore(open_store("memory://", StoreLimits(ttl_ms=None)), log)
    engine = Engine(
        rich_run, store, ServeConfig(store_timeout=20), name="feed", version="1", log=log
    )
    models = LoadedModels(lambda *_: engine)
    models.put("feed", "1", rich_run)
    caller = Caller(models, store)
    caller.ask(id='"r0"')
    _send_odd_values(caller, schema)
    log.close()
    assert log.dropped == 0 and min(caller.counts.values()) > 80

    counts = write_training_rows(log.folder, tmp_path / "rows", schema)
    assert counts["rows"] == 2 * caller.counts["ranked"] and "positions_left_out" not in counts
    logs = tmp_path / "logs"
    shutil.copytree(rich_logs, logs)
    for table in ("impressions", "events"):
        old = (logs / f"{table}.parquet").rename(tmp_path / f"{table}.old")
        shutil.copytree(tmp_path / "rows" / table, logs / f"{table}.parquet")
        shutil.copy(old, logs / f"{table}.parquet" / "old.parquet")
    text = (logs / "schema.yaml").read_text()
    assert ", truth: truth.parquet" in text
    (logs / "schema.yaml").write_text(text.replace(", truth: truth.parquet", ""))
    prepare(logs, tmp_path / "data")
    prepared = sum(
        split["rows"] for split in Dataset(tmp_path / "data").manifest["splits"].values()
    )
    assert prepared > counts["rows"]

    again = list(replay(log.folder, engine))
    assert len(again) == caller.counts["ranked"] and all(one.complete for one in again)
    for one in again:
        assert all(
            math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)
            for a, b in ((one.logged_scores[i], one.replayed_scores[i]) for i in one.logged_scores)
            if a is not None and math.isfinite(a)
        )
    models.close()
