"""The public surface, pinned: a change here is a change for everyone who imports hemix.

And what is imported when.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import hemix
from hemix import errors

SURFACE = [
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


def python(code: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


LOADED = (
    "; print(sorted(m for m in ('torch', 'pandas', 'matplotlib', 'pyarrow') if m in sys.modules))"
)


def test_the_surface_is_what_it_was() -> None:
    assert sorted(hemix.__all__) == SURFACE
    assert dir(hemix) == sorted([*SURFACE, "__version__"])
    for name in SURFACE:
        assert getattr(hemix, name).__name__ == name
        assert getattr(hemix, name).__doc__


@pytest.mark.parametrize("name", SURFACE)
def test_no_module_hides_a_public_name(name: str) -> None:
    """Importing a module ``hemix.train`` would put itself in the place of the function of that
    name.
    """
    assert importlib.util.find_spec(f"hemix.{name}") is None


def test_the_version_is_that_of_the_package() -> None:
    assert hemix.__version__ == version("hemix")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError) as missing:
        hemix.fit  # noqa: B018
    assert missing.value.name == "fit"
    with pytest.raises(ImportError) as caught:
        from hemix import fit  # noqa: F401
    assert caught.value.name == "hemix"


def test_the_exceptions_are_one_tree() -> None:
    assert sorted(errors.__all__) == [
        "DataError",
        "HemixError",
        "Interrupted",
        "MissingExtra",
        "ProcessLost",
        "RequestError",
        "RunError",
        "SchemaError",
        "ServerError",
        "SettingsError",
        "SparkError",
        "StorageError",
        "StoreError",
        "UnknownVersion",
        "UsageError",
    ]
    assert all(issubclass(getattr(errors, name), errors.HemixError) for name in errors.__all__)
    assert not issubclass(errors.HemixError, ValueError | OSError)


def test_importing_hemix_loads_nothing_heavy() -> None:
    assert python("import sys, hemix" + LOADED) == "[]"
    assert python("import sys, hemix; hemix.HemixError; hemix.Schema" + LOADED) == "[]"


COMMAND = """
import sys
from hemix.cli import main
sys.argv = ['hemix', *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["prepare", "-h"]], ids=" ".join)
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    assert python(COMMAND + LOADED.lstrip("; "), *args) == "[]"


def test_preparing_and_simulating_load_no_torch(planted_logs: Path, tmp_path: Path) -> None:
    torch = "; print('torch' in sys.modules)"
    assert (
        python(
            "import sys, hemix; hemix.prepare(sys.argv[1], sys.argv[2])" + torch,
            planted_logs,
            tmp_path / "data",
        )
        == "False"
    )
    assert (tmp_path / "data" / "manifest.json").exists()
    assert (
        python(
            "import sys, hemix; hemix.simulate(sys.argv[1], users=5, days=3)" + torch,
            tmp_path / "city",
        )
        == "False"
    )
    assert (
        python(COMMAND + torch.lstrip("; "), "prepare", planted_logs, "--out", tmp_path / "again")
        == "False"
    )
