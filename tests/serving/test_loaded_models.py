"""What a served folder may hold, which versions a store suits, and how a replaced version goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hemix.errors import RunError
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.ranking_log import RankingLogSet
from hemix.serving.ranking_log.tables import LoggedRanking
from hemix.serving.run_folders import check_folder, check_histories, find_runs
from hemix.serving.server import engine_loader
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Candidate, LiveFeatures, RankedItem, Ranking, RankRequest
from tests.cli.run import Command, refused
from tests.refusals import raises
from tests.serving.http.fake import FakeEngine

SCHEMA = "name: small\nlabels: {click: {}}\nsplit: {valid: 2026-01-08, test: 2026-01-09}\n"


def test_numbers_that_look_like_a_pickled_array_are_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.frombuffer(b"|O'O'" * 8, dtype=np.uint8))
    check_folder(tmp_path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.array([{}], dtype=object), allow_pickle=True)
    with raises(RunError, code="unsafe_run", field=tmp_path / "features.npy"):
        check_folder(tmp_path)


def run_folder(path: Path) -> Path:
    (path / "encoders").mkdir(parents=True)
    for name in ("run.json", "dense.safetensors", "encoders/000.ids.npy"):
        (path / name).write_text("{}")
    return path


def mounted(path: Path) -> Path:
    """A run as Kubernetes mounts it: every file is a link into a folder that is replaced as a
    whole.
    """
    run_folder(path / "..2026_01_05")
    (path / "..data").symlink_to("..2026_01_05")
    for name in ("run.json", "dense.safetensors", "encoders"):
        (path / name).symlink_to(f"..data/{name}")
    return path


def test_links_to_what_is_served_from_the_start_are_followed(tmp_path: Path) -> None:
    real = run_folder(tmp_path / "volume" / "abc")
    (tmp_path / "latest").symlink_to(real)
    assert find_runs(tmp_path / "latest") == [("latest", "1", tmp_path / "latest")]
    check_folder(tmp_path / "latest")
    registry = tmp_path / "registry"
    run_folder(registry / "feed" / "1")
    (registry / "feed" / "2").symlink_to(real)
    mounted(registry / "shop" / "7")
    (registry / "web").symlink_to(registry / "shop")
    (registry / "..data").symlink_to(tmp_path)
    (tmp_path / "mount").symlink_to(registry)
    runs = [(name, version) for name, version, _ in find_runs(tmp_path / "mount")]
    assert runs == [("feed", "2"), ("shop", "7"), ("web", "7")]
    loaded: list[Path] = []

    def load(folder: Path, name: str, version: str) -> FakeEngine:
        loaded.append(folder)
        return FakeEngine(folder, name, version, open_store("memory://"))

    models = LoadedModels(load, registry)
    for name, version, folder in find_runs(tmp_path / "mount"):
        models.put(name, version, folder)
    assert loaded == [real, registry / "shop" / "7", registry / "shop" / "7"], (
        "what a link leads to later is another version"
    )
    for name, version in (("feed", "2"), ("web", "7")):
        with raises(RunError, f"{name}/{version}", code="unsafe_run"):
            models.load(name, version)
    assert models.load("shop", "7") is not None, "its links lead nowhere else"
    models.close()


@pytest.mark.parametrize(
    "target",
    ["../volume/abc/run.json", "nowhere", "extra", "data/old.bin", "..", ".", "/etc/hostname"],
)
def test_a_link_that_leads_out_of_a_run_is_refused(tmp_path: Path, target: str) -> None:
    run_folder(tmp_path / "volume" / "abc")
    run = run_folder(tmp_path / "run")
    (run / "data").mkdir()
    (run / "data" / "old.bin").write_text("")
    (run / "extra").symlink_to(target)
    with raises(RunError, code="unsafe_run", field=run / "extra"):
        check_folder(run)


@pytest.mark.parametrize(
    ("schema", "limits", "field", "values"),
    [
        (
            "history: {global_length: 90, realtime_length: 20}\ntables: {events: e}\n",
            StoreLimits(cap=109),
            "--history-cap",
            [109, "--history-cap 110"],
        ),
        ("", StoreLimits(), "--store", ["of impressions"]),
        ("tables: {events: e}\n", StoreLimits(impressions=True), "--store", ["of events"]),
    ],
)
def test_a_version_that_the_store_does_not_suit_is_refused(
    schema: str, limits: StoreLimits, field: str, values: list[object]
) -> None:
    with raises(RunError, "feed/7", *values, code="unsuitable_store", field=field):
        check_histories(Schema.parse(SCHEMA + schema), limits, "feed/7")


def test_a_version_that_the_store_suits() -> None:
    for schema, limits in (
        ("", StoreLimits(impressions=True)),
        ("tables: {events: e}\n", StoreLimits()),
    ):
        check_histories(Schema.parse(SCHEMA + schema), limits, "feed/7")


def test_a_server_loads_no_version_that_its_store_does_not_suit(planted_run: Path) -> None:
    load = engine_loader(open_store("memory://"), StoreLimits(cap=1), None, ServeConfig())
    with raises(RunError, "feed/2", 1, code="unsuitable_store", field="--history-cap"):
        load(planted_run, "feed", "2")


def test_models_of_different_histories_are_not_served_together(
    hemix: Command, tmp_path: Path
) -> None:
    for name, tables in (("a", "tables: {events: e}\n"), ("b", "")):
        folder = tmp_path / "registry" / name / "1"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        (folder / "schema.yaml").write_text(SCHEMA + tables)
    flags = ["--port", "0", "--store", "memory://", "--no-log"]
    message = refused(hemix("serve", tmp_path / "registry", *flags))
    assert "a/1: its histories are of events" in message and "impressions too" in message


class Logging:
    """Ranks nothing, and logs it."""

    schema = Schema.parse(SCHEMA + "tables: {events: e}\n")

    def __init__(self, logs: RankingLogSet, name: str, version: str) -> None:
        self._logs, self._log = logs, logs.open(name, version, self.schema)

    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        assert check is None
        rankings = [
            Ranking(
                id=request.id,
                model="feed",
                version="1",
                items=(RankedItem("i", 0.5, {"click": 0.5}),),
                took_ms=0.1,
                history_revision=0,
                history_ranges=(0, 0, 0),
            )
            for request in requests
        ]
        for request, ranking in zip(requests, rankings, strict=True):
            self._log.log_ranking(
                LoggedRanking(request=request, ranking=ranking, user=LiveFeatures(), items={})
            )
        return rankings

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        self._logs.release(self._log)


def test_the_last_request_of_a_replaced_version_does_not_wait_for_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs, pending = (
        RankingLogSet(tmp_path / "served"),
        RankRequest(id="r", user="u", time_ms=1, items=(Candidate("i"),)),
    )
    models = LoadedModels(lambda _folder, name, version: Logging(logs, name, version))
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    models.put("feed", "1", tmp_path / "1")
    disk, old = threading.Event(), logs.open("feed", "1", Logging.schema)
    logs.release(old)
    write = old._write_files
    monkeypatch.setattr(old, "_write_files", lambda: (disk.wait(20), write()))
    with models.lease("feed") as served:
        assert served is not None
        models.put("feed", "2", tmp_path / "2")
        served.engine.rank([pending])
    written = tmp_path / "served" / f"feed-1-{Logging.schema.columns_fingerprint()}" / "rankings"
    assert not list(written.iterdir()), "the answer is out, and the disk has not moved yet"
    back = threading.Thread(target=models.put, args=("feed", "1", tmp_path / "1"))
    back.start()
    disk.set()
    back.join(20)
    assert not back.is_alive() and len(list(written.glob("*.parquet"))) == 1, (
        "the version came back once its log was closed"
    )
    models.close()
    assert logs.dropped == 0
