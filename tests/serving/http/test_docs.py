"""What the docs tell a platform engineer to type is typed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hemix import Client
from hemix.serving.config import ServeConfig
from hemix.serving.run_folders import find_runs
from tests.serving.http.process import ROOT, Server, hemix_server

ADMIN = "admin-token-0123456789"
PRINTED = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def demo(planted_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry whose model is named as the docs'."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(planted_run, folder / "registry" / "demo" / "1")
    (folder / "admin").write_text(ADMIN)
    arguments = [folder / "registry", "--no-log", "--store", "memory://"]
    arguments += ["--admin-token-file", folder / "admin"]
    with hemix_server(arguments, folder / "log") as server:
        yield server


def curls(path: str) -> list[str]:
    """The curl commands of the sh blocks of a page, each whole."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)
    return [
        command
        for block in blocks
        for command in re.findall(r"^curl (?:[^'\n]|'[^']*')*", block, re.MULTILINE)
    ]


@pytest.mark.parametrize(
    ("page", "count"),
    [("README.md", 2), ("docs/reference/serving-api.md", 7), ("docs/how-to/serving.md", 1)],
)
def test_the_curl_lines_work_as_printed(demo: Server, page: str, count: int) -> None:
    commands = curls(page)
    assert len(commands) == count
    for command in commands:
        assert PRINTED in command
        done = subprocess.run(
            ["bash", "-c", command.replace(PRINTED, demo.url) + " -sS --fail"],
            capture_output=True,
            text=True,
            env={**os.environ, "ADMIN": ADMIN},
        )
        assert done.returncode == 0, (command, done.stderr, done.stdout)
        assert done.stdout and '"rejected":[{' not in done.stdout


def test_the_click_of_the_readme_is_in_the_because_of_its_ranking(demo: Server) -> None:
    client = Client(demo.url)
    client.events(
        [{"event": "interaction", "id": "e9", "user": "u000009", "item": "p00042", "type": "click"}]
    )
    ranking = client.rank("u000009", ["p00042", "p00007"], explain=True)
    assert all(
        [cause["item"] for cause in item["because"]] == ["p00042"] for item in ranking["items"]
    )


def test_the_python_lines_work_as_printed(demo: Server, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how-to/serving.md").read_text(), re.DOTALL
    )
    exec(compile(code.replace(PRINTED, demo.url), "docs/how-to/serving.md", "exec"), {})
    assert "p00042" in capsys.readouterr().out


def test_the_manifest_uses_flags_and_paths_that_there_are() -> None:
    parts = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    assert [part["kind"] for part in parts] == ["Deployment", "Service", "StatefulSet", "Service"]
    [container] = parts[0]["spec"]["template"]["spec"]["containers"]
    flags = [arg.partition("=")[0] for arg in container["args"] if arg.startswith("--")]
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= set(
        ServeConfig.model_fields
    )
    probes = {
        container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert probes == {"/healthz", "/readyz"}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in parts[0]["spec"]["template"]["spec"]["volumes"]}
    for volume in parts[0]["spec"]["template"]["spec"]["volumes"]:
        assert volume.get("emptyDir") != {}, "bounded"
    [redis] = parts[2]["spec"]["template"]["spec"]["containers"]
    assert redis["args"][redis["args"].index("--appendfsync") + 1] == "always"
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    constraints = (ROOT / "constraints.txt").read_text()
    assert re.findall(r"torch==[\d.]+", dockerfile) == re.findall(
        r"^torch==[\d.]+", constraints, re.MULTILINE
    )


def test_the_image_is_run_on_a_registry(planted_run: Path, tmp_path: Path) -> None:
    """What the comment mounts, below what the command serves."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    [inside] = re.findall(r"-v \S+:(/runs\S*):ro", dockerfile)
    assert 'CMD ["/runs",' in dockerfile
    shutil.copytree(planted_run, tmp_path / inside.removeprefix("/"))
    assert [(name, version) for name, version, _ in find_runs(tmp_path / "runs")] == [("demo", "1")]
