"""Options of the training loop: each resumes to the same bytes, and averaging watches without
disturbing.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hemix import api
from hemix.errors import Interrupted
from hemix.runs.weights import DENSE_FILE, TABLES_FILE
from hemix.training.callbacks import function_callback
from tests.planted import SMALL_MODEL

QUICK = {
    "train.epochs": 2,
    "train.batch_size": 128,
    "train.warmup_steps": 2,
    "train.threads": 1,
    "train.patience": 0,
    **SMALL_MODEL,
}

OPTIONS: dict[str, dict[str, Any]] = {
    "average": {"train.ema_decay": 0.9},
    "average and best": {
        "train.ema_decay": 0.9,
        "train.patience": 2,
        "train.evaluate_every_steps": 5,
    },
    "adamw": {"train.dense_optimizer": "adamw", "train.weight_decay": 0.01},
    "muon": {"train.dense_optimizer": "muon", "train.weight_decay": 0.01},
    "table weight decay": {"train.table_weight_decay": 0.5},
    "ranking loss": {
        "train.shuffle": "users",
        "train.ranking_loss": "pairwise",
        "train.ranking_group": "user",
        "train.label_smoothing": 0.1,
        "train.gradient_accumulation": 2,
    },
    "all with Adagrad": {
        "train.ema_decay": 0.9,
        "train.dense_optimizer": "muon",
        "train.table_weight_decay": 0.5,
        "train.table_optimizer": "rowwise_adagrad",
    },
}


def weights(run: Path) -> tuple[bytes, bytes]:
    return (run / DENSE_FILE).read_bytes(), (run / TABLES_FILE).read_bytes()


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(planted_data, tmp_path_factory.mktemp("plain") / "run", settings=QUICK)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.usefixtures("deterministic")
def test_resumes_to_the_same_bytes_and_changes_the_weights(
    planted_data: Path, plain: Path, tmp_path: Path, option: str
) -> None:
    settings = {**QUICK, **OPTIONS[option]}
    api.train(planted_data, tmp_path / "whole", settings=settings)

    def stop(step: int, _total: int) -> None:
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        api.train(
            planted_data,
            tmp_path / "halved",
            settings=settings,
            callback=function_callback(on_step=stop),
        )
    api.train(planted_data, tmp_path / "halved", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "halved")
    assert weights(tmp_path / "whole")[0] != weights(plain)[0]
    assert weights(tmp_path / "whole")[1] != weights(plain)[1]


def test_averaged_weights_are_scored_and_saved(
    planted_data: Path, plain: Path, tmp_path: Path
) -> None:
    run = api.train(
        planted_data,
        tmp_path / "run",
        settings={**QUICK, "train.ema_decay": 0.9, "train.calibrate": False},
    )
    ours, theirs = log(run), log(plain)
    assert [r["loss"] for r in ours if "loss" in r] == [r["loss"] for r in theirs if "loss" in r]
    valid = [[r["valid_loss"] for r in records if "valid_loss" in r] for records in (ours, theirs)]
    assert valid[0][-1] != valid[1][-1]
    tasks = api.evaluate(run, planted_data, split="valid", importance_impressions=0)["tasks"]
    assert tasks["click"]["logloss"] + tasks["order"]["logloss"] == pytest.approx(
        valid[0][-1], abs=1e-5
    )


def test_table_weight_decay_shrinks_the_rows_of_a_step_alone() -> None:
    """Rate .1, decay 2: a looked-up row loses a fifth beside the optimiser's move; the others
    rest.
    """
    import torch

    from hemix.nn.embedding import EmbeddingTables, LookUp
    from hemix.training.table_optimizers import build_table_optimizer

    moved = []
    for decay in (0.0, 2.0):
        tables = EmbeddingTables({"a": 3}, 2).train()
        with torch.no_grad():
            tables.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        optimizer = build_table_optimizer("adam", tables)
        optimizer.weight_decay = decay
        (vectors,) = tables.look_up([LookUp(tables=("a",), ids=torch.tensor([[1]]))])
        vectors.square().sum().backward()
        optimizer.step(0.1)
        moved.append(tables.weight.detach().clone())
    torch.testing.assert_close(
        moved[0] - moved[1], torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    )
