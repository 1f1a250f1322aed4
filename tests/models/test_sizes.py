"""Dense parameters of the named sizes for the simulated city, as in docs/reference/model.md."""

from __future__ import annotations

from pathlib import Path

import pytest

import hemix.lab.simulator
from hemix.data.levels import level_spec
from hemix.data.spec import InputSpec, Task
from hemix.features.base import LEVELS
from hemix.features.match_counts import fit_windows
from hemix.lab.simulator.generate import ACTIONS
from hemix.models import build_model, count_parameters
from hemix.schema import Schema
from hemix.settings import build_settings
from tests.batches import make_spec


def city_spec() -> InputSpec:
    """The city's columns and actions, all tables with 100 rows: dense parameters do not depend on
    the rows of tables.
    """
    text = (Path(hemix.lab.simulator.__file__).parent / "schema.yaml").read_text(encoding="utf-8")
    schema = Schema.parse(
        text.replace("VALID_DATE", "2026-01-01").replace("TEST_DATE", "2026-01-02")
    )
    windows = fit_windows(98 * 86_400_000)
    levels = {
        level: level_spec(schema, level, ACTIONS, ACTIONS, windows) for level in (*LEVELS, "event")
    }
    assert schema.roles.bias is not None
    tables = dict.fromkeys(
        [t for level in levels.values() for t in level.tables + level.jagged_tables], 100
    )
    return InputSpec(
        tables=tables,
        **levels,
        event_item_columns=tuple(
            levels["item"].names.index(name) for name in schema.event_item_features
        ),
        bias_rows=schema.roles.bias.max + 1,
        tasks=tuple(
            Task(name=n, given=schema.tasks.index(v.given) if v.given else None)
            for n, v in schema.labels.items()
        ),
        logit_shift=(0.0,) * len(schema.tasks),
    )


@pytest.mark.parametrize(
    ("size", "dense"),
    [("tiny", 681_164), ("base", 3_813_740), ("small", 103_675_436), ("large", 1_558_910_764)],
)
def test_dense_parameters_of_the_named_sizes(size: str, dense: int) -> None:
    assert count_parameters(city_spec(), build_settings(size=size).model)[0] == dense


def test_counts_are_those_of_the_model() -> None:
    spec, settings = make_spec(), build_settings(size="tiny").model
    model = build_model(spec, settings, 0)
    dense, embedding = count_parameters(spec, settings)
    assert embedding == sum(spec.tables.values()) * settings.embedding_size
    assert dense + embedding == sum(value.numel() for value in model.state_dict().values())
