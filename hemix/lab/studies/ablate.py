"""``hemix ablate``: HeMix against itself with one part taken away or changed, from the same seeds;
paired differences to the full model.

Every variant is a line of VARIANTS: settings, nothing else. Blocks are compared at equal dense
parameters, by the width of their feed-forward networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.data.spec import InputSpec
from hemix.errors import UsageError
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.cells import STUDY_FORMAT, Contender, Judged
from hemix.lab.studies.compare import cells_of, facts, judge
from hemix.lab.studies.cost import plan
from hemix.lab.studies.inputs import open_inputs
from hemix.lab.studies.report import write_study_report
from hemix.lab.studies.runner import Options, check_study_folder, study_folder
from hemix.lab.studies.summary import pairs, summarise
from hemix.models import count_parameters
from hemix.models.hemix import HeMixConfig
from hemix.settings import Settings

__all__ = ["FULL", "VARIANTS", "ablate", "variants_of"]

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
    "no_matches": ("without counts of matches", {"model.matches": False}),
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
"""What is changed, and the settings that change it; rank and heads are changed from the full
model's own.
"""

_MOST_EXPANSION = 64


def variants_of(
    settings: Settings, spec: InputSpec, base: Mapping[str, Any], names: Sequence[str] | None = None
) -> list[Contender]:
    """The full model, then its variants (all, or those of ``names``).

    Raises UsageError listing the known ones, SettingsError where a variant's settings do not go
    together.
    """
    chosen = list(VARIANTS) if names is None else list(names)
    for name in chosen:
        if name not in VARIANTS:
            raise UsageError(f"--variants {name}: expected some of {', '.join(VARIANTS)}")
    model = settings.model
    if not isinstance(model, HeMixConfig):
        raise UsageError(f"--set model.name={model.name}: hemix ablate takes HeMix apart")
    relative = {
        "half_rank": {"model.mix_rank": max(1, model.mix_rank // 2)},
        "double_rank": {"model.mix_rank": 2 * model.mix_rank},
        "half_heads": {"model.mix_heads": max(1, model.mix_heads // 2)},
        "double_heads": {"model.mix_heads": 2 * model.mix_heads},
    }
    found = [Contender.of(FULL, dict(base))]
    for name in chosen:
        changes = {**base, **VARIANTS[name][1], **relative.get(name, {})}
        variant = Contender.of(name, changes)
        if "model.block" in VARIANTS[name][1]:
            variant = _at_equal_parameters(variant, found[0], spec)
        found.append(variant)
    return found


def _at_equal_parameters(variant: Contender, full: Contender, spec: InputSpec) -> Contender:
    """The variant with the feed-forward width that brings its dense parameters nearest to the full
    model's.
    """
    wanted, _ = count_parameters(spec, full.settings.model)

    def distance(expansion: int) -> int:
        model = variant.settings.model.model_copy(update={"ffn_expansion": expansion})
        return abs(count_parameters(spec, model)[0] - wanted)

    low, high = 1, _MOST_EXPANSION
    while high - low > 2:  # parameters grow with the width, so the distance falls, then rises
        left, right = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, right) if distance(left) <= distance(right) else (left, high)
    best = min(range(low, high + 1), key=distance)
    return Contender.of(variant.label, {**variant.changes, "model.ffn_expansion": best})


def ablate(
    data: Sequence[str | Path],
    out: Path,
    *,
    variants: Sequence[str] | None = None,
    seeds: int = 3,
    changes: Mapping[str, Any] | None = None,
    final: bool = False,
    options: Options | None = None,
) -> dict[str, Any]:
    """Train the full model and its variants on the datasets ``data``; writes and returns
    ablate.json.

    ``pairs`` are variant minus full, adjusted by Holm over the variants. ``changes``: settings for
    all. Raises as :func:`hemix.lab.studies.compare.compare`.
    """
    options = options or Options()
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: expected 1 or more")
    full = Contender.of(FULL, dict(changes or {}))
    check_study_folder(out)
    inputs, _ = open_inputs(data, opens_test=final)
    contenders = variants_of(full.settings, inputs[0].dataset.spec, full.changes, variants)
    split: Judged = "test" if final else "valid"
    with study_folder(out):
        cells = cells_of(out, contenders, inputs, seeds)
        options.on_plan(plan([("ablate", cells, split)], options))
        runs, failed = judge(out, cells, contenders, inputs, split, options)
        among = [(label, FULL) for label in runs if label != FULL] if FULL in runs else []
        content = {
            "schema_version": 1,
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "variants": {name: VARIANTS[name][0] for name in runs if name != FULL},
            "models": summarise(runs, split),
            **pairs(runs, inputs, split, among=among),
            "primary": [],
            "failed": failed,
            **facts(out, inputs, seeds),
        }
        write_json(out / "ablate.json", content)
        write_study_report(out / "report.html", "ablate", content)
    return content
