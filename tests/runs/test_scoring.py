"""Scoring: changes of batches, the position of serving, and independence of the batch size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.dataset import Dataset
from hemix.data.sampler import RequestSampler, SequentialSampler, TimeSampler
from hemix.data.spec import InputSpec
from hemix.data.split import HistoryPart, Split
from hemix.runs import Run
from hemix.runs.scoring import ScoredBatch, permute_feature, score_split
from hemix.schema import Schema
from tests.data.test_dataset import leaves
from tests.rich import SCHEMA

FEATURES = [(level, name) for level, name, _ in Schema.parse(SCHEMA).features]
FIELD = {"user": "users", "item": "items", "context": "context", "cross": "cross"}


@pytest.fixture(scope="module")
def run(rich_run: Path) -> Run:
    return Run.load(rich_run)


@pytest.fixture(scope="module")
def test(rich_data: Path) -> Split:
    return Dataset(rich_data).split("test")


@pytest.fixture(scope="module")
def batch(test: Split) -> RequestBatch:
    return test.batch(np.arange(test.requests))


def columns_of(spec: InputSpec, level: str, name: str) -> tuple[list[int], list[int], list[int]]:
    """Positions of a feature's id, number and jagged columns, read off the documented names."""
    of = getattr(spec, level)
    numbers = [i for i, n in enumerate(of.number_names) if n == name or n.startswith(name + ".")]
    return (
        [i for i, n in enumerate(of.names) if n == name],
        numbers,
        [i for i, n in enumerate(of.jagged_names) if n == name],
    )


def rows_of(batch: RequestBatch, spec: InputSpec, level: str, name: str) -> list[tuple[float, ...]]:
    """The feature's value in every row of its level: its numbers together, or a list."""
    columns = getattr(batch, FIELD[level])
    ids, numbers, jagged = columns_of(spec, level, name)
    assert len(ids) + bool(numbers) + len(jagged) == 1
    if jagged:
        values_of = columns.jagged[jagged[0]]
        return [
            tuple(v.tolist()) for v in torch.tensor_split(values_of.values, values_of.offsets[1:-1])
        ]
    values: Tensor = columns.ids[:, ids] if ids else columns.numbers[:, numbers]
    return [tuple(row) for row in values.tolist()]


def others(batch: RequestBatch, spec: InputSpec, level: str, name: str) -> dict[str, Tensor]:
    """All tensors of a batch without the feature's own columns."""
    ids, numbers, jagged = columns_of(spec, level, name)
    tensors = dict(leaves(batch))
    of = f".{FIELD[level]}"
    for key, own in ((f"{of}.ids", ids), (f"{of}.numbers", numbers)):
        tensor = tensors[key]
        tensors[key] = tensor[:, [i for i in range(tensor.shape[1]) if i not in own]]
    for column in jagged:
        del tensors[f"{of}.jagged.{column}.values"], tensors[f"{of}.jagged.{column}.offsets"]
    return tensors


@pytest.mark.parametrize(("level", "name"), FEATURES, ids=[".".join(f) for f in FEATURES])
def test_permuting_a_feature_changes_its_columns_alone(
    run: Run, batch: RequestBatch, level: str, name: str
) -> None:
    changed = permute_feature(run, level, name, 0)(batch, 0)
    before, after = rows_of(batch, run.spec, level, name), rows_of(changed, run.spec, level, name)
    assert sorted(before) == sorted(after), (
        "a permutation of whole values: numbers and their missing flag stay together"
    )
    assert before != after
    ours, theirs = others(batch, run.spec, level, name), others(changed, run.spec, level, name)
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[key]), key
    changed.validate(run.spec)


def test_a_permutation_depends_on_seed_and_batch(run: Run, batch: RequestBatch) -> None:
    def cross(seed: int, number: int) -> list[tuple[float, ...]]:
        return rows_of(
            permute_feature(run, "cross", "pair", seed)(batch, number), run.spec, "cross", "pair"
        )

    assert cross(0, 0) == cross(0, 0)
    assert cross(0, 0) != cross(1, 0)
    assert cross(0, 0) != cross(0, 1)


def test_features_move_independently_of_each_other_but_by_the_same_rows(
    run: Run, batch: RequestBatch
) -> None:
    """The rows of one permutation are those of ``default_rng([seed, number])``: worked out
    apart.
    """
    order = np.random.default_rng([5, 2]).permutation(batch.candidates_count)
    before = rows_of(batch, run.spec, "cross", "lift")
    assert rows_of(
        permute_feature(run, "cross", "lift", 5)(batch, 2), run.spec, "cross", "lift"
    ) == [before[i] for i in order]


@pytest.mark.parametrize("part", ["global", "realtime"])
def test_a_part_of_the_history_is_hidden_with_its_counts(
    run: Run, test: Split, batch: RequestBatch, part: HistoryPart
) -> None:
    hidden = test.batch(np.arange(test.requests), hidden=part)
    lengths, expected = (b.history_ranges.diff(dim=1) for b in (hidden, batch))
    assert (expected > 0).any(0).all()
    column = 0 if part == "global" else 1
    assert not lengths[:, column].any()
    assert torch.equal(lengths[:, 1 - column], expected[:, 1 - column])
    for q in range(batch.requests_count):
        times = [
            b.event_time_ms[b.history_ranges[q, 1 - column] : b.history_ranges[q, 2 - column]]
            for b in (hidden, batch)
        ]
        assert torch.equal(*times)
    assert torch.equal(hidden.labels, batch.labels) and torch.equal(
        hidden.impression_index, batch.impression_index
    )

    context, names = run.spec.context.number_names, run.spec.cross.number_names
    prefix = "history.before" if part == "global" else "history.today"
    gone = [i for i, name in enumerate(context) if name.startswith(prefix)]
    unchanged = [
        i for i, n in enumerate(context) if i not in gone and not n.startswith("match_totals")
    ]
    assert len(gone) == 4 and (batch.context.numbers[:, gone] > 0).any()
    assert not hidden.context.numbers[:, gone].any()
    assert torch.equal(hidden.context.numbers[:, unchanged], batch.context.numbers[:, unchanged])

    def counts(of: RequestBatch, window: str) -> torch.Tensor:
        at = [i for i, n in enumerate(names) if n.startswith("match_c") and n.endswith(window)]
        return of.cross.numbers[:, at].double().expm1().round()

    at = [i for i, n in enumerate(context) if n.startswith("match_t") and n.endswith(".all")]
    totals = hidden.context.numbers[:, at].double().expm1().round().sum(1)
    assert torch.equal(totals, lengths.sum(1).double())

    realtime = counts(batch, ".realtime")
    assert realtime.any() and (counts(batch, ".all") - realtime).any()
    left = realtime if part == "global" else counts(batch, ".all") - realtime
    assert torch.equal(counts(hidden, ".all"), left)
    assert torch.equal(counts(hidden, ".realtime"), realtime * (part == "global"))


def scores(scored: list[ScoredBatch]) -> dict[str, np.ndarray]:
    """Outputs in the order of the split's rows."""
    rows = np.concatenate([s.impression_index for s in scored])
    assert sorted(rows.tolist()) == list(range(len(rows)))
    order = np.argsort(rows)
    tensors = {
        name: np.concatenate([s.outputs[name] for s in scored])[order] for name in scored[0].outputs
    }
    lengths = {
        k: np.concatenate([getattr(s, k) for s in scored])[order]
        for k in ("global_length", "realtime_length")
    }
    return tensors | lengths


def test_the_batch_size_does_not_change_scores(run: Run, test: Split) -> None:
    whole = scores(list(score_split(run, test)))
    assert set(whole) == {"click", "order", "order_given_click", "global_length", "realtime_length"}
    samplers = (
        SequentialSampler(test, 1),
        RequestSampler(test, batch_size=7, seed=1),
        TimeSampler(test, batch_size=30),
    )
    for sampler in samplers:
        parts = scores(list(score_split(run, test, sampler=sampler)))
        for name, values in whole.items():
            np.testing.assert_allclose(parts[name], values, rtol=1e-5)


def test_scores_are_those_of_the_model(run: Run, test: Split, batch: RequestBatch) -> None:
    whole = scores(list(score_split(run, test)))
    logits = run.model.eval()(batch).detach().double().numpy()
    click = 1 / (
        1 + np.exp(-(logits[:, 0] + np.log(0.25)))
    )  # of the negatives the log kept a quarter
    given = 1 / (1 + np.exp(-logits[:, 1]))
    np.testing.assert_allclose(whole["click"], click, rtol=1e-5)
    np.testing.assert_allclose(whole["order_given_click"], given, rtol=1e-5)
    np.testing.assert_allclose(whole["order"], click * given, rtol=1e-5)
    history_ranges = batch.history_ranges[batch.request_index].numpy()
    assert whole["global_length"].tolist() == (history_ranges[:, 1] - history_ranges[:, 0]).tolist()
    assert (
        whole["realtime_length"].tolist() == (history_ranges[:, 2] - history_ranges[:, 1]).tolist()
    )
    assert whole["global_length"].max() <= 6 and whole["realtime_length"].max() == 3


def test_serving_scores_every_impression_at_one_position(
    run: Run, test: Split, batch: RequestBatch
) -> None:
    logged, serving = (
        scores(list(score_split(run, test, position=position)))
        for position in ("logged", "serving")
    )  # type: ignore[arg-type]
    first = batch.bias.numpy() == 0
    assert 0 < first.sum() < len(first)
    np.testing.assert_allclose(serving["click"][first], logged["click"][first], rtol=1e-6)
    assert (serving["click"][~first] != logged["click"][~first]).all()
    expected = run.model.predict(dataclasses.replace(batch, bias=torch.zeros_like(batch.bias)))[
        "click"
    ]
    np.testing.assert_allclose(serving["click"], expected.double().numpy(), rtol=1e-5)


def test_serving_uses_the_position_of_the_schema(
    run: Run, test: Split, batch: RequestBatch
) -> None:
    bias = run.schema.roles.bias
    assert bias is not None

    def at(serve_as: int, most: int) -> np.ndarray:
        changed = bias.model_copy(update={"serve_as": serve_as, "max": most})
        schema = run.schema.model_copy(
            update={"roles": run.schema.roles.model_copy(update={"bias": changed})}
        )
        return scores(
            list(score_split(dataclasses.replace(run, schema=schema), test, position="serving"))
        )["click"]

    expected = (
        run.model.predict(dataclasses.replace(batch, bias=torch.full_like(batch.bias, 2)))["click"]
        .double()
        .numpy()
    )
    np.testing.assert_allclose(at(2, 5), expected, rtol=1e-5)
    np.testing.assert_allclose(at(9, 2), expected, rtol=1e-5)


def test_progress_ends_at_all_impressions(run: Run, test: Split) -> None:
    progress: list[int] = []
    list(score_split(run, test, sampler=SequentialSampler(test, 30), on_progress=progress.append))
    assert progress == sorted(progress) and progress[-1] == test.impressions and len(progress) > 1
