"""Written graphs equal the model in any batch size: slow, as writing one takes half a minute.

Every run of the tests compares the padded modules that the graphs are traced from: see
test_export_model.py.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hemix.cli.app import app
from hemix.data.dataset import Dataset
from hemix.data.sampler import SequentialSampler
from hemix.data.spec import Task
from hemix.errors import RunError
from hemix.exporting import export as exporting
from hemix.exporting.feed import by_candidate, request_feed, user_feed
from hemix.exporting.graphs import ExportedModel
from hemix.exporting.tensor_specs import takes_times
from hemix.files import read_json
from hemix.runs import Run
from hemix.runs.weights import sha256
from tests.batches import make_batch, make_spec
from tests.exporting.sizes import GRAPHS, lively
from tests.made_once import make_once
from tests.models.degenerate import DEGENERATE

pytestmark = pytest.mark.slow

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
InvalidArgument = import_module("onnxruntime.capi.onnxruntime_pybind11_state").InvalidArgument
"""Raised for an index outside a tensor."""


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run's export by the command, whose output lies in ``printed.json`` beside it."""

    def export(out: Path) -> None:
        result = CliRunner().invoke(
            app, ["export", str(run), "--format", "onnx", "--out", str(out), "--json"]
        )
        assert result.exit_code == 0, result.output
        out.with_name("printed.json").write_text(result.stdout)

    return make_once(tmp_path_factory, "export/exported", export)


def session(folder: Path) -> ExportedModel:
    return ExportedModel.load(folder / exporting.USER_FILE, folder / exporting.REQUEST_FILE)


def test_onnxruntime_scores_a_split_like_the_run(
    run: Path, exported: Path, planted_data: Path
) -> None:
    loaded, graphs = Run.load(run), session(exported)
    table = loaded.predict(planted_data, "test", position="serving")
    serve_as = read_json(exported / "export.json", RunError)["bias"]["serve_as"]
    split, scores = Dataset(planted_data).split("test"), dict[str, list[Any]]()
    for batch in split.batches(SequentialSampler(split, 100)):
        feed = request_feed(batch, loaded.spec)
        feed["bias"] = np.full_like(feed["bias"], serve_as)
        for name, value in graphs.scores(user_feed(batch, loaded.spec), feed).items():
            scores.setdefault(name, []).append(by_candidate(batch, value))
    assert set(scores) == set(loaded.schema.outputs) == {"click", "order", "order_given_click"}
    for name, values in scores.items():
        np.testing.assert_allclose(
            np.concatenate(values), table[name].to_numpy(), rtol=0, atol=1e-5
        )
    assert table["click"].to_numpy().std() > 0.001


@pytest.mark.parametrize(
    "sizes",
    [
        dict(users=1, requests_per_user=1, candidates=1, history=0, realtime=0, ragged=False),
        dict(users=1, requests_per_user=1, candidates=300, history=700, realtime=40, ragged=False),
        dict(users=9, requests_per_user=4, candidates=6, history=33),
    ],
    ids=["no event, one candidate", "many candidates", "many users"],
)
def test_graphs_take_any_batch_size(run: Path, exported: Path, sizes: dict[str, Any]) -> None:
    loaded = Run.load(run)
    batch = make_batch(loaded.spec, seed=5, **sizes)
    scores = session(exported).scores(
        user_feed(batch, loaded.spec), request_feed(batch, loaded.spec)
    )
    for name, value in loaded.model.predict(batch).items():
        np.testing.assert_allclose(
            by_candidate(batch, scores[name]), value.numpy(), rtol=0, atol=1e-5
        )


def test_wider_padding_of_lists_changes_no_score(run: Path, exported: Path) -> None:
    loaded = Run.load(run)
    batch = make_batch(loaded.spec, seed=5)
    user, request = user_feed(batch, loaded.spec), request_feed(batch, loaded.spec)
    expected = session(exported).scores(user, request)
    wider = {
        **request,
        "item_bag_tags": np.pad(
            request["item_bag_tags"], ((0, 0), (0, 0), (0, 4)), constant_values=-1
        ),
    }
    for name, value in session(exported).scores(user, wider).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6)


def test_an_id_outside_its_table_is_refused_by_the_graph(run: Path, exported: Path) -> None:
    loaded = Run.load(run)
    batch = make_batch(loaded.spec, seed=5)
    feed = user_feed(batch, loaded.spec)
    feed["user_ids"][0, 0] = 10_000_000
    with pytest.raises(InvalidArgument):
        session(exported).scores(feed, request_feed(batch, loaded.spec))


def test_a_history_range_beyond_the_events_is_refused_by_the_graph(
    run: Path, exported: Path
) -> None:
    loaded = Run.load(run)
    batch = make_batch(loaded.spec, seed=5)
    feed = request_feed(batch, loaded.spec)
    feed["visible"][0] = (0, 20, 60)
    with pytest.raises(InvalidArgument):
        session(exported).scores(user_feed(batch, loaded.spec), feed)


def test_export_json_lists_files_inputs_and_outputs(run: Path, exported: Path) -> None:
    content = read_json(exported / "export.json", RunError)
    loaded = Run.load(run)
    files = {str(f.relative_to(exported)) for f in exported.rglob("*") if f.is_file()} - {
        "export.json"
    }
    assert set(content["files"]) == files
    assert {"user_encoder.onnx", "request_scorer.onnx", "schema.yaml"} < files
    assert any(name.startswith("encoders/") for name in files)
    assert all(sha256(exported / name) == digest for name, digest in content["files"].items())
    assert content["max_abs_difference"] <= content["tolerance"] == 1e-4
    assert content["checked_probabilities"] > 1000
    assert content["bias"] == {"column": "position", "serve_as": 0}
    assert content["score"]["names"] == ["order", "price", "click"]
    graphs = session(exported)
    for graph, loaded_graph in (("user_encoder", graphs.user), ("request_scorer", graphs.request)):
        for tensor_specs, real in (
            ("inputs", loaded_graph.get_inputs()),
            ("outputs", loaded_graph.get_outputs()),
        ):
            described = [
                (
                    p["name"],
                    p["shape"],
                    {"int64": "tensor(int64)", "float32": "tensor(float)"}[p["dtype"]],
                )
                for p in content["graphs"][graph][tensor_specs]
            ]
            assert described == [(p.name, p.shape, p.type) for p in real]
    users = next(p for p in content["graphs"]["user_encoder"]["inputs"] if p["name"] == "user_ids")
    assert users["columns"] == list(loaded.spec.user.names)


def test_the_graphs_use_standard_onnx_operators(exported: Path) -> None:
    import onnx

    for name in (exporting.USER_FILE, exporting.REQUEST_FILE):
        model = onnx.load(exported / name)
        onnx.checker.check_model(model)
        assert {node.domain for node in model.graph.node} == {""}
        assert [(i.domain, i.version) for i in model.opset_import] == [("", 20)]


def test_the_check_detects_other_weights(run: Path, exported: Path) -> None:
    model = Run.load(run).model
    assert exporting.difference(model, exported)[0] < 1e-5
    model.blocks[0].interaction.up.weight.data[0, 0, 0] += 1.0  # type: ignore[index, union-attr]
    assert exporting.difference(model, exported)[0] > 1e-4


@pytest.mark.parametrize(
    ("options", "labels"),
    list(
        zip(
            GRAPHS.values(),
            [("view", "val_1"), ("linear", "mul"), ("cat", "view"), ("mul", "linear")],
            strict=True,
        )
    ),
    ids=GRAPHS,
)
def test_every_model_option_exports(
    options: dict[str, Any],
    labels: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With names of operators as labels, and weights in files of their own."""
    monkeypatch.setattr("hemix.exporting.graphs._INLINE_BYTES_MAX", 1000)
    tasks = (Task(name=labels[0]), Task(name=labels[1], given=0))
    model = lively(make_spec(tasks=tasks), **options)
    exporting.write_graphs(model, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {
        f"{graph}{end}"
        for graph in (exporting.USER_FILE, exporting.REQUEST_FILE)
        for end in ("", ".data")
    }
    assert exporting.difference(model, tmp_path)[0] < 1e-5
    graphs = session(tmp_path)
    for seed in range(3):
        batch = make_batch(model.spec, seed=seed)
        scores = graphs.scores(
            user_feed(batch, model.spec), request_feed(batch, model.spec, takes_times(model))
        )
        for name, value in model.predict(batch).items():
            np.testing.assert_allclose(
                by_candidate(batch, scores[name]), value.numpy(), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize(
    ("what", "products"),
    [
        ("a position alone", "none"),
        ("an item id that events carry", "histories"),
        ("tags of items alone", "histories"),
        ("numbers of every level", "fields"),
    ],
)
def test_minimal_schemas_export(what: str, products: str, tmp_path: Path) -> None:
    """tests/models/test_degenerate.py compares the padded form of every such schema with all
    products; these go through ONNX: without ids, lists or histories, and with each alone.
    """
    model = lively(DEGENERATE[what], products=products)
    exporting.write_graphs(model, tmp_path)
    assert exporting.difference(model, tmp_path)[0] <= exporting.TOLERANCE


def test_the_export_command_prints_export_json(exported: Path) -> None:
    printed = json.loads(exported.with_name("printed.json").read_text())
    assert printed == read_json(exported / "export.json", RunError)


def test_exported_files_have_the_default_mode(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    modes = {path.name: path.stat().st_mode for path in exported.rglob("*") if path.is_file()}
    assert set(modes.values()) == {(tmp_path / "new").stat().st_mode}, modes
