"""The content of metrics.json after training."""

from __future__ import annotations

from typing import Any

from hemix.evaluation.notes import Note, training_notes
from hemix.models import count_parameters
from hemix.training.job import TrainingJob
from hemix.training.position import Position

__all__ = ["training_metrics"]


def training_metrics(
    job: TrainingJob,
    position: Position,
    label_notes: list[Note],
    calibration: dict[str, dict[str, Any]] | None,
    *,
    peak_bytes: int,
) -> dict[str, Any]:
    """Return metrics.json as it is before any split is evaluated.

    Args:
        job: What was trained.
        position: Where the run ended.
        label_notes: Notes on labels of which nothing can be learned.
        calibration: Slope and shift by task; None where the run does not calibrate.
        peak_bytes: Most memory that the run held.
    """
    dense, embedding = count_parameters(job.data.spec, job.settings.model)
    seconds = position.seconds
    progressive = {} if position.progressive is None else {"progressive": position.progressive}
    return {
        "schema_version": 1,
        "model": job.settings.model.name,
        "dense_parameters": dense,
        "embedding_parameters": embedding,
        "train_seconds": round(seconds, 3),
        "impressions_per_second": round(position.impressions / max(seconds, 1e-9), 1),
        "peak_bytes": peak_bytes,
        "steps": position.step,
        "calibration": calibration,
        "notes": training_notes(label_notes, position.valid_notes, calibration),
        **progressive,
        "split": {},
    }
