"""The commands as functions: paths in, paths and figures out.

The command line parses, calls these and prints. Heavy modules are imported where they are used, so
that ``hemix simulate`` and ``hemix prepare`` never load torch.
"""

from hemix.api.data import PrepareOptions, derive, import_logs, prepare, simulate
from hemix.api.schemas import check, init, json_schema
from hemix.api.serving import log_export, log_replay, serve, store_load
from hemix.api.studies import ablate, compare, experiment, scale, suite
from hemix.api.tools import bench, demo, doctor
from hemix.api.training import (
    ScoreOptions,
    evaluate,
    export,
    import_models,
    predict,
    quick_search,
    score,
    train,
)

__all__ = [
    "PrepareOptions",
    "ScoreOptions",
    "ablate",
    "bench",
    "check",
    "compare",
    "demo",
    "derive",
    "doctor",
    "evaluate",
    "experiment",
    "export",
    "import_logs",
    "import_models",
    "init",
    "json_schema",
    "log_export",
    "log_replay",
    "predict",
    "prepare",
    "quick_search",
    "scale",
    "score",
    "serve",
    "simulate",
    "store_load",
    "suite",
    "train",
]
