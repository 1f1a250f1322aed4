"""Settings of training and of boosted trees, and the parsing of settings in files and flags.

A model's settings are the ``Config`` in its own file; `hemix.settings` combines the sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from hemix.errors import SettingsError
from hemix.validation import InvalidKey
from hemix.yaml_files import parse_yaml, read_yaml

__all__ = [
    "BoostingSettings",
    "Count",
    "CountOrZero",
    "Fraction",
    "Rate",
    "ResolvedTrainSettings",
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


def _or_auto(number: Any, expected: str) -> Discriminator:
    """Tell numbers from ``auto``, so that an error names the setting and not a union's member."""
    adapter = TypeAdapter(number)

    def kind(value: Any) -> str | None:
        if value == "auto":
            return "auto"
        try:
            adapter.validate_python(value)
        except ValidationError:
            return None
        return "number"

    return Discriminator(
        kind,
        custom_error_type="number_or_auto",
        custom_error_message=f"Input should be {expected} or auto",
    )


_Auto = Annotated[Literal["auto"], Tag("auto")]
AutoCount = Annotated[
    Annotated[Count, Tag("number")] | _Auto, _or_auto(Count, "a whole number from 1")
]
AutoCountOrZero = Annotated[
    Annotated[CountOrZero, Tag("number")] | _Auto, _or_auto(CountOrZero, "a whole number from 0")
]

BATCH_SIZES, LEAST_STEPS = (256, 128, 64, 32), 1000
"""``train.batch_size: auto`` is the first of these sizes with so many steps an epoch, else the last
(docs/project/decisions/0022-steps-by-rows.md)"""
_WARMUP_FRACTION, _MOST_WARMUP_STEPS = 0.1, 50


class Section(BaseModel):
    """A section of the settings: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSettings(Section):
    """The training loop."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Count = 1
    batch_size: AutoCount = "auto"
    """Impressions a step. Whole requests are drawn, so a step may hold a few more. auto: by the
    number of train rows, like the other settings with auto (:meth:`resolved`).
    """
    gradient_accumulation: Count = 1
    """Slots of a step. Each slot owns some partitions of the dataset, and each process computes
    some slots, so it is a multiple of the number of processes and at most the number of partitions.
    More slots need less memory for the same batch size.
    """
    shuffle: Literal["requests", "users", "time"] = "requests"
    """Requests in a random order; users in a random order, with the requests of a user together;
    or requests in the order of their time.
    """
    ranking_loss: Literal["none", "pairwise", "listwise"] = "none"
    """A loss within each group beside log loss: over its pairs of a positive and a negative
    (RankNet, BPR), or a softmax over its rows (ListNet). Log loss keeps the calibration.
    """
    ranking_group: Literal["request", "user"] = "request"
    """Whose impressions in a batch are ranked against each other. Users need ``shuffle: users`` and
    histories that do not tell the group's outcomes (decision 24).
    """
    ranking_weight: Rate = 1.0
    """Factor of the ranking loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Labels are moved towards 1/2 by this fraction of the way, in the log loss of training."""
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
    bias_learning_rate: Rate = 1e-2
    """Of the logits by position (``roles.bias``), which start at the train log-odds."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's, on the matrices of the dense part."""
    warmup_steps: AutoCountOrZero = "auto"
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
    cold_user_rate: Fraction = 0.02
    """Fraction of requests trained as an unknown user's: half of them without the user's features
    and history, a quarter without either.
    """
    cold_item_rate: Fraction = 0.01
    """Fraction of impressions trained as an unknown item's."""
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

    @model_validator(mode="after")
    def _batches_have_pairs(self) -> TrainSettings:
        if self.ranking_loss != "none" and self.ranking_group == "user" and self.shuffle != "users":
            raise InvalidKey(
                "shuffle",
                f"expected users, because train.ranking_loss={self.ranking_loss} compares "
                f"impressions of one user and batches of {self.shuffle} hardly hold two; or set "
                f"train.ranking_group=request; got {self.shuffle!r}",
            )
        return self

    def automatic(self) -> tuple[str, ...]:
        """Return the names of the settings that :meth:`resolved` chooses."""
        names = ("batch_size", "warmup_steps")
        return tuple(name for name in names if getattr(self, name) == "auto")

    def resolved(
        self, train_rows: int, parent: TrainSettings | None = None
    ) -> ResolvedTrainSettings:
        """Replace every ``auto`` by a number, the same for every neural model.

        Args:
            train_rows: Impressions of the train split.
            parent: Settings of the run whose weights this one begins with; its batch size takes
                the place of the rule's.
        """
        if self.batch_size != "auto":
            batch_size = self.batch_size
        elif parent is not None:
            batch_size = parent.resolved(train_rows).batch_size
        else:
            enough = (size for size in BATCH_SIZES if train_rows >= LEAST_STEPS * size)
            batch_size = next(enough, BATCH_SIZES[-1])
        steps = self.epochs * -(-train_rows // batch_size)
        warmup = self.warmup_steps
        if warmup == "auto":
            warmup = min(_MOST_WARMUP_STEPS, int(_WARMUP_FRACTION * steps))
        chosen = {"batch_size": batch_size, "warmup_steps": warmup}
        return ResolvedTrainSettings.model_validate({**self.model_dump(), **chosen})


class ResolvedTrainSettings(TrainSettings):
    """The same without ``auto``: what a run trains with, and what its settings.yaml holds."""

    batch_size: Count
    warmup_steps: CountOrZero


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
