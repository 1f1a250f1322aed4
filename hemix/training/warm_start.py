"""Warm start: a run's weights for another dataset of the same schema.

Rows of the tables follow their values to the ids of the new vocabularies. A new value begins with
the row of unknown values, so the scores do not change before the first step. The new train rows are
scored before they are trained on (progressive validation).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.data.keys import KeyMap
from hemix.data.spec import FIRST, UNKNOWN
from hemix.data.split import Split
from hemix.distributed import DistributedContext
from hemix.errors import RunError, UsageError
from hemix.evaluation.metrics import UndefinedMetric, auc, logloss, ne, pcoc
from hemix.models import Predictor, Ranker
from hemix.nn.heads import probabilities
from hemix.runs.folder import Run
from hemix.settings import ResolvedSettings, Settings
from hemix.training.validate import scored_rows
from hemix.validation import first_difference

__all__ = ["progressive_validation", "remap_embedding_rows"]


def remap_embedding_rows(run: Run, data: Dataset, settings: Settings) -> dict[str, Tensor]:
    """Make a state dict for a model of another dataset's spec.

    Args:
        run: The run whose weights are taken.
        data: The dataset of the new model.
        settings: Of the new model, which must be the run's.

    Raises:
        UsageError: For other settings of the model.
        RunError: Naming what of the schema, or which buckets, differ.
    """
    _check_model_and_schema(run, data, settings)
    assert isinstance(run.model, Ranker), "settings of a neural model"
    state = dict(run.model.state_dict())
    if run.spec == data.spec and run.info["encoders"] == data.manifest["encoders"]:
        return state
    old, new = Encoders.load(run.folder / "encoders"), Encoders.load(data.folder / "encoders")
    _check_learned_states(run, data, old, new)
    old_weights, weights = run.model.table_tensors(), []
    for table, rows in data.spec.tables.items():
        weight = old_weights[table]
        if table in new.vocabularies:
            source = _source_rows(old.vocabularies[table], new.vocabularies[table], rows)
            weight = weight.index_select(0, torch.from_numpy(source))
        weights.append(weight)
    return {**state, "tables.weight": torch.cat(weights)}


def _check_model_and_schema(run: Run, data: Dataset, settings: Settings) -> None:
    """Raise where the new model, or the schema of its data, is another one than the run's."""
    if run.settings.model != settings.model:
        ours, theirs = (
            config.model_dump(mode="json") for config in (settings.model, run.settings.model)
        )
        raise UsageError(
            f"--init-from {run.folder}: this run's model settings are not its own: "
            f"{first_difference(ours, theirs)}",
            field="--init-from",
            hint=f"--config {run.folder / 'settings.yaml'} takes those",
        )
    if run.schema.columns_fingerprint() != data.schema.columns_fingerprint():
        ours, theirs = (
            {k: v for k, v in s.model_dump(mode="json").items() if k != "split"}
            for s in (run.schema, data.schema)
        )
        where = first_difference(ours, theirs) or "which tables there are"
        raise RunError(
            f"{run.folder} was trained with another schema than {data.folder}: they differ in "
            f"{where}",
            code="other_schema",
        )


def _source_rows(old: KeyMap, new: KeyMap, rows: int) -> npt.NDArray[np.int64]:
    """int64 [rows]: the old row of every new row; UNKNOWN for a new value and for a row without a
    value.
    """
    source = np.full(rows, UNKNOWN, dtype=np.int64)
    source[:FIRST] = np.arange(FIRST)
    source[new.numbers] = old.look_up(new.keys, UNKNOWN)
    return source


def _check_learned_states(run: Run, data: Dataset, old: Encoders, new: Encoders) -> None:
    """Raise RunError where numbers, buckets or actions differ; only vocabularies may."""
    differing = old.changed_states(new)
    differing += ["history counts of actions"] if old.actions != new.actions else []
    if differing:
        raise RunError(
            f"--init-from {run.folder}: {differing[0]} was learned anew on {data.folder}, so that "
            "its buckets or numbers mean something else: "
            f"prepare the data with --init-from {run.folder}",
            field="--init-from",
        )


def progressive_validation(
    model: Predictor,
    split: Split,
    settings: ResolvedSettings,
    device: torch.device,
    distributed: DistributedContext | None = None,
) -> dict[str, dict[str, float | int | None]]:
    """Measure a model on rows that it has not been trained on.

    Args:
        model: The model, on ``device``.
        split: The rows.
        settings: Batch size, slots and precision.
        device: Where the model lies.
        distributed: The processes; None: this one alone.

    Returns:
        By task ``rows``, AUC, log loss, NE and PCOC; None for a metric that is not defined.
    """
    by_task: dict[str, list[Tensor]] = {task.name: [] for task in model.spec.tasks}
    for rows in scored_rows(model, split, settings, device, distributed):
        scores = probabilities(rows.logits_NT, model.spec)
        for index, task in enumerate(model.spec.tasks):
            columns = (rows.labels_NT[:, index], scores[task.name], rows.weights_NT[:, index])
            by_task[task.name].append(torch.stack([column.double().cpu() for column in columns], 1))
    return {name: _metrics(torch.cat(task_rows)) for name, task_rows in by_task.items()}


def _metrics(rows: Tensor) -> dict[str, float | int | None]:
    """Measure the known of rows [n, 3] of label, probability and weight."""
    labels, scores, weights = rows.numpy().T
    known = weights > 0
    values = {
        metric.__name__: metric(labels[known], scores[known], weights[known])
        for metric in (auc, logloss, ne, pcoc)
    }
    return {
        "rows": int(known.sum()),
        **{n: None if isinstance(v, UndefinedMetric) else v for n, v in values.items()},
    }
