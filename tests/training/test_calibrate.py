"""Calibration after training: the scaling by hand, what it leaves alone, and that a run's weights
hold it.
"""

from __future__ import annotations

import html
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hemix import api
from hemix.data.dataset import Dataset
from hemix.models import build_model, model_names
from hemix.runs import Run
from hemix.runs.evaluation import split_predictions
from hemix.settings import build_settings
from hemix.training.calibrate import (
    MIN_SLOPE,
    PlattScaling,
    calibrate,
    effective_weights,
    fit_platt_scaling,
    minimise_log_loss,
)
from hemix.training.callbacks import function_callback
from tests.planted import DAY_MS, SCHEMA, START_MS, write_logs

CPU = torch.device("cpu")
MANY = 1e9
VALID_MS = START_MS + 3 * DAY_MS


def tensors(*columns: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in columns]


def test_two_groups_by_hand() -> None:
    """Where logits take two values, the scaling goes through the log odds of both: 1/5 at -1 and
    3/5 at 1. Weights stand for rows.
    """
    logits, labels, weights = tensors(
        [-1, -1, 1, 1], [1, 0, 1, 0], [1 * MANY, 4 * MANY, 3 * MANY, 2 * MANY]
    )
    low, high = math.log(1 / 4), math.log(3 / 2)
    assert minimise_log_loss(logits, labels, weights) == pytest.approx(
        ((high - low) / 2, (high + low) / 2), abs=1e-6
    )


def test_the_prior_by_hand() -> None:
    """One impression at logit 0 says nothing of the slope; of the shift b: sigmoid(b) - 1 + b =
    0.
    """
    slope, shift = minimise_log_loss(*tensors([0.0], [1.0], [1.0]))
    assert slope == pytest.approx(1.0, abs=1e-9)
    assert 1 / (1 + math.exp(-shift)) - 1 + shift == pytest.approx(0.0, abs=1e-8)


def test_nothing_known_and_one_class_alone() -> None:
    assert minimise_log_loss(*tensors([], [], [])) == (1.0, 0.0)
    slope, shift = minimise_log_loss(*tensors([-2.0, 0.5, 3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))
    assert -3 < shift < 0 and math.isfinite(slope)


def test_what_was_distorted_comes_back() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(200_000, generator=generator, dtype=torch.float64)
    labels = (torch.rand(true.shape, generator=generator) < true.sigmoid()).double()
    slope, shift = minimise_log_loss((true + 0.4) / 1.5, labels, torch.ones_like(true))
    assert (slope, shift) == pytest.approx((1.5, -0.4), abs=0.03)


def sample(
    rows: int = 400, slope: float = 1.0, shift: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, labels drawn from ``slope * logit + shift``)."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, generator=generator, dtype=torch.float64)
    drawn = torch.rand(rows, generator=generator, dtype=torch.float64)
    return logits, (drawn < (slope * logits + shift).sigmoid()).double()


def test_weights_of_equal_size_are_none_whatever_their_size() -> None:
    logits, labels = sample(shift=-1.0)
    plain = minimise_log_loss(logits, labels, torch.ones_like(logits))
    for scale in (1.0, 1 / 3, 1 / 400, 1000.0, 1e-30, 1e30):
        scaling = fit_platt_scaling(logits, labels, torch.full_like(logits, scale))
        assert (scaling.slope, scaling.shift) == plain, "the same bytes"
        assert scaling.to_json() == {"slope": plain[0], "shift": plain[1]}


def test_the_scale_of_unequal_weights_does_not_matter_either() -> None:
    logits, labels = sample()
    weights = torch.linspace(0.1, 3, 400, dtype=torch.float64)
    scalings = [
        fit_platt_scaling(logits, labels, scale * weights) for scale in (1.0, 1 / 400, 1000.0)
    ]
    for scaling in scalings[1:]:
        assert (scaling.slope, scaling.shift) == pytest.approx(
            (scalings[0].slope, scalings[0].shift), abs=1e-9
        )
    ones = fit_platt_scaling(logits, labels, torch.ones_like(logits))
    assert abs(scalings[0].slope - ones.slope) > 1e-3, "how rows count against each other matters"


def test_effective_weights_by_hand() -> None:
    """(1 + 3)^2 / (1 + 9) = 1.6 rows, in the proportion 1 to 3."""
    assert effective_weights(*tensors([10.0, 30.0])).tolist() == pytest.approx([0.4, 1.2])
    assert effective_weights(*tensors([7.0] * 5)).tolist() == [1.0] * 5


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_order_stays_where_valid_has_it_the_other_way_round(scale: float) -> None:
    logits, labels = sample(2000, slope=-1.0, shift=-1.0)
    scaling = fit_platt_scaling(logits, labels, torch.full_like(logits, scale))
    assert scaling.slope == MIN_SLOPE
    assert scaling.held is not None and scaling.left_out is None
    expected = (scaling.slope * logits + scaling.shift).sigmoid().mean()
    assert float(expected) == pytest.approx(float(labels.mean()), abs=1e-3), (
        "the level is right all the same"
    )


def test_a_slope_that_is_held_says_which_way_it_was() -> None:
    logits, labels = sample(2000, slope=1.0, shift=0.0)
    turned, flat = (
        fit_platt_scaling(factor * logits, labels, torch.ones_like(logits))
        for factor in (-1.0, 1000.0)
    )
    assert turned.slope == flat.slope == MIN_SLOPE
    assert turned.held is not None and "other way round" in turned.held
    assert flat.held is not None and "other way round" not in flat.held


@pytest.mark.parametrize(
    ("logits", "labels", "weights", "word"),
    [
        ([], [], [], "no valid row"),
        ([0.1 * n for n in range(30)], [0.0] * 30, [1.0] * 30, "one class"),
        ([0.1 * n for n in range(30)], [1.0] * 30, [1.0] * 30, "one class"),
        ([0.1 * n for n in range(30)], [0.0, 1.0, 0.0] * 3 + [0.0] * 21, [1.0] * 30, "too few"),
        ([0.1 * n for n in range(40)], [0.0, 1.0] * 20, [1.0, 1000.0, *[1.0] * 38], "too few"),
        ([0.1 * n for n in range(40)], [0.0] * 20 + [1.0] * 20, [1.0] * 40, "no finite slope"),
        ([0.1 * n for n in range(40)], [1.0] * 20 + [0.0] * 20, [1.0] * 40, "no finite slope"),
        ([0.1 * n for n in range(39)] + [math.inf], [0.0, 1.0] * 20, [1.0] * 40, "not finite"),
    ],
)
def test_where_nothing_can_be_fitted_it_is_left_out(
    logits: list[float], labels: list[float], weights: list[float], word: str
) -> None:
    scaling = fit_platt_scaling(*tensors(logits, labels, weights))
    assert (scaling.slope, scaling.shift) == (1.0, 0.0)
    assert scaling.left_out is not None and word in scaling.left_out
    assert scaling.to_json() == {"slope": 1.0, "shift": 0.0, "left_out": scaling.left_out}


def test_a_constant_model_gets_the_level_alone() -> None:
    scaling = fit_platt_scaling(
        torch.full((400,), -0.5, dtype=torch.float64),
        sample(shift=-2.0)[1],
        torch.ones(400, dtype=torch.float64),
    )
    assert scaling == PlattScaling(slope=1.0, shift=scaling.shift)
    rate = float(sample(shift=-2.0)[1].mean())
    assert 1 / (1 + math.exp(0.5 - scaling.shift)) == pytest.approx(rate, abs=0.01)


def changed(folder: Path, **columns: object) -> Path:
    """Those logs with other columns, prepared; a column named ``weight`` is the weight."""
    schema = (
        SCHEMA.replace("roles: {", "roles: {weight: weight, ") if "weight" in columns else SCHEMA
    )
    logs = write_logs(folder / "logs", users=60, schema=schema)
    table = pq.read_table(logs / "impressions.parquet")
    for name, of in columns.items():
        values = pa.array(of(table))  # type: ignore[operator]
        at = table.column_names.index(name) if name in table.column_names else None
        table = (
            table.append_column(name, values) if at is None else table.set_column(at, name, values)
        )
    pq.write_table(table, logs / "impressions.parquet")
    api.prepare(logs, folder / "data")
    return folder / "data"


def on_valid(table: pa.Table) -> np.ndarray:
    time = np.asarray(table["time_ms"])
    return (time >= VALID_MS) & (time < VALID_MS + DAY_MS)


@pytest.mark.parametrize("name", ["hemix", "lightgbm"])
def test_a_run_says_for_every_task_why_its_scaling_was_left_out(tmp_path: Path, name: str) -> None:
    """Nobody ordered on valid; the click is fitted, the order's is not."""
    if name == "lightgbm":
        pytest.importorskip("lightgbm", reason="LIGHTGBM ABSENT: pip install 'hemix[baselines]'")
    data = changed(tmp_path, order=lambda t: np.where(on_valid(t), 0, np.asarray(t["order"])))
    records: list[dict[str, object]] = []
    settings = {"model.name": name, "boosting.rounds": 15, "train.threads": 1}
    run = api.train(
        data,
        tmp_path / "run",
        settings=settings,
        callback=function_callback(on_record=records.append),
    )
    metrics = Run.load(run).metrics
    assert set(metrics["calibration"]["click"]) == {"slope", "shift"}
    order = metrics["calibration"]["order"]
    assert (order["slope"], order["shift"]) == (1.0, 0.0)
    [note] = [note for note in metrics["notes"] if note["code"] == "calibration_left_out"]
    assert (note["task"], note["reason"]) == ("order", order["left_out"])
    assert [record["notes"] for record in records if "notes" in record] == [metrics["notes"]]
    api.evaluate(run, data, importance_impressions=0)
    assert note["text"] in html.unescape((run / "report.html").read_text())


def test_a_valid_day_of_one_class_leaves_all_scalings_out(tmp_path: Path) -> None:
    data = changed(
        tmp_path,
        click=lambda t: np.where(on_valid(t), 0, np.asarray(t["click"])),
        order=lambda t: np.where(on_valid(t), 0, np.asarray(t["order"])),
    )
    calibration = Run.load(api.train(data, tmp_path / "run")).metrics["calibration"]
    assert "one class" in calibration["click"]["left_out"]
    assert "no valid row" in calibration["order"]["left_out"], "of no click an order is known"


@pytest.mark.parametrize(
    ("name", "scale"), [("hemix", 1e-4), ("hemix", 1000.0), ("lightgbm", 1e-6)]
)
def test_the_scale_of_the_weights_changes_no_run(
    data: Path, tmp_path: Path, name: str, scale: float
) -> None:
    if name == "lightgbm":
        pytest.importorskip("lightgbm", reason="LIGHTGBM ABSENT: pip install 'hemix[baselines]'")
    settings = {"model.name": name, "boosting.rounds": 15, "train.threads": 1}
    plain = Run.load(api.train(data, tmp_path / "plain", settings=settings)).metrics["calibration"]
    weighted = changed(tmp_path, weight=lambda t: np.full(len(t), scale))
    calibration = Run.load(api.train(weighted, tmp_path / "weighted", settings=settings)).metrics[
        "calibration"
    ]
    for task, scaling in plain.items():
        assert calibration[task] == pytest.approx(scaling, abs=0.02)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    write_logs(folder / "logs", users=60)
    api.prepare(folder / "logs", folder / "data")
    return folder / "data"


@pytest.mark.parametrize("name", [name for name in model_names() if name != "lightgbm"])
def test_rescaled_logits_are_the_scaling(data: Path, name: str) -> None:
    dataset = Dataset(data)
    model = build_model(
        dataset.spec, build_settings(overrides={"model.name": name}).model, seed=3
    ).eval()
    batch = dataset.split("valid").batch(np.arange(20))
    slope, shift = torch.tensor([1.5, 0.5]), torch.tensor([-0.25, 2.0])
    with torch.no_grad():
        before = model(batch)
        model.rescale(slope, shift)
        once = model(batch)
        model.rescale(slope, shift)
        twice = model(batch)
    torch.testing.assert_close(once, before * slope + shift, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(twice, once * slope + shift, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["hemix", "lightgbm"])
def test_a_run_is_right_on_average_on_valid(data: Path, tmp_path: Path, name: str) -> None:
    """Positives expected = positives seen, of the first task, and of the second among the first's;
    without the setting they are not. Order, and so the AUC of the first task, stays.
    """
    if name == "lightgbm":
        pytest.importorskip("lightgbm", reason="LIGHTGBM ABSENT: pip install 'hemix[baselines]'")
    off = {}
    clicks = {}
    for calibrated in (True, False):
        changes = {
            "model.name": name,
            "train.calibrate": calibrated,
            "train.batch_size": 256,
            "boosting.rounds": 15,
            "train.threads": 1,
        }
        run = Run.load(api.train(data, tmp_path / str(calibrated), settings=changes))
        seen = split_predictions(run, Dataset(data), Dataset(data).split("valid"))
        known = seen.weights[:, 0] > 0 if seen.weights.ndim > 1 else seen.labels[:, 0] >= 0
        given = known & (seen.labels[:, 0] == 1) & (seen.labels[:, 1] >= 0)
        off[calibrated] = (
            abs(seen.probabilities[known, 0].sum() - (seen.labels[known, 0] == 1).sum()),
            abs(seen.conditional[given, 1].sum() - (seen.labels[given, 1] == 1).sum()),
        )
        clicks[calibrated] = seen.probabilities[:, 0]
        assert (run.metrics["calibration"] is None) == (not calibrated)
    assert max(off[True]) < 2.0, "the prior's pull alone is left"
    assert max(off[False]) > 2 * max(off[True])
    slope = Run.load(tmp_path / "True").metrics["calibration"]["click"]["slope"]
    order = np.argsort(clicks[False], kind="stable")
    if slope > 0:
        assert (np.diff(clicks[True][order]) >= -1e-6).all()


def test_a_run_keeps_what_it_fitted(data: Path, tmp_path: Path) -> None:
    """Fitted again on the same valid days, a calibrated run's scaling lies nearer (1, 0): what is
    left is what the prior held back.
    """
    run = Run.load(api.train(data, tmp_path / "run"))
    again = calibrate(run.model, Dataset(data).split("valid"), run.settings, CPU)["click"]
    first = run.metrics["calibration"]["click"]
    assert first["slope"] != 1 and first["shift"] != 0
    assert abs(again["slope"] - 1) < abs(first["slope"] - 1)
    assert abs(again["shift"]) < abs(first["shift"])
