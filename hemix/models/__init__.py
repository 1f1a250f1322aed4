"""Models: from a RequestBatch to logits. A file each, found by name in `hemix.models.registry`.

A model sees a batch, the InputSpec and its own Config; no file, no schema, no trainer.
"""

from __future__ import annotations

from hemix.models.base import ModelConfig, NeuralConfig, Ranker, SizedConfig
from hemix.models.build import build_model, build_predictor, count_parameters, is_neural
from hemix.models.predictor import Predictor
from hemix.models.registry import find_model, import_files, model_names, register_model

__all__ = [
    "ModelConfig",
    "NeuralConfig",
    "Predictor",
    "Ranker",
    "SizedConfig",
    "build_model",
    "build_predictor",
    "count_parameters",
    "find_model",
    "import_files",
    "is_neural",
    "model_names",
    "register_model",
]
