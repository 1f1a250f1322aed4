"""The registry of feature types: look-up, names taken twice, entry points, unknown types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest

from hemix.cli import main
from hemix.errors import SchemaError, UsageError
from hemix.features import register_feature, registered_features, registry
from hemix.features.base import SingleColumn
from hemix.schema import Schema
from tests.planted import write_logs
from tests.refusals import raises

PLAIN = "name: x\nlabels: {{click: {{}}}}\nsplit: {{valid: 1, test: 2}}\nfeatures: {{{features}}}\n"


def refusal(features: str, history: str = "{}") -> str:
    with pytest.raises(SchemaError) as error:
        Schema.parse(PLAIN.format(features=features) + f"history: {history}\n", "s.yaml")
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_types_of_the_package() -> None:
    assert list(registered_features())[:6] == [
        "categorical",
        "numeric",
        "vector",
        "coordinates",
        "distance",
        "clock",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("numerc", "numeric"), ("categoric", "categorical"), ("coordinate", "coordinates")],
)
def test_an_unknown_type_is_refused_with_the_name_that_was_meant(written: str, meant: str) -> None:
    message = refusal(f"user: {{a: {{type: {written}}}}}")
    assert message.startswith("s.yaml: features.user.a: ")
    assert repr(written) in message and message.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("written", ["zzz", "3", "[numeric]", "null", "{a: 1}"])
def test_a_type_that_is_like_no_other(written: str) -> None:
    message = refusal(f"user: {{a: {{type: {written}}}}}")
    assert message.startswith("s.yaml: features.user.a: expected ")
    assert "numeric" in message and "did you mean" not in message


def test_fields_of_events_are_looked_up_too() -> None:
    assert refusal("", "{fields: {a: {type: clok}}}").endswith("did you mean clock?")
    message = refusal("", "{fields: {a: {type: vector, size: 2}}}")
    assert message.startswith("s.yaml: history.fields.a: a field of events is one of")


def test_the_key_of_a_wrong_setting_has_no_type_in_it() -> None:
    assert refusal("user: {a: {type: numeric, bucket: 3}}").endswith(
        "features.user.a.bucket: unknown key"
    )
    assert "features.user.numeric.size: " in refusal("user: {numeric: {type: vector, size: 0}}")


def test_prepare_ends_with_code_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.yaml").write_text(
        PLAIN.format(features="item: {a: {type: vectr, size: 2}}")
    )
    arguments = ["hemix", "prepare", str(tmp_path), "--out", str(tmp_path / "data")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "features.item.a" in line and "vector" in line
    assert not (tmp_path / "data").exists()


class Twice(SingleColumn):
    type: Literal["twice"] = "twice"


def test_a_name_registers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    assert register_feature(Twice) is Twice
    assert register_feature(Twice) is Twice, "the same class again is no conflict"

    class Other(SingleColumn):
        type: Literal["twice"] = "twice"

    with raises(UsageError, "Twice", "Other", code="name_taken", field="twice"):
        register_feature(Other)
    assert registered_features()["twice"] is Twice


def test_a_built_in_name_is_refused() -> None:
    class Numeric(SingleColumn):
        type: Literal["numeric"] = "numeric"

    with raises(UsageError, code="name_taken", field="numeric"):
        register_feature(Numeric)


def test_a_type_without_a_name_is_refused() -> None:
    class Nameless(SingleColumn):
        pass

    with raises(UsageError, "Nameless", field=f"{__name__}.{Nameless.__qualname__}"):
        register_feature(Nameless)


def entry_point(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_loaded_entry_points", [])
    points = [EntryPoint("theirs", value, registry.ENTRY_POINTS)]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: points if group == "hemix.features" else []
    )


def test_an_entry_point_brings_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point(monkeypatch, "tests.features.test_registry:Twice")
    schema = Schema.parse(PLAIN.format(features="item: {a: {type: twice, column: b}}"))
    assert type(schema.features.item["a"]) is Twice
    assert schema.features.item["a"].columns("a") == ("b",)
    assert schema.to_yaml().count("type: twice") == 1


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point(monkeypatch, "tests.features.absent")
    with pytest.raises(UsageError) as error:
        Schema.parse(PLAIN.format(features="item: {a: {type: theirs}}"))
    assert "theirs" in str(error.value) and "\n" not in str(error.value)


def test_computed_features_belong_to_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @register_feature
    class Computed(SingleColumn):
        type: Literal["computed"] = "computed"

        def columns(self, name: str) -> tuple[str, ...]:
            return ()

    assert refusal("item: {a: {type: computed}}").startswith("s.yaml: features.item.a: ")


def test_an_installed_package_brings_its_types_to_every_command(tmp_path: Path) -> None:
    """In a process of its own, as entry points are found where packages are installed."""
    shutil.copy(Path(__file__).with_name("log_count.py"), tmp_path / "my_types.py")
    installed = tmp_path / "my_types-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my_types\nVersion: 1.0\n")
    logs = write_logs(tmp_path / "logs", users=8)
    text = (logs / "schema.yaml").read_text()
    schema = text.replace(
        "price: {type: numeric, encoding: standardise}", "price: {type: log_count}"
    )
    (logs / "schema.yaml").write_text(schema)

    def prepare(out: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "hemix",
            "prepare",
            str(logs),
            "--out",
            str(tmp_path / out),
        ]
        path = os.pathsep.join([str(tmp_path), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = prepare("absent")
    assert refused.returncode == 2 and not (tmp_path / "absent").exists()
    (line,) = refused.stderr.strip().splitlines()
    assert "features.item.price" in line and "'log_count'" in line
    (installed / "entry_points.txt").write_text("[hemix.features]\nlog_count = my_types\n")
    assert prepare("data").returncode == 0
    assert "log_count" in (tmp_path / "data" / "schema.yaml").read_text()
