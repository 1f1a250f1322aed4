"""hemix train --init-from on a later day: rows follow their values, and the day is scored before
it is trained on.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hemix import api
from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.data.sampler import SequentialSampler
from hemix.errors import RunError, UsageError
from hemix.models import build_model
from hemix.runs.folder import Run
from hemix.training.callbacks import function_callback
from hemix.training.warm_start import remap_embedding_rows
from tests.planted import SCHEMA, SMALL_MODEL, write_logs
from tests.refusals import raises

SETTINGS = {
    **SMALL_MODEL,
    "train.batch_size": 128,
    "train.threads": 1,
    "train.checkpoint_every_steps": 0,
}
LATER = SCHEMA.replace(
    "split: {valid: 2026-01-08, test: 2026-01-09}",
    "split: {start: 2026-01-09, valid: 2026-01-10, test: 2026-01-11}",
)


@pytest.fixture(scope="module")
def run(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(planted_data, tmp_path_factory.mktemp("before") / "run", settings=SETTINGS)


@pytest.fixture(scope="module")
def later(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next days, with 30 users that the run does not know."""
    folder = tmp_path_factory.mktemp("later")
    write_logs(folder / "logs", users=90, days=7, seed=5, schema=LATER)
    api.prepare(folder / "logs", folder / "data", init_from=run)
    return folder / "data"


def test_rows_follow_their_values_and_new_values_begin_as_unknown_ones(
    run: Path, later: Path
) -> None:
    before, data = Run.load(run), Dataset(later)
    state = remap_embedding_rows(before, data, before.settings)
    model = build_model(data.spec, before.settings.model, 0)
    model.load_state_dict(state)
    old, new = before.model.tables.by_name(), model.tables.by_name()
    encoders = [Encoders.load(folder / "encoders") for folder in (run, later)]
    maps = [e.vocabularies["user.user_id"] for e in encoders]
    known, all_users = (dict(zip(m.keys.tolist(), m.numbers.tolist(), strict=True)) for m in maps)
    assert len(all_users) > len(known)
    for key, row in all_users.items():
        assert torch.equal(new["user.user_id"][row], old["user.user_id"][known.get(key, 0)])
    for table in ("user.age", "context.hour"):
        assert torch.equal(new[table], old[table])
    dense = {
        name: tensor
        for name, tensor in before.model.state_dict().items()
        if name != "tables.weight"
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.items())


def test_the_new_rows_are_scored_before_they_are_trained_on(
    run: Path, later: Path, tmp_path: Path
) -> None:
    out = api.train(later, tmp_path / "run", settings=SETTINGS, init_from=run)
    metrics = json.loads((out / "metrics.json").read_text())["progressive"]["click"]
    before, data = Run.load(run), Dataset(later)
    model = build_model(data.spec, before.settings.model, 0)
    model.load_state_dict(remap_embedding_rows(before, data, before.settings))
    model.eval()
    split = data.split("train")
    predictions = [
        (model.predict(batch)["click"], batch.labels[:, 0])
        for batch in split.batches(SequentialSampler(split, 1000))
    ]  # type: ignore[index]
    scores, labels = (
        torch.cat(column).double().numpy() for column in zip(*predictions, strict=True)
    )
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = np.sign(positive[:, None] - negative[None, :])
    assert metrics["rows"] == len(labels)
    assert metrics["auc"] == pytest.approx(float((pairs.mean() + 1) / 2), abs=1e-6)
    assert metrics["logloss"] == pytest.approx(
        float(-np.log(np.where(labels == 1, scores, 1 - scores)).mean()), abs=1e-6
    )
    assert metrics["pcoc"] == pytest.approx(float(scores.mean() / labels.mean()), abs=1e-6)
    assert (
        json.loads((out / "log.jsonl").read_text().splitlines()[0])["progressive"]["click"]
        == metrics
    )
    assert "progressive" not in json.loads((run / "metrics.json").read_text())


def test_a_resumed_run_keeps_what_was_scored_before(run: Path, later: Path, tmp_path: Path) -> None:
    from hemix.errors import Interrupted

    def stop(step: int, _total: int) -> None:
        if step == 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        api.train(
            later,
            tmp_path / "run",
            settings=SETTINGS,
            init_from=run,
            callback=function_callback(on_step=stop),
        )
    api.train(later, tmp_path / "run", resume=True)
    whole = api.train(later, tmp_path / "whole", settings=SETTINGS, init_from=run)
    ours, theirs = (
        json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "run", whole)
    )
    assert ours["progressive"] == theirs["progressive"]
    assert (tmp_path / "run" / "tables.safetensors").read_bytes() == (
        whole / "tables.safetensors"
    ).read_bytes()


def begun(data: Path, out: Path, **start: Path) -> Path:
    """A run that ended, without a word, before its first checkpoint."""

    def end(step: int, _total: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train(data, out, settings=SETTINGS, callback=function_callback(on_step=end), **start)
    assert not (out / "checkpoints").exists()
    return out


def test_a_run_without_a_checkpoint_still_knows_its_first_weights(
    run: Path, later: Path, tmp_path: Path
) -> None:
    whole = api.train(later, tmp_path / "whole", settings=SETTINGS, init_from=run)
    api.train(later, begun(later, tmp_path / "run", init_from=run), resume=True)
    for file in ("dense.safetensors", "tables.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (whole / file).read_bytes()
    ours, theirs = (
        json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "run", whole)
    )
    assert ours["progressive"] == theirs["progressive"]


def test_first_weights_that_are_gone_or_others_are_refused(
    run: Path, later: Path, planted_data: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(run, tmp_path / "source"))
    out = begun(later, tmp_path / "run", init_from=source)
    other = api.train(planted_data, tmp_path / "other", settings={**SETTINGS, "train.seed": 1})
    with raises(UsageError, other, source, field="--init-from"):
        api.train(later, out, resume=True, init_from=other)
    shutil.rmtree(source)
    with raises(RunError, source, out, code="missing_run", field="--init-from"):
        api.train(later, out, resume=True)
    other.rename(source)
    with raises(RunError, source, out, code="other_data"):
        api.train(later, out, resume=True)
    own = begun(later, tmp_path / "own")
    with raises(UsageError, own, field="--init-from"):
        api.train(later, own, resume=True, init_from=run)
    assert api.train(later, out, resume=True, init_from=run) == out, (
        "the same weights, now elsewhere"
    )


def test_buckets_that_were_learned_anew_are_refused(run: Path, tmp_path: Path) -> None:
    write_logs(tmp_path / "logs", users=90, days=7, seed=5, schema=LATER)
    api.prepare(tmp_path / "logs", tmp_path / "data")
    with raises(RunError, "user.age", field="--init-from"):
        api.train(tmp_path / "data", tmp_path / "run", settings=SETTINGS, init_from=run)
    assert not (tmp_path / "run").exists()


def test_another_schema_or_model_is_refused(run: Path, later: Path, tmp_path: Path) -> None:
    write_logs(
        tmp_path / "logs",
        schema=SCHEMA.replace(
            "age: {type: numeric, buckets: 4}", "age: {type: numeric, buckets: 3}"
        ),
    )
    api.prepare(tmp_path / "logs", tmp_path / "data")
    with raises(RunError, "features.user.age.buckets: 4 against 3", code="other_schema"):
        api.train(tmp_path / "data", tmp_path / "run", settings=SETTINGS, init_from=run)
    with raises(UsageError, "layers: 2 against", "settings.yaml", field="--init-from"):
        api.train(later, tmp_path / "run", settings={**SETTINGS, "model.layers": 2}, init_from=run)
