"""HeMix: train, compare, scale and serve a CTR/CVR ranking model over long and real-time behaviour
histories.

The functions here mirror the commands::

    import hemix

    hemix.simulate("logs", users=500, days=5, seed=0)
    hemix.prepare("logs", "data")
    hemix.train("data", "run")
    hemix.evaluate("run", "data")
    hemix.Run.load("run").predict("data")

Names are loaded on first use, so that ``import hemix`` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemix.api import (
        Dataset,
        Run,
        ablate,
        compare,
        demo,
        doctor,
        evaluate,
        experiment,
        export,
        import_logs,
        import_models,
        predict,
        prepare,
        scale,
        serve,
        simulate,
        store_load,
        train,
    )
    from hemix.client import Client
    from hemix.data.batch import RequestBatch
    from hemix.errors import HemixError
    from hemix.models.registry import register_model
    from hemix.schema import Schema
    from hemix.serving.config import ServeConfig

__all__ = [
    "Client",
    "Dataset",
    "HemixError",
    "RequestBatch",
    "Run",
    "Schema",
    "ServeConfig",
    "ablate",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "experiment",
    "export",
    "import_logs",
    "import_models",
    "predict",
    "prepare",
    "register_model",
    "scale",
    "serve",
    "simulate",
    "store_load",
    "train",
]

_HOMES = {
    "Client": "hemix.client",
    "HemixError": "hemix.errors",
    "RequestBatch": "hemix.data.batch",
    "Schema": "hemix.schema",
    "ServeConfig": "hemix.serving.config",
    "register_model": "hemix.models.registry",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hemix' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "hemix.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
