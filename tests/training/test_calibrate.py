"""Calibration after training: the line by hand, what it leaves alone, and that a run's weights hold it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hemix import api
from hemix.data.dataset import Dataset
from hemix.models import build_model
from hemix.run import Run
from hemix.run.evaluation import predictions_of
from hemix.settings import build_settings
from hemix.training.calibrate import calibrate, fit_line
from tests.planted import write_logs

CPU = torch.device("cpu")
MANY = 1e9


def tensors(*columns: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in columns]


def test_two_groups_by_hand() -> None:
    """Where logits take two values, the line goes through the log odds of both: 1/5 at -1 and 3/5 at 1. Weights stand for rows."""
    logits, labels, weights = tensors([-1, -1, 1, 1], [1, 0, 1, 0], [1 * MANY, 4 * MANY, 3 * MANY, 2 * MANY])
    low, high = math.log(1 / 4), math.log(3 / 2)
    assert fit_line(logits, labels, weights) == pytest.approx(((high - low) / 2, (high + low) / 2), abs=1e-6)


def test_the_prior_by_hand() -> None:
    """One impression at logit 0 says nothing of the slope; of the shift b: sigmoid(b) - 1 + b = 0."""
    slope, shift = fit_line(*tensors([0.0], [1.0], [1.0]))
    assert slope == pytest.approx(1.0, abs=1e-9)
    assert 1 / (1 + math.exp(-shift)) - 1 + shift == pytest.approx(0.0, abs=1e-8)


def test_nothing_known_and_one_class_alone() -> None:
    assert fit_line(*tensors([], [], [])) == (1.0, 0.0)
    slope, shift = fit_line(*tensors([-2.0, 0.5, 3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))
    assert -3 < shift < 0 and math.isfinite(slope)


def test_what_was_distorted_comes_back() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(200_000, generator=generator, dtype=torch.float64)
    labels = (torch.rand(true.shape, generator=generator) < true.sigmoid()).double()
    slope, shift = fit_line((true + 0.4) / 1.5, labels, torch.ones_like(true))
    assert (slope, shift) == pytest.approx((1.5, -0.4), abs=0.03)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    write_logs(folder / "logs", users=60)
    api.prepare(folder / "logs", folder / "data")
    return folder / "data"


@pytest.mark.parametrize("name", ["hemix", "rankmixer", "din", "sim", "onetrans", "dcnv2", "dlrm", "wukong"])
def test_rescaled_logits_are_the_line(data: Path, name: str) -> None:
    dataset = Dataset(data)
    model = build_model(dataset.spec, build_settings(overrides={"model.name": name}).model, seed=3).eval()
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
    """Positives expected = positives seen, of the first task, and of the second among the first's; without the setting they are not.
    Order, and so the AUC of the first task, stays."""
    if name == "lightgbm":
        pytest.importorskip("lightgbm", reason="LIGHTGBM ABSENT: pip install 'hemix[rivals]'")
    off = {}
    clicks = {}
    for calibrated in (True, False):
        changes = {"model.name": name, "train.calibrate": calibrated, "boosting.rounds": 15, "train.threads": 1}
        run = Run.load(api.train(data, tmp_path / str(calibrated), settings=changes))
        seen = predictions_of(run, Dataset(data), Dataset(data).split("valid"))
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
    """Fitted again on the same valid days, a calibrated run's line lies nearer (1, 0): what is left is what the prior held back."""
    run = Run.load(api.train(data, tmp_path / "run"))
    again = calibrate(run.model, Dataset(data).split("valid"), run.settings, CPU)["click"]
    first = run.metrics["calibration"]["click"]
    assert first["slope"] != 1 and first["shift"] != 0
    assert abs(again["slope"] - 1) < abs(first["slope"] - 1)
    assert abs(again["shift"]) < abs(first["shift"])
