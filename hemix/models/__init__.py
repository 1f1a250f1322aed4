"""The models: from a RequestBatch to logits.

``build_model`` knows every model by name. A model sees a batch, the InputSpec and the ModelSettings; no file, no schema,
no trainer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hemix.config import ModelSettings
from hemix.data.spec import InputSpec
from hemix.errors import SettingsError
from hemix.models.base import Ranker
from hemix.models.dcnv2 import DCNv2
from hemix.models.din import DIN
from hemix.models.dlrm import DLRM
from hemix.models.hemix import HeMix
from hemix.models.lightgbm import LightGBM
from hemix.models.onetrans import OneTrans
from hemix.models.rankmixer import RankMixer
from hemix.models.sim import SIM
from hemix.models.wukong import Wukong
from hemix.nn.heads import loss, probabilities
from hemix.nn.initialise import initialise
from hemix.nn.inputs import Inputs
from hemix.nn.sharded import ShardedTables
from hemix.team import Team

__all__ = ["MODELS", "Inputs", "LightGBM", "Ranker", "build_model", "count_parameters", "loss", "model_class", "probabilities"]

MODELS: dict[str, type[Ranker]] = {
    "hemix": HeMix,
    "dlrm": DLRM,
    "dcnv2": DCNv2,
    "wukong": Wukong,
    "rankmixer": RankMixer,
    "lightgbm": LightGBM,
    "din": DIN,
    "sim": SIM,
    "onetrans": OneTrans,
}
"""Every model by its name."""


def model_class(name: str) -> type[Ranker]:
    """The class of a model. Raises SettingsError listing the known names."""
    if name not in MODELS:
        raise SettingsError(f"model.name: unknown model {name!r}; known: {', '.join(MODELS)}")
    return MODELS[name]


def build_model(spec: InputSpec, settings: ModelSettings, seed: int, team: Team | None = None) -> Ranker:
    """A model with fresh weights, on the CPU in fp32; of a ``team`` with this process's rows of the tables alone. Raises SettingsError
    naming an unknown model."""
    with _without_values():
        model = model_class(settings.name)(spec, settings)
        if team is not None:
            model.tables = ShardedTables(spec.tables, settings.embedding_size, team)
    model.to_empty(device="cpu")
    initialise(model, settings, seed)
    return model


def count_parameters(spec: InputSpec, settings: ModelSettings) -> tuple[int, int]:
    """(dense parameters, embedding parameters), counted without allocating them."""
    with _without_values():
        model = model_class(settings.name)(spec, settings)
    return sum(p.numel() for p in model.dense_parameters()), model.tables.weight.numel()


@contextmanager
def _without_values() -> Iterator[None]:
    """Models made inside have shapes alone: PyTorch's own first values would cost time and numbers
    of the global generator."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # a map without inputs
        yield
