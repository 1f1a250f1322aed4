"""Accuracy on real data, with default settings, against the thresholds of accuracy.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hemix import api

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(3000)]

THRESHOLDS = yaml.safe_load((Path(__file__).parent / "accuracy.yaml").read_text())


def test_kuairand_with_default_settings(kuairand: Path, tmp_path: Path) -> None:
    api.import_logs("kuairand", kuairand, tmp_path / "logs")
    api.prepare(tmp_path / "logs", tmp_path / "data")
    clicks = []
    for seed in (0, 1, 2):
        api.train(
            tmp_path / "data",
            tmp_path / f"run{seed}",
            settings={"train.threads": 1, "train.seed": seed},
        )
        clicks.append(
            api.evaluate(tmp_path / f"run{seed}", tmp_path / "data", importance_impressions=0)[
                "tasks"
            ]["click"]
        )
    wanted = THRESHOLDS["kuairand"]["click"]
    assert sum(click["auc"] for click in clicks) / 3 >= wanted["auc_at_least"]
    assert sum(click["logloss"] for click in clicks) / 3 <= wanted["logloss_at_most"]
