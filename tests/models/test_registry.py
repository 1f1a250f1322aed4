"""Models by name: from a file, from an installed package, with settings of their own and no
others.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from hemix import api
from hemix.cli import main
from hemix.config import Count
from hemix.data.dataset import Dataset
from hemix.errors import RunError, SettingsError, UsageError
from hemix.lab.studies.compare import CompareConfig
from hemix.models import (
    NeuralConfig,
    Ranker,
    build_model,
    find_model,
    model_names,
    register_model,
    registry,
)
from hemix.runs import Run
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.stores import StoreLimits, open_store
from hemix.settings import build_settings
from tests.batches import make_batch, make_spec
from tests.lab.studies.in_process import trials_in_process
from tests.refusals import raises
from tests.serving.parity import assert_same, expected_scores, live_events, logged_requests

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_towers.py"
FAST = {"train.batch_size": 256, "train.warmup_steps": 1}
Cli = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    model_names()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_files", {})
    registry._entry_points.cache_clear()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process: (exit code, stderr)."""

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["hemix", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
def own_run(cli: Cli, planted_data: Path, tmp_path: Path) -> Path:
    """A run of the example's model, trained through ``--import``."""
    changes = [flag for key, value in FAST.items() for flag in ("--set", f"{key}={value}")]
    options = ["--import", EXAMPLE, "--model", "two_towers", "--set", "model.width=5", *changes]
    code, err = cli("train", "--data", planted_data, "--out", tmp_path / "run", *options)
    assert code == 0, err
    return tmp_path / "run"


# -- a model that lives in a file ------------------------------------------------------------------


def test_its_run_has_its_own_settings_and_says_where_it_came_from(own_run: Path) -> None:
    run = Run.load(own_run)
    assert run.settings.model.model_dump() == {
        "name": "two_towers",
        "funnel": "entire_space",
        "embedding_size": 16,
        "embedding_init_std": 0.05,
        "width": 5,
    }
    assert isinstance(run.model, Ranker)
    assert run.model.get_parameter("user.weight").shape[0] == 5
    source = run.info["model_source"]
    assert (source["name"], source["file"]) == ("two_towers", "two_towers.py")


def test_it_is_evaluated_and_predicts(
    cli: Cli, own_run: Path, planted_data: Path, tmp_path: Path
) -> None:
    code, err = cli("evaluate", own_run, "--data", planted_data, "--import", EXAMPLE)
    assert code == 0, err
    metrics = json.loads((own_run / "metrics.json").read_text())
    assert metrics["split"]["test"]["tasks"]["click"]["auc"] > 0
    code, err = cli(
        "predict",
        own_run,
        "--data",
        planted_data,
        "--out",
        tmp_path / "p.parquet",
        "--import",
        EXAMPLE,
    )
    assert code == 0, err


def test_it_is_compared_by_processes_that_import_its_file(
    planted_data: Path, tmp_path: Path
) -> None:
    api.import_models([EXAMPLE])
    models = {"own": {"model.name": "two_towers", **FAST}, "dlrm": {"model.name": "dlrm", **FAST}}
    with trials_in_process():
        content = api.compare(
            planted_data, tmp_path / "study", CompareConfig(models=models, seeds=1, search=None)
        )
    assert set(content["models"]) == {"own", "dlrm"} and content["failed"] == []
    trials = [
        json.loads(path.read_text())
        for path in (tmp_path / "study" / "trials").glob("*/trial.json")
    ]
    imports = {trial["model"]: trial.get("imports") for trial in trials}
    assert imports == {"two_towers": [str(EXAMPLE)], "dlrm": None}


def test_an_export_says_that_it_cannot(cli: Cli, own_run: Path, tmp_path: Path) -> None:
    code, err = cli("export", own_run, "--out", tmp_path / "graphs", "--import", EXAMPLE)
    assert code == 2 and len(err.splitlines()) == 1
    assert "two_towers" in err and not (tmp_path / "graphs").exists()


def test_it_serves_what_it_predicts(own_run: Path, planted_logs: Path, planted_data: Path) -> None:
    run, data = Run.load(own_run), Dataset(planted_data)
    store = open_store("memory://", StoreLimits(ttl_ms=None))
    store.append(live_events(planted_logs, run.schema))
    engine = Engine(run, store, ServeConfig(store_timeout=5))
    expected = expected_scores(run, data)
    requests = logged_requests(planted_logs, data)[:20]
    for ranking, one in zip(engine.rank([a.request for a in requests]), requests, strict=True):
        assert_same(ranking, one, expected)
    engine.close()


def test_a_run_without_its_file_names_the_model_and_the_file(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        registry, "_entries", {k: v for k, v in registry._entries.items() if k != "two_towers"}
    )
    names = ("'two_towers'", "--import two_towers.py")
    with raises(RunError, *names, code="unknown_model", field="--import"):
        Run.load(own_run)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "code", "names"),
    [
        ("model.search=soft", "unknown_setting", ["hemix", "sim"]),
        ("model.history_events=9", "unknown_setting", ["din, hstu, longer, onetrans, sim"]),
        ("model.layrs=9", "unknown_setting", ["did you mean layers?"]),
        ("model.zzz=9", "unknown_setting", ["token_width"]),
        ("model.age=none", "unknown_setting", ["model.time_encoding"]),
        ("model.embedding_deviation=0.1", "unknown_setting", ["model.embedding_init_std"]),
        ("model.name=hemx", "unknown_model", ["'hemx'", "did you mean hemix?", "--import"]),
        ("model.name=[hemix]", None, ["['hemix']"]),
        ("model.size=tny", None, ["tiny, base, small, large"]),
    ],
)
def test_a_setting_that_the_model_does_not_have(
    override: str, code: str | None, names: list[str]
) -> None:
    with raises(SettingsError, *names, code=code, field=override.partition("=")[0]):
        build_settings(overrides=[override])


def test_a_size_of_a_model_without_sizes() -> None:
    with raises(SettingsError, "lightgbm", code="unknown_setting", field="model.size"):
        build_settings(model="lightgbm", size="base")


def test_settings_for_several_models_go_to_those_that_have_them(
    planted_data: Path, tmp_path: Path
) -> None:
    models = ("dlrm, lightgbm;", "sim")
    with raises(SettingsError, *models, code="unknown_setting", field="model.search"):
        api.compare(
            planted_data,
            tmp_path / "out",
            CompareConfig(models=["dlrm", "lightgbm"], settings=["model.search=soft"]),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("x = 1\n", "registers no model"),
        ("x = 1\ny = 1 / 0\n", "fails to import (line 2): ZeroDivisionError"),
        ("def f(:\n", "fails to import (line 1): SyntaxError"),
        ("import nowhere_at_all\n", "fails to import (line 1): ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "fails to import (line 1): SystemExit"),
        (
            "from hemix import register_model\n@register_model('a')\nclass A: ...\n",
            "A has no Config",
        ),
        (
            EXAMPLE.read_text().replace('"two_towers"', '"hemix"'),
            "'hemix' is taken by hemix.models.hemix.HeMix",
        ),
    ],
    ids=["missing", "nothing", "error", "syntax", "module", "exit", "config", "taken"],
)
def test_an_import_that_cannot_be_used(
    cli: Cli, planted_data: Path, tmp_path: Path, content: str | None, says: str
) -> None:
    file = tmp_path / "my_models.py"
    if content is not None:
        file.write_text(content)
    names = model_names()
    code, err = cli("train", "--data", planted_data, "--out", tmp_path / "run", "--import", file)
    assert code == 2 and len(err.splitlines()) == 1
    assert f"--import {file}: " in err and says in err
    assert model_names() == names and not (tmp_path / "run").exists()


def test_a_name_registers_once_and_a_file_imports_once(tmp_path: Path) -> None:
    api.import_models([EXAMPLE, EXAMPLE])
    copy = tmp_path / "copy.py"
    copy.write_text(EXAMPLE.read_text())
    with raises(UsageError, copy, "'two_towers'", code="name_taken", field="--import"):
        api.import_models([copy])
    assert find_model("two_towers").file == EXAMPLE


# -- an installed package --------------------------------------------------------------------------


def entry_points_of(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = [
        EntryPoint(name=name, value=value, group=registry.GROUP) for name, value in values.items()
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [p for p in points if p.group == group]
    )
    registry._entry_points.cache_clear()


def test_an_entry_point_is_imported_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_package_of_models")
    monkeypatch.setitem(__import__("sys").modules, "a_package_of_models", module)

    class Own(NeuralConfig):
        depth: Count = 1

    class Model(Ranker):
        Config = Own

        def encode_user(self, inputs: Any) -> None: ...

        def encode_request(self, state: Any, inputs: Any) -> Any:
            return state, inputs

        def score(self, state: Any, inputs: Any) -> torch.Tensor:
            assert state is not None
            return torch.zeros(inputs.batch.candidates_count, len(self.spec.tasks))

    Model.__module__ = "a_package_of_models"
    module.Model = register_model("packaged")(Model)  # type: ignore[attr-defined]
    entry_points_of(monkeypatch, packaged="a_package_of_models:Model")
    entry = find_model("packaged")
    assert entry.is_installed and entry.source() is None
    config = build_settings(model="packaged", overrides=["model.depth=3"]).model
    assert config.depth == 3  # type: ignore[attr-defined]


def test_an_entry_point_that_fails_stops_only_who_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points_of(monkeypatch, broken="nowhere_at_all:Model")
    assert "broken" in model_names()
    assert find_model("dlrm").name == "dlrm"
    names = ("broken", "nowhere_at_all:Model")
    with raises(SettingsError, *names, code="import_failed", field="model.name"):
        find_model("broken")


def test_an_entry_point_that_takes_a_name_of_ours_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry_points_of(monkeypatch, dlrm="nowhere_at_all:Model")
    with raises(SettingsError, "'dlrm'", code="name_taken", field="model.name"):
        find_model("dlrm")
    assert find_model("hemix").name == "hemix"


# -- first weights ---------------------------------------------------------------------------------


def test_weights_that_nobody_draws_are_named() -> None:
    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.empty(3))

    class Model(find_model("dlrm").model):  # type: ignore[misc]
        def __init__(self, spec: Any, config: Any) -> None:
            super().__init__(spec, config)
            self.bare = Bare()

    class Own(find_model("dlrm").config):  # type: ignore[misc]
        name: str = "bare"

    Model.Config = Own
    register_model("bare")(Model)
    with raises(SettingsError, "bare (Bare)", code="uninitialised_weights", field="model.name"):
        build_model(make_spec(), Own(), seed=0)


def test_other_layers_of_pytorch_draw_by_the_seed() -> None:
    base = find_model("dlrm")

    class Model(base.model):  # type: ignore[misc]
        def __init__(self, spec: Any, config: Any) -> None:
            super().__init__(spec, config)
            self.convolution = torch.nn.Conv1d(2, 3, 1)

    class Own(base.config):  # type: ignore[misc]
        name: str = "convolved"

    Model.Config = Own
    register_model("convolved")(Model)
    before = torch.get_rng_state()
    first, again, other = (
        build_model(make_spec(), Own(), seed=seed).convolution.weight for seed in (0, 0, 1)
    )  # type: ignore[union-attr]
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.isfinite(build_model(make_spec(), Own(), 0)(make_batch(make_spec()))).all()
