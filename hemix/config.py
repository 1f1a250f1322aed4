"""Settings of training and of boosted trees, and the parsing of settings in files and flags.

A model's settings are the ``Config`` in its own file; `hemix.settings` combines the sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hemix.errors import SettingsError
from hemix.yaml_files import parse_yaml, read_yaml

__all__ = [
    "BoostingSettings",
    "Count",
    "CountOrZero",
    "Fraction",
    "Rate",
    "Section",
    "TrainSettings",
    "named_overrides",
    "read_sections",
]

_MAX_COUNT = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of the settings: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSettings(Section):
    """The training loop."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Count = 1
    batch_size: Count = 256
    """Impressions a step. Whole requests are drawn, so a step may hold a few more."""
    gradient_accumulation: Count = 1
    """Slots of a step. Each slot owns some partitions of the dataset, and each process computes
    some slots, so it is a multiple of the number of processes and at most the number of partitions.
    More slots need less memory for the same batch size.
    """
    shuffle: Literal["requests", "users", "time"] = "requests"
    """Requests in a random order; users in a random order, with the requests of a user together;
    or requests in the order of their time.
    """
    deduplicate: bool = True
    """Encode a user, a history and an item once for all impressions of a microbatch. Off: every
    impression has its own copy; same weights, more work.
    """
    embedding_backend: Literal["auto", "torch", "fbgemm"] = "auto"
    """Who updates the embedding tables: PyTorch (torch), FBGEMM's fused kernel (fbgemm), or FBGEMM
    where it can (auto).
    """
    table_optimizer: Literal["adam", "rowwise_adagrad"] = "adam"
    """Both touch only the rows that a step looked up."""
    table_learning_rate: Rate = 3e-3
    table_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Decoupled, on the rows that a step looked up."""
    dense_optimizer: Literal["adamw", "muon"] = "muon"
    """Muon updates the linear maps; AdamW updates the rest, columns of products included."""
    dense_learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's, on the matrices of the dense part."""
    warmup_steps: CountOrZero = 50
    min_lr_factor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Both learning rates end (cosine) at their peak times this factor."""
    max_grad_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Gradient clipping of the dense part; 0: none."""
    ema_decay: Fraction = 0.0
    """Decay of the exponential moving average (EMA) of the weights, which is scored and saved. It
    spans about 1 / (1 - decay) steps. 0: the weights themselves.
    """
    calibrate: bool = True
    """At the end fit Platt scaling of every task's logits on valid, so that probabilities there are
    right on average.
    """
    oov_dropout: Fraction = 0.005
    """Fraction of vocabulary ids replaced by the unknown (out-of-vocabulary) row in training, so
    that this row is trained.
    """
    loader_workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Threads that make batches ahead; 0: the training thread makes each batch. The batches are the
    same.
    """
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    """torch.compile for the mixer blocks; docs/project/performance.md says where it pays."""
    memory_budget_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Refuse to train where a process needs more for weights, optimiser state and a checkpoint's
    copy of them; 0: no limit.
    """
    device: str = "cpu"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of a CPU run; 0: OMP_NUM_THREADS where it is set, else all cores."""
    evaluate_every_steps: CountOrZero = 0
    """Steps between evaluations on valid; 0: evaluate at the end of each epoch."""
    patience: CountOrZero = 2
    """Stop after so many evaluations without a better valid loss, and save the best weights; 0:
    never stop early.
    """
    checkpoint_every_steps: CountOrZero = 500
    keep_checkpoints: Count = 2
    async_checkpoint: bool = True
    """Keep training while a checkpoint is written from a copy in memory."""
    log_every_steps: Count = 20
    tensorboard: bool = False


class BoostingSettings(Section):
    """The trees of ``model.name: lightgbm``. Of ``train`` they use seed, threads, calibrate,
    batch_size and loader_workers.
    """

    rounds: Count = 5000
    """Trees a task, at most; early stopping is what ends them."""
    patience: CountOrZero = 100
    """Stop after so many trees without a better valid loss of the task; 0: never stop early."""
    learning_rate: Rate = 0.05
    leaves: Annotated[int, Field(ge=2, le=131_072)] = 31
    """Leaves of a tree, at most."""
    min_data_in_leaf: CountOrZero = 100
    feature_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the features that each tree draws to choose from."""


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """Read a YAML file of settings by section. Raises SettingsError naming the file."""
    content = read_yaml(path, SettingsError)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise SettingsError(
            f"{path}: expected sections such as model and train, each with its settings",
            field=str(path),
        )
    return content


def named_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides by ``section.name``. Raises SettingsError for a text that is no override."""
    return dict(overrides.items() if isinstance(overrides, Mapping) else map(_pair, overrides))


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(
            f"--set {text}: expected section.setting=value, for instance train.epochs=2",
            field="--set",
        )
    source = f"--set {text}: cannot read the value"
    return key.strip(), parse_yaml(_as_float(value.strip()), source, SettingsError, field="--set")


def _as_float(value: str) -> str:
    """Write 1e-3 as 0.001, because YAML reads the first as text."""
    try:
        return repr(float(value)) if "e" in value.lower() else value
    except ValueError:
        return value
