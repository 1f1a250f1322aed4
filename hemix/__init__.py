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
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemix.api import (
        PrepareOptions,
        ScoreOptions,
        ablate,
        bench,
        check,
        compare,
        demo,
        derive,
        doctor,
        evaluate,
        experiment,
        export,
        import_logs,
        import_models,
        init,
        json_schema,
        log_export,
        log_replay,
        predict,
        prepare,
        quick_search,
        scale,
        score,
        serve,
        simulate,
        store_load,
        suite,
        train,
    )
    from hemix.client import Client
    from hemix.data.batch import RequestBatch
    from hemix.data.dataset import Dataset
    from hemix.errors import HemixError
    from hemix.lab.abtest.plan import ExperimentPlan
    from hemix.lab.benchmarks.options import BenchOptions
    from hemix.lab.studies.ablate import AblateConfig
    from hemix.lab.studies.compare import CompareConfig
    from hemix.lab.studies.options import StudyOptions
    from hemix.lab.studies.scale import ScaleConfig
    from hemix.lab.studies.suite import SuiteConfig
    from hemix.models.registry import register_model
    from hemix.runs.folder import Run
    from hemix.schema import Schema
    from hemix.serving.config import ServeConfig
    from hemix.settings import Settings, build_settings
    from hemix.training.callbacks import Callback, function_callback

    __version__: str

__all__ = [
    "AblateConfig",
    "BenchOptions",
    "Callback",
    "Client",
    "CompareConfig",
    "Dataset",
    "ExperimentPlan",
    "HemixError",
    "PrepareOptions",
    "RequestBatch",
    "Run",
    "ScaleConfig",
    "Schema",
    "ScoreOptions",
    "ServeConfig",
    "Settings",
    "StudyOptions",
    "SuiteConfig",
    "ablate",
    "bench",
    "build_settings",
    "check",
    "compare",
    "demo",
    "derive",
    "doctor",
    "evaluate",
    "experiment",
    "export",
    "function_callback",
    "import_logs",
    "import_models",
    "init",
    "json_schema",
    "log_export",
    "log_replay",
    "predict",
    "prepare",
    "quick_search",
    "register_model",
    "scale",
    "score",
    "serve",
    "simulate",
    "store_load",
    "suite",
    "train",
]

_MODULES = {
    "AblateConfig": "hemix.lab.studies.ablate",
    "BenchOptions": "hemix.lab.benchmarks.options",
    "Callback": "hemix.training.callbacks",
    "Client": "hemix.client",
    "CompareConfig": "hemix.lab.studies.compare",
    "Dataset": "hemix.data.dataset",
    "ExperimentPlan": "hemix.lab.abtest.plan",
    "HemixError": "hemix.errors",
    "PrepareOptions": "hemix.api.data",
    "RequestBatch": "hemix.data.batch",
    "Run": "hemix.runs.folder",
    "ScaleConfig": "hemix.lab.studies.scale",
    "Schema": "hemix.schema",
    "ScoreOptions": "hemix.api.training",
    "ServeConfig": "hemix.serving.config",
    "Settings": "hemix.settings",
    "StudyOptions": "hemix.lab.studies.options",
    "SuiteConfig": "hemix.lab.studies.suite",
    "build_settings": "hemix.settings",
    "function_callback": "hemix.training.callbacks",
    "register_model": "hemix.models.registry",
}
"""Modules of the names that are not functions of :mod:`hemix.api`."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("hemix")
    if name not in __all__:
        raise AttributeError(f"module 'hemix' has no attribute {name!r}", name=name)
    return getattr(import_module(_MODULES.get(name, "hemix.api")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
