"""``hemix ablate``: the variants, and their differences to the full model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hemix.errors import UsageError
from hemix.evaluation.differences import holm
from hemix.lab.benchmarks.workload import SPEC
from hemix.lab.studies.ablate import FULL, VARIANTS, AblateConfig, ablate, make_variants
from hemix.lab.studies.candidate import Candidate
from hemix.models import build_model, count_parameters
from tests.lab.studies.in_process import FAST, trials_in_process
from tests.refusals import raises


def variants_by_label(base: dict[str, Any]) -> dict[str, Candidate]:
    settings = Candidate.from_overrides(FULL, base).settings
    return {each.label: each for each in make_variants(settings, SPEC, base)}


def test_every_variant_builds_and_differs_from_the_full_model() -> None:
    full, *variants = variants_by_label({}).values()
    assert [variant.label for variant in variants] == list(VARIANTS)
    for variant in variants:
        assert variant.settings.model != full.settings.model, variant.label
        assert variant.settings.train == full.settings.train
        build_model(SPEC, variant.settings.model, seed=0)


def test_blocks_have_equal_numbers_of_parameters() -> None:
    variants = variants_by_label({})
    target, _ = count_parameters(SPEC, variants[FULL].settings.model)
    for block in ("rankmixer_block", "transformer_block"):
        parameters, _ = count_parameters(SPEC, variants[block].settings.model)
        assert parameters == pytest.approx(target, rel=0.05)


def test_variants_are_relative_to_the_settings_of_all() -> None:
    variants = variants_by_label({"model.mix_rank": 8, "train.epochs": 2})
    ranks = {name: variants[name].settings.model.mix_rank for name in ("half_rank", "double_rank")}
    assert ranks == {"half_rank": 4, "double_rank": 16}
    assert {variant.settings.train.epochs for variant in variants.values()} == {2}


def test_ablation_reports_every_variant_against_the_full_model(
    planted_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with trials_in_process() as started:
        ablate(
            [planted_data],
            out,
            AblateConfig(variants=["no_realtime_history", "shared_ffn"], seeds=1, settings=FAST),
        )
    assert len(started) == 3
    content = json.loads((out / "ablate.json").read_text())
    assert list(content["models"]) == [FULL, "no_realtime_history", "shared_ffn"]
    assert content["variants"] == {
        name: VARIANTS[name][0] for name in ("no_realtime_history", "shared_ffn")
    }
    auc = [pair for pair in content["pairs"] if (pair["task"], pair["metric"]) == ("click", "auc")]
    assert [(pair["a"], pair["b"]) for pair in auc] == [
        ("no_realtime_history", FULL),
        ("shared_ffn", FULL),
    ]
    assert [pair["p_holm"] for pair in auc] == pytest.approx(holm([pair["p"] for pair in auc]))
    page = (out / "report.html").read_text()
    assert all(label in page for label in content["models"])


def test_unknown_variant_is_a_usage_error(planted_data: Path, tmp_path: Path) -> None:
    with raises(UsageError, "no_ffn", ", ".join(VARIANTS), field="--variants"):
        ablate([planted_data], tmp_path / "out", AblateConfig(variants=["no_ffn"]))
    assert not (tmp_path / "out").exists()
