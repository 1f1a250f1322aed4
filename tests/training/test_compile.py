"""The option train.compile: the same training, or one clear line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hemix import api
from hemix.errors import SettingsError
from hemix.runs import Run
from tests.refusals import raises

FEW = {"train.epochs": 1, "train.batch_size": 256, "train.threads": 1, "model.layers": 1}


def test_a_missing_compiler_is_refused_before_any_step(
    planted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    with raises(SettingsError, "No working C++ compiler found", field="train.compile"):
        api.train(planted_data, tmp_path / "run", settings={**FEW, "train.compile": True})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_training_ends_where_the_other_does(planted_data: Path, tmp_path: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        api.train(planted_data, tmp_path / name, settings={**FEW, "train.compile": compiled})
    plain, compiled = (
        Run.load(tmp_path / name).predict(planted_data)["click"].to_numpy()
        for name in ("plain", "compiled")
    )
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(plain), atol=1e-3, rtol=0)
