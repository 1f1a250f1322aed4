"""Settings of model and training, and the named sizes.

One frozen, validated class per component. A run's ``settings.yaml`` is a :class:`Settings`; ``--config F`` reads a part of one and
``--set train.epochs=2`` changes single values, both checked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hemix.errors import SettingsError
from hemix.validation import first_problem
from hemix.yaml_files import parse_yaml, read_yaml

__all__ = ["SIZES", "BoostingSettings", "ModelSettings", "Settings", "TrainSettings", "build_settings", "named_overrides"]

_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=_MOST)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(token_width=32, attention_heads=2, layers=2, mix_heads=4, mix_rank=32, tokenizer_hidden=128),
    "base": dict(token_width=64, attention_heads=4, layers=3, mix_heads=4, mix_rank=64, tokenizer_hidden=512),
    "small": dict(token_width=384, attention_heads=6, layers=3, mix_heads=8, mix_rank=128, tokenizer_hidden=2048),
    "large": dict(token_width=1024, attention_heads=8, layers=7, mix_heads=16, mix_rank=256, tokenizer_hidden=4096),
}
"""What the named sizes change of :class:`ModelSettings`. Exact counts for the simulated schema stand in docs/model.md."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Part):
    """The model. Every choice that the paper leaves open is an option here."""

    name: str = "hemix"
    size: str = "tiny"
    embedding_size: Count = 16
    """Width of every embedding table."""
    embedding_deviation: Rate = 0.05
    """Standard deviation of the tables' first values."""
    token_width: Count = 32
    """D, the width of a token."""
    ns_tokens_global: Count = 4
    """S_G: the NS tokens that query the global history."""
    ns_tokens_realtime: Count = 4
    """S_R: the NS tokens that query the real-time history."""
    fixed_queries_global: CountOrZero = 4
    fixed_queries_realtime: CountOrZero = 4
    dynamic_queries: bool = True
    """Off: histories are read by fixed queries alone."""
    query_projection: Literal["per_query", "shared"] = "per_query"
    use_global: bool = True
    """Off: the model has no global history."""
    use_realtime: bool = True
    """Off: the model has no real-time history."""
    attention_heads: Count = 2
    tokenizer_hidden: Count = 128
    products: Literal["none", "fields", "histories"] = "histories"
    """Dot products of pairs of fields as further inputs of the tokeniser: none, of the features, or of features and pooled histories."""
    matches: bool = True
    """Counts of the events that share an id with the candidate, by column, action and window of time: inputs of the tokeniser."""
    age: Literal["bias", "rotary", "embedding", "none"] = "bias"
    """How an event's age enters, without entering keys and values: see docs/decisions."""
    layers: Count = 2
    block: Literal["heteromixer", "rankmixer", "transformer"] = "heteromixer"
    """How tokens interact in a block."""
    mix_heads: Count = 4
    """M: mix-tokens of a HeteroMixer block."""
    mix_rank: Count = 32
    """r, the inner width of the low-rank interaction."""
    mix_activation: Literal["relu", "gelu"] = "relu"
    ffn: Literal["per_token", "per_group", "shared"] = "per_token"
    ffn_activation: Literal["gelu", "swiglu"] = "gelu"
    ffn_expansion: Count = 4
    norm_position: Literal["post", "pre"] = "post"
    norm: Literal["layer", "rms"] = "layer"
    pooling: Literal["mean", "flatten"] = "mean"
    tower_hidden: Count = 64
    funnel: Literal["entire_space", "given_only"] = "entire_space"
    """How a label with ``given`` is trained: over all impressions, or on those where the given label is 1."""
    dropout: Share = 0.0
    history_events: Count = 50
    """The newest events of a request that DIN weighs, SIM of the real-time part; OneTrans's S-tokens that ask in its first layer."""
    search_events: Count = 50
    """How many events SIM's search finds in the global part."""
    search: str = "soft"
    """SIM's search: soft, by inner product, or hard, by an item feature that the events carry: its name."""

    @model_validator(mode="after")
    def _divisible(self) -> ModelSettings:
        for heads in ("attention_heads", "mix_heads"):
            if self.token_width % getattr(self, heads):
                raise ValueError(f"{heads}: expected a divisor of token_width {self.token_width}, got {getattr(self, heads)}")
        for history in ("global", "realtime"):
            if getattr(self, f"use_{history}") and not sum(self.queries(history)):
                raise ValueError(f"use_{history}: needs dynamic_queries or fixed_queries_{history}")
        if self.block == "rankmixer" and self.token_width < self.tokens:
            raise ValueError(f"block: rankmixer needs a token_width of at least the {self.tokens} tokens, got {self.token_width}")
        if self.age == "rotary" and (self.token_width // self.attention_heads) % 2:
            raise ValueError("age: rotary needs an even token_width / attention_heads")
        return self

    @property
    def tokens(self) -> int:
        """S, the number of tokens: dynamic and fixed interests of both histories, then the NS tokens."""
        return sum(self.queries("realtime")) + sum(self.queries("global")) + self.ns_tokens

    def queries(self, history: Literal["global", "realtime"]) -> tuple[int, int]:
        """How many dynamic and how many fixed queries read a history."""
        if not getattr(self, f"use_{history}"):
            return 0, 0
        dynamic: int = getattr(self, f"ns_tokens_{history}") if self.dynamic_queries else 0
        fixed: int = getattr(self, f"fixed_queries_{history}")
        return dynamic, fixed

    @property
    def ns_tokens(self) -> int:
        """S_G + S_R."""
        return self.ns_tokens_global + self.ns_tokens_realtime


class TrainSettings(_Part):
    """The training loop."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Count = 1
    batch_impressions: Count = 256
    """Impressions a step. Whole requests are drawn, so a step may hold a few more."""
    micro_batches: CountOrZero = 0
    """Parts of a batch, of whole users each, that are worked on one after another: less memory for the same step. Two parts give the
    same bytes in one process and in two, more the same within rounding. 0: one a process."""
    shuffle: Literal["requests", "users", "time"] = "requests"
    """A global shuffle of requests; users shuffled, each one's requests together; or the order in time."""
    share: bool = True
    """Off: every impression brings a copy of its user, history and items, as if nothing were shared; same weights, more work."""
    tables: Literal["auto", "plain", "fused"] = "auto"
    """How the embedding tables are updated: by FBGEMM's kernel (fused), by PyTorch (plain), or fused where it can be."""
    table_optimizer: Literal["adam", "rowwise_adagrad"] = "adam"
    """Both touch only the rows that a step looked up."""
    table_learning_rate: Rate = 3e-3
    table_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Decoupled, on the rows that a step looked up."""
    dense_optimizer: Literal["adamw", "muon"] = "muon"
    """Muon takes the linear maps and leaves the rest, columns of products too, to AdamW."""
    dense_learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's, on the matrices of the dense part."""
    warmup_steps: CountOrZero = 50
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Both learning rates end at this share of their peak (cosine)."""
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Gradient clipping of the dense part; 0: none."""
    average_decay: Share = 0.0
    """Score and keep the exponential moving average of the weights, of about 1 / (1 - decay) steps; 0: the weights themselves."""
    calibrate: bool = True
    """At the end fit a line through every task's logits on valid, so that probabilities there are right on average."""
    unknown_rate: Share = 0.005
    """Share of vocabulary ids replaced by the unknown row in training, so that this row is trained."""
    loader_workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Threads that make batches ahead; 0: the training thread makes each when it is wanted. The batches are the same."""
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    """torch.compile for the mixer blocks; docs/performance.md says where it pays."""
    memory_budget_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Refuse to train where weights, optimiser state and a checkpoint's copy of them would need more in a process; 0: no limit."""
    device: str = "cpu"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of a CPU run; 0: OMP_NUM_THREADS where it is set, else all cores."""
    evaluate_every_steps: CountOrZero = 0
    """Score valid this often; 0: at each epoch's end."""
    patience: CountOrZero = 2
    """Stop after so many valid evaluations without a better loss, and keep the best weights; 0: never stop early."""
    checkpoint_every_steps: CountOrZero = 500
    keep_checkpoints: Count = 2
    save_in_background: bool = True
    """Go on training while a checkpoint is written, from a copy in memory."""
    log_every_steps: Count = 20
    tensorboard: bool = False


class BoostingSettings(_Part):
    """The trees of ``model.name: lightgbm``, which takes nothing else from ``train`` than seed, threads and calibrate."""

    rounds: Count = 1000
    """Trees a task, at most."""
    patience: CountOrZero = 30
    """Stop after so many trees without a better valid loss of the task; 0: never stop early."""
    learning_rate: Rate = 0.05
    leaves: Annotated[int, Field(ge=2, le=131_072)] = 31
    """Leaves of a tree, at most."""
    min_data_in_leaf: CountOrZero = 100
    feature_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the features that each tree draws to choose from."""


class Settings(_Part):
    """All settings of a run."""

    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    boosting: BoostingSettings = BoostingSettings()

    def to_yaml(self) -> str:
        """YAML text that :func:`build_settings` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, SettingsError)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise SettingsError(f"{path}: expected sections such as model and train, each with its settings")
    return content


def build_settings(
    *,
    model: str | None = None,
    size: str | None = None,
    seed: int | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Settings:
    """Defaults, then the size of ``config``, then ``config`` (a YAML file), then ``size``, ``model``, ``seed``, then ``overrides``
    (``"train.epochs=2"`` or ``{"train.epochs": 2}``).

    Raises SettingsError naming the setting (and the file).
    """
    parts: dict[str, dict[str, Any]] = {key: dict(part) for key, part in (_read(Path(config)) if config else {}).items()}
    origin = f"{config}: " if config else ""
    asked = [("model.name", model), ("model.size", size), ("train.seed", seed), *named_overrides(overrides).items()]
    if any(key == "model.size" and value is not None for key, value in asked):
        for name in SIZES["tiny"]:  # a size that is asked for replaces the dimensions that the file spells out
            parts.get("model", {}).pop(name, None)
    for key, value in asked:
        if value is None:
            continue
        section, _, name = key.partition(".")
        if not name:
            raise SettingsError(f"{key}: expected section.setting, for instance train.epochs=2")
        parts.setdefault(section, {})[name] = value
    chosen = parts.get("model", {}).get("size", ModelSettings.model_fields["size"].default)
    if not isinstance(chosen, str) or chosen not in SIZES:
        raise SettingsError(f"model.size: unknown size {chosen!r}; known: {', '.join(SIZES)}")
    parts["model"] = {**SIZES[chosen], **parts.get("model", {})}
    try:
        return Settings.model_validate(parts)
    except ValidationError as error:
        raise SettingsError(f"{origin}{first_problem(error)}") from error


def named_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Settings as ``--set`` or a mapping gives them, by ``section.name``. Raises SettingsError."""
    return dict(overrides.items() if isinstance(overrides, Mapping) else map(_pair, overrides))


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {text}: expected section.setting=value, for instance train.epochs=2")
    return key.strip(), parse_yaml(_as_float(value.strip()), f"--set {text}: cannot read the value", SettingsError)


def _as_float(value: str) -> str:
    """YAML takes 1e-3 for text; a person means a number."""
    try:
        return repr(float(value)) if "e" in value.lower() else value
    except ValueError:
        return value
