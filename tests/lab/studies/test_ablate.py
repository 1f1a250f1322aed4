"""hemix ablate: the variants are settings that differ in one thing, and are held against the full
model.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hemix.errors import UsageError
from hemix.evaluation.differences import holm
from hemix.lab.benchmarks.workload import SPEC
from hemix.lab.studies.ablate import FULL, VARIANTS, ablate, variants_of
from hemix.lab.studies.cells import Contender
from hemix.models import build_model, count_parameters
from tests.lab.studies.small import FAST, cells_here


def test_every_variant_can_be_built_and_differs_from_the_full_model() -> None:
    full, *variants = variants_of(Contender.of(FULL, {}).settings, SPEC, {})
    assert [one.label for one in variants] == list(VARIANTS)
    for one in variants:
        assert one.settings.model != full.settings.model, one.label
        assert one.settings.train == full.settings.train
        build_model(SPEC, one.settings.model, seed=0)


def test_blocks_are_compared_at_equal_parameters() -> None:
    found = {one.label: one for one in variants_of(Contender.of(FULL, {}).settings, SPEC, {})}
    wanted, _ = count_parameters(SPEC, found[FULL].settings.model)
    for block in ("rankmixer_block", "transformer_block"):
        parameters, _ = count_parameters(SPEC, found[block].settings.model)
        assert parameters == pytest.approx(wanted, rel=0.05)


def test_variants_stand_on_what_is_set_for_all() -> None:
    base = {"model.mix_rank": 8, "train.epochs": 2}
    found = {
        one.label: one.settings
        for one in variants_of(Contender.of(FULL, base).settings, SPEC, base)
    }
    assert (found["half_rank"].model.mix_rank, found["double_rank"].model.mix_rank) == (4, 16)
    assert all(settings.train.epochs == 2 for settings in found.values())


def test_an_ablation(planted_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with cells_here() as began:
        ablate(
            [planted_data],
            out,
            variants=["no_realtime_history", "shared_ffn"],
            seeds=1,
            changes=FAST,
        )
    assert len(began) == 3
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
    assert "What each part is worth" in (out / "report.html").read_text()


def test_unknown_variants_list_the_known(planted_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--variants no_ffn: expected some of no_fixed_queries, "):
        ablate([planted_data], tmp_path / "out", variants=["no_ffn"])
    assert not (tmp_path / "out").exists()
