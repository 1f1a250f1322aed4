"""A run's weights for another dataset of the same schema: rows of tables follow their values,
whatever ids those have now.

A value that the run did not know begins with the row that the run gave to unknown values, so that
nothing is scored differently before the first step. Then the new rows are scored before they are
trained on: progressive validation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hemix.data.dataset import Dataset, Split
from hemix.data.encode import Encoders
from hemix.data.keys import KeyMap
from hemix.data.spec import FIRST, UNKNOWN
from hemix.errors import RunError, UsageError
from hemix.evaluation.metrics import UndefinedMetric, auc, logloss, ne, pcoc
from hemix.models import Predictor, Ranker
from hemix.nn.heads import probabilities
from hemix.runs.folder import Run
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.validate import logits_of
from hemix.validation import first_difference

__all__ = ["progressive", "remap_embedding_rows"]


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
    if run.settings.model != settings.model:
        ours, theirs = (
            part.model_dump(mode="json") for part in (settings.model, run.settings.model)
        )
        raise UsageError(
            f"--from {run.folder}: this run's model settings are not its own: "
            f"{first_difference(ours, theirs)}; "
            f"--config {run.folder / 'settings.yaml'} takes those"
        )
    if run.schema.columns_fingerprint() != data.schema.columns_fingerprint():
        ours, theirs = (
            {k: v for k, v in s.model_dump(mode="json").items() if k != "split"}
            for s in (run.schema, data.schema)
        )
        where = first_difference(ours, theirs) or "which tables there are"
        raise RunError(
            f"{run.folder} was trained with another schema than {data.folder}: they differ in "
            f"{where}"
        )
    assert isinstance(run.model, Ranker), "settings of a neural model"
    state = dict(run.model.state_dict())
    if run.spec == data.spec and run.info["encoders"] == data.manifest["encoders"]:
        return state
    old, new = Encoders.load(run.folder / "encoders"), Encoders.load(data.folder / "encoders")
    _check_meanings(run, data, old, new)
    before, pieces = run.model.table_tensors(), []
    for table, rows in data.spec.tables.items():
        weight = before[table]
        if table not in new.vocabularies:
            pieces.append(weight)
            continue
        source = _source_rows(old.vocabularies[table], new.vocabularies[table], rows)
        pieces.append(weight.index_select(0, torch.from_numpy(source)))
    return {**state, "tables.weight": torch.cat(pieces)}


def _source_rows(old: KeyMap, new: KeyMap, rows: int) -> np.ndarray:
    """int64 [rows]: the old row of every new one; the unknown row's for a value that was not known,
    or a row without a value.
    """
    source = np.full(rows, UNKNOWN, dtype=np.int64)
    source[:FIRST] = np.arange(FIRST)
    source[new.numbers] = old.look_up(new.keys, UNKNOWN)
    return source


def _check_meanings(run: Run, data: Dataset, old: Encoders, new: Encoders) -> None:
    """Numbers, buckets and actions must mean what they meant; only vocabularies may differ."""
    differ = old.changed_states(new)
    differ += ["history counts of actions"] if old.actions != new.actions else []
    if differ:
        raise RunError(
            f"--from {run.folder}: {differ[0]} was learned anew on {data.folder}, so that its "
            "buckets or numbers mean something else: "
            f"prepare the data with --from {run.folder}"
        )


def progressive(
    model: Predictor,
    split: Split,
    settings: Settings,
    device: torch.device,
    team: Team | None = None,
) -> dict[str, dict[str, float | int | None]]:
    """AUC, log loss, NE and PCOC by task of rows that the model has not been trained on; None for
    what one class does not define.
    """
    parts: dict[str, list[Tensor]] = {task.name: [] for task in model.spec.tasks}
    for batch, logits in logits_of(model, split, settings, device, team):
        assert batch.labels is not None and batch.weights is not None
        scores = probabilities(logits, model.spec)
        for index, task in enumerate(model.spec.tasks):
            columns = (batch.labels[:, index], scores[task.name], batch.weights[:, index])
            parts[task.name].append(torch.stack([column.double().cpu() for column in columns], 1))
    found = dict[str, dict[str, float | int | None]]()
    for name, rows in parts.items():
        labels, scores_N, weights = torch.cat(rows).numpy().T
        known = weights > 0
        row = {
            measure.__name__: measure(labels[known], scores_N[known], weights[known])
            for measure in (auc, logloss, ne, pcoc)
        }
        found[name] = {
            "rows": int(known.sum()),
            **{n: None if isinstance(v, UndefinedMetric) else v for n, v in row.items()},
        }
    return found
