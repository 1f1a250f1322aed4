"""New versions while requests go on: none fails, a broken one changes nothing, and what is no plain
folder is refused.
"""

from __future__ import annotations

import json
import pickle
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hemix.errors import RunError
from hemix.serving.run_folders import check_folder, find_runs
from tests.refusals import raises
from tests.serving.http.process import Server, fake_server, hemix_server

ADMIN = "admin-token-0123456789"


def load(server: Server, name: str, version: str):  # type: ignore[no-untyped-def]
    return server.ask(
        "POST",
        f"/v1/models/{name}/versions/{version}:load",
        headers={"authorization": f"Bearer {ADMIN}"},
    )


def version(registry: Path, name: str, marker: str = "ok") -> Path:
    folder = registry / "fake" / name
    folder.mkdir(parents=True)
    (folder / marker).write_text("")
    return folder


def test_a_version_takes_over_under_load_and_a_broken_one_does_not(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    version(registry, "2", "slow")
    version(registry, "3", "broken")
    with fake_server(tmp_path, registry=str(registry), admin_token=ADMIN) as server:
        seen: list[tuple[int, str]] = []
        end = threading.Event()

        def ask() -> None:
            while not end.is_set():
                answer = server.rank()
                seen.append((answer.status, answer.json.get("version", "")))

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        loaded = load(server, "fake", "2")
        assert (loaded.status, loaded.json["version"]) == (200, "2")
        broken = load(server, "fake", "3")
        assert (broken.status, broken.error["code"]) == (422, "broken_version")
        assert "these weights are broken" in broken.error["message"]
        assert server.rank().json["version"] == "2"
        end.set()
        for thread in asking:
            thread.join()
        assert {status for status, _ in seen} == {200}
        versions = [v for _, v in seen]
        assert {"1", "2"} == set(versions)
        assert [m["version"] for m in server.ask("GET", "/v1/models").json["models"]] == ["2"]


def test_two_loads_at_once(tmp_path: Path) -> None:
    version(tmp_path / "registry", "2", "slow")
    with fake_server(tmp_path, registry=str(tmp_path / "registry"), admin_token=ADMIN) as server:
        with ThreadPoolExecutor(4) as many:
            statuses = list(many.map(lambda _: load(server, "fake", "2").status, range(4)))
        assert set(statuses) <= {200, 429, 503}
        assert 200 in statuses and 429 in statuses
        assert server.rank().json["version"] == "2"


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "a..b", ".hidden", "a%2f..%2f..", "a%00b", "x" * 200, "%5c..%5c", "é"]
)
def test_names_that_lead_elsewhere(loader: Server, name: str) -> None:
    for first, second in ((name, "1"), ("fake", name)):
        answer = load(loader, first.replace("é", "%C3%A9"), second.replace("é", "%C3%A9"))
        assert answer.status in (404, 422), answer.body
        assert "error" in answer.json


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("loader")
    registry = folder / "registry"
    for name, kind in (
        ("pkl", "weights.pkl"),
        ("torch", "weights.bin"),
        ("magic", "innocent"),
        ("object", "ids.npy"),
    ):
        made = version(registry, name)
        match name:
            case "torch":
                with zipfile.ZipFile(made / kind, "w") as archive:
                    archive.writestr("data.pkl", b"x")
            case "object":
                np.save(made / kind, np.array([{}, None], dtype=object), allow_pickle=True)
            case _:
                (made / kind).write_bytes(pickle.dumps({"a": 1}))
    real = version(folder / "elsewhere", "1")
    (registry / "fake" / "link").symlink_to(real)
    inner = version(registry, "inner")
    (inner / "dense.safetensors").symlink_to(real / "ok")
    deep = version(registry, "deep")
    (deep / "encoders").symlink_to(real)
    (registry / "linked").symlink_to(folder / "elsewhere" / "fake")
    with fake_server(folder, registry=str(registry), admin_token=ADMIN) as server:
        yield server


@pytest.mark.parametrize("name", ["pkl", "torch", "magic", "object"])
def test_anything_pickled_is_refused(loader: Server, name: str) -> None:
    answer = load(loader, "fake", name)
    assert (answer.status, answer.error["code"]) == (422, "broken_version")
    assert "is pickled" in answer.error["message"]
    assert loader.rank().json["version"] == "1"


@pytest.mark.parametrize(
    "where", [("fake", "link"), ("fake", "inner"), ("fake", "deep"), ("linked", "1")]
)
def test_links_are_refused(loader: Server, where: tuple[str, str]) -> None:
    answer = load(loader, *where)
    assert (answer.status, answer.error["code"]) == (422, "broken_version")
    assert "link" in answer.error["message"]


def test_what_is_not_there(loader: Server) -> None:
    absent = load(loader, "fake", "99").error
    assert (absent["code"], absent["field"]) == ("unknown_version", "version")
    assert load(loader, "other", "1").status == 404


def test_what_is_wrong_of_a_load_is_named(loader: Server, tmp_path: Path) -> None:
    for name, version_, field in ((".hidden", "1", "name"), ("fake", "a..b", "version")):
        answer = load(loader, name, version_)
        assert (answer.status, answer.error["field"]) == (422, field)
    with fake_server(tmp_path, admin_token=ADMIN) as server:
        answer = load(server, "fake", "2")
        assert (answer.status, answer.error["field"]) == (422, None)
        assert "no registry" in answer.error["message"]


def test_runs_of_a_folder(tmp_path: Path) -> None:
    with raises(RunError, code="missing_run"):
        find_runs(tmp_path / "nowhere")
    with raises(RunError, "run.json", code="missing_run"):
        find_runs(tmp_path)
    for name in ("feed/9", "feed/10", "shop/1.9", "shop/1.10", "web/v9", "web/v10-rc", "web/v10"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps({}))
    assert [(n, v) for n, v, _ in find_runs(tmp_path)] == [
        ("feed", "10"),
        ("shop", "1.10"),
        ("web", "v10-rc"),
    ]
    assert find_runs(tmp_path / "feed" / "9")[0][:2] == ("9", "1")


def test_logs_of_a_demo_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "old.pkl").write_bytes(pickle.dumps(1))
    check_folder(tmp_path)


@pytest.mark.slow
def test_real_runs_under_load(rich_run: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry" / "feed"
    for name in ("1", "2", "3", "4"):
        shutil.copytree(rich_run, registry / name)
    weights = registry / "2" / "dense.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (registry / "3" / "encoders" / "encoders.json").write_text("{")
    for name, of in (("5", "000.ids.npy"), ("6", "items.ids.npy")):
        shutil.copytree(rich_run, registry / name)
        ids = registry / name / "encoders" / of
        ids.write_bytes(ids.read_bytes()[:-4] + b"\1\0\0\0")  # as of another day
    served = tmp_path / "served"
    shutil.copytree(registry / "1", served / "feed" / "1")
    (tmp_path / "admin").write_text(ADMIN)
    arguments = [served, "--registry", tmp_path / "registry", "--no-log", "--store", "memory://"]
    arguments += ["--admin-token-file", tmp_path / "admin"]
    with hemix_server(arguments, tmp_path / "log") as server:
        seen: list[tuple[int, str]] = []
        end = threading.Event()

        def ask() -> None:
            while not end.is_set():
                answer = server.rank(["i1", "i2"])
                seen.append((answer.status, answer.json.get("version", "")))

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        try:
            for name, says in (
                ("2", "dense.safetensors"),
                ("3", "encoders.json"),
                ("5", "000.ids.npy"),
                ("6", "items.ids.npy"),
            ):
                broken = load(server, "feed", name)
                assert (broken.status, broken.error["code"]) == (422, "broken_version")
                assert says in broken.error["message"]
            assert load(server, "feed", "4").status == 200
            server.until(lambda: (200, "4") in seen)
        finally:
            end.set()
            for thread in asking:
                thread.join()
        assert set(seen) == {(200, "1"), (200, "4")}
