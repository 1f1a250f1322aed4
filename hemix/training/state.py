"""The state of training: everything that a checkpoint saves and a resume restores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from hemix.data.dataset import Dataset
from hemix.models import Ranker
from hemix.training.checkpoint import WEIGHT, Checkpoint, Snapshot
from hemix.training.meters import Meters
from hemix.training.optimizers import Optimizers
from hemix.training.position import Position

__all__ = ["TrainState"]


@dataclass(kw_only=True)
class TrainState:
    """Weights, optimisers, meters and the position in the data.

    It has no random state: random numbers follow from the seed, the step and the slot.
    """

    model: Ranker
    optimizers: Optimizers
    meters: Meters = field(default_factory=Meters)
    position: Position = field(default_factory=Position)

    def snapshot(self, data: Dataset) -> Snapshot:
        """Collect the state for a checkpoint; the tensors are not copied.

        Args:
            data: The dataset that the run trains on.
        """
        return Snapshot(
            dense=self.model.dense_tensors(),
            rows={WEIGHT: self.model.tables.weight, **self.optimizers.row_tensors()},
            optimizer={**self.optimizers.tensors(), **self.meters.tensors()},
            state={
                "position": asdict(self.position),
                "data": data.file_hashes(),
                "fingerprint": data.schema.fingerprint(),
                "schema": data.schema.model_dump(mode="json"),
            },
            total_rows=self.model.tables.rows,
        )

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Restore the model alone. Raises RunError naming a damaged file."""
        checkpoint.load_model(self.model)

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore everything. Raises RunError naming a damaged file."""
        checkpoint.load_model(self.model)
        tensors, rows = checkpoint.load_optimizer(), self.optimizers.row_tensors()
        checkpoint.load_rows(rows, *self.model.tables.owned)
        self.position = Position(**checkpoint.state["position"])
        self.optimizers.load({**tensors, **rows})
        self.meters.load(tensors)
