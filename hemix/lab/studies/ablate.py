"""``hemix ablate``: variants of HeMix that lack or change one component, against the full model.

A variant is an entry of :data:`VARIANTS`. Variants with another block have as many dense
parameters as the full model, by the width of their feed-forward networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.data.spec import InputSpec
from hemix.errors import UsageError
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.cost import Stage, plan_study
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.options import StudyConfig, StudyOptions
from hemix.lab.studies.report import write_study_report
from hemix.lab.studies.runner import check_study_folder, study_folder
from hemix.lab.studies.study import STUDY_FORMAT, run_candidates, study_facts, trials_for
from hemix.lab.studies.summary import paired_differences, summarise
from hemix.lab.studies.trial import EvaluatedSplit
from hemix.models import count_parameters
from hemix.models.hemix_config import HeMixConfig
from hemix.settings import Settings

__all__ = ["FULL", "VARIANTS", "AblateConfig", "ablate", "make_variants"]

FULL = "full"

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no_fixed_queries": (
        "without fixed queries",
        {"model.fixed_queries_global": 0, "model.fixed_queries_realtime": 0},
    ),
    "no_dynamic_queries": ("without dynamic queries", {"model.dynamic_queries": False}),
    "no_global_history": ("without the global history", {"model.use_global": False}),
    "no_realtime_history": ("without the real-time history", {"model.use_realtime": False}),
    "no_products": ("without products of fields", {"model.products": "none"}),
    "rankmixer_block": ("RankMixer's block, equal parameters", {"model.block": "rankmixer"}),
    "transformer_block": ("Transformer block, equal parameters", {"model.block": "transformer"}),
    "shared_ffn": ("one feed-forward network for all tokens", {"model.ffn": "shared"}),
    "shared_query_projection": (
        "one query projection for all queries",
        {"model.query_projection": "shared"},
    ),
    "no_age": ("without the age of events", {"model.time_encoding": "none"}),
    "pre_norm": ("norm before the block, not after", {"model.norm_position": "pre"}),
    "half_rank": ("half the mix rank", {}),
    "double_rank": ("twice the mix rank", {}),
    "half_heads": ("half the mix heads", {}),
    "double_heads": ("twice the mix heads", {}),
}
"""Name -> (description, settings). Rank and heads depend on the full model's."""

_EXPANSION_MAX = 64


def make_variants(
    settings: Settings,
    spec: InputSpec,
    base: Mapping[str, Any],
    names: Sequence[str] | None = None,
) -> list[Candidate]:
    """Make the full model and its variants.

    Args:
        settings: Settings of the full model.
        spec: The model's inputs, to count parameters.
        base: Settings of all candidates, by ``section.name``.
        names: Keys of :data:`VARIANTS`; None: all.

    Raises:
        UsageError: A name is unknown, or the model is not HeMix.
        SettingsError: The settings of a variant are invalid together with ``base``.
    """
    selected = list(VARIANTS) if names is None else list(names)
    for name in selected:
        if name not in VARIANTS:
            raise UsageError(
                f"--variants {name}: expected some of {', '.join(VARIANTS)}", field="--variants"
            )
    model = settings.model
    if not isinstance(model, HeMixConfig):
        raise UsageError(
            f"--set model.name={model.name}: hemix ablate works only for hemix", field="--set"
        )
    relative = {
        "half_rank": {"model.mix_rank": max(1, model.mix_rank // 2)},
        "double_rank": {"model.mix_rank": 2 * model.mix_rank},
        "half_heads": {"model.mix_heads": max(1, model.mix_heads // 2)},
        "double_heads": {"model.mix_heads": 2 * model.mix_heads},
    }
    full = Candidate.from_overrides(FULL, dict(base))
    candidates = [full]
    for name in selected:
        overrides = {**base, **VARIANTS[name][1], **relative.get(name, {})}
        variant = Candidate.from_overrides(name, overrides)
        if "model.block" in VARIANTS[name][1]:
            variant = _match_parameters(variant, full, spec)
        candidates.append(variant)
    return candidates


def _match_parameters(variant: Candidate, full: Candidate, spec: InputSpec) -> Candidate:
    """Set the feed-forward width so that the dense parameters are nearest to the full model's."""
    target, _ = count_parameters(spec, full.settings.model)

    def distance(expansion: int) -> int:
        model = variant.settings.model.model_copy(update={"ffn_expansion": expansion})
        return abs(count_parameters(spec, model)[0] - target)

    low, high = 1, _EXPANSION_MAX
    while high - low > 2:  # ternary search: the distance falls, then rises
        left, right = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, right) if distance(left) <= distance(right) else (left, high)
    best = min(range(low, high + 1), key=distance)
    overrides = {**variant.overrides, "model.ffn_expansion": best}
    return Candidate.from_overrides(variant.label, overrides)


@dataclass(frozen=True, kw_only=True)
class AblateConfig(StudyConfig):
    """The variants of an ablation study."""

    variants: Sequence[str] | None = None
    """Keys of :data:`VARIANTS`; None: all"""


def ablate(
    data: Sequence[str | Path],
    out: Path,
    config: AblateConfig | None = None,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Train the full model and its variants; writes ablate.json and report.html.

    Args:
        data: Dataset folders: rolling origins of the same logs.
        out: The study's folder; a second call continues it.
        config: The variants.
        options: How the trials run.

    Returns:
        The content of ablate.json. ``pairs`` are variant minus full, with p-values adjusted over
        the variants.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: If no trial finished.
    """
    config, options = config or AblateConfig(), options or StudyOptions()
    config.check_seeds()
    full = Candidate.from_overrides(FULL, config.overrides())
    check_study_folder(out)
    datasets, _ = open_datasets(data, verify_test=config.evaluate_test)
    spec = datasets[0].dataset.spec
    candidates = make_variants(full.settings, spec, full.overrides, config.variants)
    split: EvaluatedSplit = "test" if config.evaluate_test else "valid"
    with study_folder(out):
        trials = trials_for(out, candidates, datasets, config.seeds)
        stage = Stage(name="ablate", trials=trials, split=split)
        options.on_plan(plan_study([stage], options))
        runs, failures = run_candidates(out, trials, candidates, datasets, split, options)
        pairs = [(label, FULL) for label in runs if label != FULL] if FULL in runs else []
        content = {
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "variants": {name: VARIANTS[name][0] for name in runs if name != FULL},
            "models": summarise(runs, split),
            **paired_differences(runs, datasets, split, pairs=pairs),
            "primary": [],
            "failed": failures,
            **study_facts(out, datasets, config.seeds),
        }
        write_json(out / "ablate.json", content)
        write_study_report(out / "report.html", "ablate", content)
    return content
