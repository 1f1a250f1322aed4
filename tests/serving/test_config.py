"""The configuration of a server: sources, precedence, and refusals that name the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hemix import api
from hemix.cli.app import app
from hemix.errors import SettingsError
from hemix.schema import Schema
from hemix.serving.config import ServeConfig, load_config
from tests.refusals import raises


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text("port: 1\nqueue: 1\nworkers: 1\nstrict: true\nlog: /logs\n")
    return path


def test_flags_override_environment_overrides_file_overrides_defaults(file: Path) -> None:
    environment = {"HEMIX_SERVE_PORT": "2", "HEMIX_SERVE_QUEUE": "2", "OTHER": "x"}
    config = load_config({"port": 3}, file=file, environment=environment)
    assert (config.port, config.queue, config.workers, config.max_items) == (3, 2, 1, 2_000)
    assert config.strict and config.log == Path("/logs")
    assert load_config(environment={}) == ServeConfig()


def test_a_flag_of_a_default_value_overrides_too(file: Path) -> None:
    assert load_config({"queue": 64, "strict": False}, file=file, environment={}).queue == 64


def test_the_environment_names_the_file(file: Path) -> None:
    environment = {"HEMIX_SERVE_CONFIG": str(file), "HEMIX_SERVE_WORKERS": ""}
    config = load_config(environment=environment)
    assert (config.port, config.workers) == (1, 1), "an empty variable is unset"
    other = file.with_name("other.yaml")
    other.write_text("")
    assert load_config(file=other, environment=environment) == ServeConfig()


def test_values_of_the_environment_are_converted() -> None:
    config = load_config(
        environment={
            "HEMIX_SERVE_STRICT": "true",
            "HEMIX_SERVE_DEADLINE": "1.5",
            "HEMIX_SERVE_TOKEN_FILE": "/token",
        }
    )
    assert (config.strict, config.deadline, config.token_file) == (True, 1.5, Path("/token"))


@pytest.mark.parametrize(
    ("content", "environment", "named"),
    [
        ("cache_mb: 1", {}, ("serve.yaml: cache_mb: unknown", "did you mean cache_mib?")),
        ("port: [1]", {}, ("serve.yaml: port: expected",)),
        ("precision: fp16", {}, ("serve.yaml: precision: expected", "fp32", "fp16")),
        ("- port", {}, ("serve.yaml: expected keys",)),
        ("", {"HEMIX_SERVE_WORKER": "1"}, ("WORKER: unknown", "mean HEMIX_SERVE_WORKERS?")),
        ("", {"HEMIX_SERVE_WORKERS": "0"}, ("HEMIX_SERVE_WORKERS: expected", "'0'")),
        ("", {"HEMIX_SERVE_ZZZ": "0"}, ("HEMIX_SERVE_ZZZ: unknown setting",)),
    ],
)
def test_what_is_wrong_is_named_with_its_source(
    tmp_path: Path, content: str, environment: dict[str, str], named: tuple[str, ...]
) -> None:
    (tmp_path / "serve.yaml").write_text(content)
    with pytest.raises(SettingsError) as refused:
        load_config(file=tmp_path / "serve.yaml", environment=environment)
    assert all(name in str(refused.value) for name in named), refused.value


def test_an_invalid_flag_is_named() -> None:
    with raises(SettingsError, 0.01, field="--store-timeout"):
        load_config({"store_timeout": 0.0}, environment={})


def test_the_store_has_room_for_the_longest_history() -> None:
    schemas = [
        Schema.parse(
            "name: a\nlabels: {click: {}}\nsplit: {valid: 2026-01-07, test: 2026-01-08}\n"
            f"history: {{global_length: {length}, realtime_length: 5}}\n"
            "features: {user: {user_id: {type: categorical}}, "
            "item: {item_id: {type: categorical}}}\n"
        )
        for length in (10, 200)
    ]
    limits = ServeConfig(history_cap=50, history_ttl_days=0, item_ttl_days=2).store_limits(schemas)
    assert (limits.cap, limits.ttl_ms, limits.item_ttl_ms) == (205, None, 2 * 86_400_000)
    assert ServeConfig(history_cap=500).store_limits(schemas).cap == 500


def test_the_command_passes_only_the_flags_that_it_was_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[Any] = []
    monkeypatch.setattr(api, "serve", lambda run, config, **_: passed.append((run, config)))
    monkeypatch.setenv("HEMIX_SERVE_QUEUE", "2")
    command = ["serve", "RUN", "--config", str(file), "--port", "8080", "--no-log"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    [(run, config)] = passed
    assert run == Path("RUN")
    assert (config.port, config.queue, config.workers, config.no_log) == (8080, 2, 1, True)
