"""What the columns of a user's logs mean.

A schema is one YAML file beside the logs. It names the tables, says which column is the user, the
item and the clock, which columns are features and how each becomes ids or numbers, what a history
is made of, what the labels are and how the log is split. It is frozen and validated; its
fingerprint goes into every dataset, run and checkpoint.

This module knows nothing of files other than its own YAML, and nothing of tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from posixpath import normpath
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hemix.errors import SchemaError
from hemix.expression import Expression
from hemix.features import Categorical
from hemix.features.base import LEVELS, MAX_TABLE_ROWS, FeatureType, SchemaSection
from hemix.features.history_counts import HISTORY_COUNTS
from hemix.features.registry import parse_feature, registered_features
from hemix.features.statistics import Statistic
from hemix.moments import DurationMs, WindowMs, duration_ms, moment_ms
from hemix.validation import first_difference, first_problem
from hemix.yaml_files import parse_yaml, read_utf8

__all__ = [
    "LEVELS",
    "Clock",
    "History",
    "Label",
    "Schema",
    "Split",
    "Tables",
    "duration_ms",
    "first_difference",
]

Feature = Annotated[SerializeAsAny[FeatureType], BeforeValidator(parse_feature)]
"""A feature of any registered type."""

_MOST_EVENTS = 2**31 - 1
Boundary = int | float | str


class Clock(SchemaSection):
    """The column that says when an impression was shown or an event happened."""

    column: str = "time_ms"
    unit: Literal["s", "ms", "us", "ns"] = "ms"
    timezone: str = "UTC"
    """IANA name. It decides where a day begins and what the hour of day is."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                f"expected an IANA time zone such as Asia/Shanghai, got {value!r}"
            ) from error
        return value

    @property
    def per_second(self) -> int:
        """Units of the clock column in a second."""
        return {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[self.unit]

    @property
    def unit_ms(self) -> float:
        """Milliseconds in one unit of the clock column."""
        return {"s": 1000.0, "ms": 1.0, "us": 0.001, "ns": 1e-6}[self.unit]


class Tables(SchemaSection):
    """Where the logs lie, relative to the schema file: a Parquet file, or a folder of Parquet
    files.
    """

    impressions: str = "impressions.parquet"
    events: str | None = None
    items: str | None = None
    users: str | None = None
    truth: str | None = None
    """Known probabilities of a simulation, row by row with the impressions; only the evaluation
    reads it.
    """


class Features(SchemaSection):
    """The features of each level.

    User and item features are columns of the user and item tables (the id itself always is one);
    context and cross features are columns of the impression log.
    """

    user: dict[str, Feature] = {}
    context: dict[str, Feature] = {}
    item: dict[str, Feature] = {}
    cross: dict[str, Feature] = {}

    def level(self, name: str) -> Mapping[str, FeatureType]:
        """The features of one level, in their order."""
        features: Mapping[str, FeatureType] = getattr(self, name)
        return features

    def find(self, reference: str) -> FeatureType | None:
        """Return the feature of a reference ``level.name``; None where there is none."""
        level, _, name = reference.partition(".")
        return self.level(level).get(name) if level in LEVELS else None

    def __iter__(self) -> Iterator[tuple[str, str, FeatureType]]:  # type: ignore[override]
        """All features as (level, name, feature), in the order of the levels."""
        for level in LEVELS:
            for name, feature in self.level(level).items():
                yield level, name, feature


class History(SchemaSection):
    """What a behaviour history is made of.

    Events lie strictly before the request minus the delay.
    """

    source: Literal["events", "impressions"] | None = None
    """By default the events table where one is named, else the impressions themselves."""
    clock_column: str | None = None
    """The events table's clock column, by default the same as the impressions'.

    A null time makes an event timeless: always visible, before all others.
    """
    item_features: tuple[str, ...] | None = None
    """Item features that an event carries, looked up in the candidates' tables.

    By default all that are categorical (one value) or numeric in buckets.
    """
    action: Categorical | None = None
    """The column that says what the user did.

    Impressions as events take the name of their deepest known positive label, or ``impression``.
    """
    fields: dict[str, Feature] = {}
    """Further fields of an event: columns of the events table, or parts of its clock."""
    global_length: Annotated[int, Field(ge=1, le=_MOST_EVENTS)] = 1000
    realtime_length: Annotated[int, Field(ge=1, le=_MOST_EVENTS)] = 100
    realtime_window_ms: Annotated[WindowMs, Field(alias="realtime_window")] = "day"
    """``day``: since the local day began. Or a duration."""
    delay_ms: Annotated[DurationMs, Field(alias="delay")] = 0
    """How long an event takes to arrive in production: newer ones are hidden (in training; a server
    shows what it has).
    """
    counts: bool = False
    """How many events a request sees today and before, and how many of each action, as context
    numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Label(SchemaSection):
    """A 0/1 column of the impression log. Null means unknown and is masked."""

    column: str | None = None
    given: str | None = None
    """The label it depends on: ``order`` given ``click`` is trained over the entire space."""
    available_at: str | None = None
    """Column (same unit as the clock) that says when a positive became known."""
    maturity_ms: Annotated[DurationMs, Field(alias="maturity")] = 0
    """How long the label takes to be final: on a younger row it is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Bias(SchemaSection):
    """A column, usually the position, that explains clicks but is not known when ranking: logged
    value in training, ``serve_as`` when serving.
    """

    column: str
    serve_as: Annotated[int, Field(ge=0, le=MAX_TABLE_ROWS)] = 0
    max: Annotated[int, Field(ge=1, le=MAX_TABLE_ROWS)] = 100
    """Larger values count as this one."""


class Roles(SchemaSection):
    """Columns of the impression log with a part of their own."""

    request_id: str | None = None
    """Impressions of one request share it. Without it every impression is its own request."""
    weight: str | None = None
    bias: Bias | None = None
    negative_sampling_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the first label's negatives that the log kept; scores are brought back to the
    full log exactly.
    """


class Split(SchemaSection):
    """Rows with ``column`` < ``valid`` train, those below ``test`` are valid, the rest below
    ``end`` is test.

    On the clock column a boundary is a local date or time (``2026-01-15``, ``2026-01-15 06:00``) or
    a number in its unit; on any other column it compares with the column's own values.
    """

    column: str | None = None
    """By default the clock."""
    start: Boundary | None = None
    valid: Boundary
    test: Boundary
    end: Boundary | None = None

    @field_validator("start", "valid", "test", "end", mode="before")
    @classmethod
    def _dates_as_text(cls, value: object, info: ValidationInfo) -> object:
        lacking = value is None and info.field_name in ("valid", "test")
        if (
            lacking
            or isinstance(value, bool | list | dict)
            or (isinstance(value, float) and math.isnan(value))
        ):
            raise ValueError(f"expected a date, a time, a number or text, got {value!r}")
        return value.isoformat() if isinstance(value, date | datetime) else value

    @model_validator(mode="after")
    def _of_one_kind(self) -> Split:
        for (low_name, low), (high_name, high) in itertools.pairwise(self.marks.items()):
            if isinstance(low, str) != isinstance(high, str):
                raise ValueError(
                    f"{low_name} and {high_name} must be of one kind, got {low!r} and {high!r}"
                )
        return self

    @property
    def marks(self) -> dict[str, Boundary]:
        """The boundaries that are given, in their order."""
        return {
            k: v for k in ("start", "valid", "test", "end") if (v := getattr(self, k)) is not None
        }


class Schema(SchemaSection):
    """The whole meaning of a user's logs.

    Read it with :meth:`load`, make one in code with ``Schema(...)``.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    tables: Tables = Tables()
    user: str = "user_id"
    """The user column of every table that has users."""
    item: str = "item_id"
    clock: Clock = Clock()
    valid_from: str | None = None
    """Column of the item and user tables (same unit as the clock) from which a row holds; look-ups
    are as-of.
    """
    features: Features = Features()
    history: History = History()
    labels: Annotated[dict[str, Label], Field(min_length=1)]
    roles: Roles = Roles()
    score: str | None = None
    """An expression over outputs and numeric item columns, such as ``click * order_given_click^0.5
    * price``; by default the first label.
    """
    split: Split
    statistics: dict[str, Statistic] = {}
    """Rates and counts of strictly earlier days, two numbers each."""

    # -- checks ------------------------------------------------------------------------------------

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        self._check_features()
        self._check_labels()
        self._check_outcomes()
        self._check_history()
        self._check_statistics()
        self._check_split()
        if self.score is not None:
            Expression(self.score)
        return self

    def _check_features(self) -> None:
        for level, name, feature in self.features:
            key = f"features.{level}.{name}"
            if "." in name:
                raise ValueError(
                    f"{key}: a feature's name has no dot; say which column it is with column: "
                    f"{name}"
                )
            _check_level(key, level, f"a {level} feature", feature)
            if level in ("user", "item") and not feature.columns(name):
                raise ValueError(
                    f"{key}: a feature of the {level} table reads a column, {feature.type} none"
                )
            if level != "cross" and feature.inputs():
                raise ValueError(f"{key}: a feature computed from others is a cross feature")
            feature.check(key, self.features.find)
        for name, field in self.history.fields.items():
            _check_level(f"history.fields.{name}", "event", "a field of events", field)
        self._check_shared_tables()

    def _check_shared_tables(self) -> None:
        """Refuse features that share an embedding table and encode values otherwise."""
        features = [
            (f"features.{level}.{n}", f.table_of(level, n), f) for level, n, f in self.features
        ]
        features += [
            (f"history.{'action' if n == 'action' else f'fields.{n}'}", f.table_of("event", n), f)
            for n, f in self.event_fields.items()
        ]
        tables: dict[str, tuple[str, Any]] = {}
        for key, table, feature in features:
            settings = feature.table_settings()
            if settings is None:
                continue
            first, expected = tables.setdefault(table, (key, settings))
            if expected != settings:
                raise ValueError(
                    f"{key}: shares table {table!r} with {first}, but their encodings differ"
                )

    def _check_labels(self) -> None:
        seen: list[str] = []
        taken = {
            "score",
            "log_row",
            "time_ms",
            self.user,
            self.item,
            *self.outputs[len(self.labels) :],
        }
        for name, label in self.labels.items():
            if name in taken:
                raise ValueError(
                    f"labels.{name}: the name is taken by a column of the predictions; name the "
                    "label otherwise"
                )
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"labels.{name}: expected a name of letters, digits and _")
            if label.given is not None and label.given not in seen:
                raise ValueError(
                    f"labels.{name}.given: expected a label defined before it "
                    f"({', '.join(seen) or 'none'}), "
                    f"got {label.given!r}"
                )
            if self.roles.negative_sampling_rate is not None and seen and label.given is None:
                raise ValueError(
                    f"labels.{name}: with roles.negative_sampling_rate every further label needs "
                    "a given label, "
                    "because its rate cannot be recovered otherwise"
                )
            seen.append(name)

    def _check_outcomes(self) -> None:
        """Refuse features of columns that are not known when a candidate is ranked: the model would
        see its own answer.
        """
        outcomes = {
            label.column or name: f"the column of labels.{name}"
            for name, label in self.labels.items()
        }
        for name, label in self.labels.items():
            if label.available_at not in (
                None,
                self.clock.column,
            ):  # the time of the impression itself is known
                outcomes.setdefault(
                    str(label.available_at), f"the column of labels.{name}.available_at"
                )
        if self._is_impressions(self.tables.truth):
            outcomes |= {f"p_{name}": f"the truth of labels.{name}" for name in self.labels}
        bias = self.roles.bias
        if bias is not None and bias.column in outcomes:
            raise ValueError(
                f"roles.bias.column: {bias.column!r} is {outcomes[bias.column]}, which is not "
                "known when ranking"
            )
        ids = {"user": self.user, "item": self.item, "roles.request_id": self.roles.request_id}
        for where, column in ids.items():
            if column in outcomes:
                raise ValueError(
                    f"{where}: {column!r} is {outcomes[str(column)]}, which is not known when "
                    "ranking"
                )
        if self._is_impressions(self.tables.items):
            for column in self.score_expression.names:
                if column in outcomes and column not in self.outputs:
                    raise ValueError(
                        f"score: {column!r} is {outcomes[column]}, which is not known when ranking"
                    )
        of_impressions = self.history_source == "impressions" or self._is_impressions(
            self.tables.events
        )
        history = self.history.fields if of_impressions else {}
        for name, field in history.items():  # the position of an earlier impression is known
            self._refuse_outcome(f"history.fields.{name}", name, field, outcomes)
        if bias is not None:
            outcomes[bias.column] = "the column of roles.bias"
        tables = {"user": self.tables.users, "item": self.tables.items}
        for level, name, feature in self.features:
            if self._is_impressions(tables.get(level, self.tables.impressions)):
                self._refuse_outcome(f"features.{level}.{name}", name, feature, outcomes)

    def _is_impressions(self, table: str | None) -> bool:
        """Whether a table is the impression log itself, however its path is written."""
        return table is not None and normpath(table) == normpath(self.tables.impressions)

    @staticmethod
    def _refuse_outcome(
        where: str, name: str, feature: FeatureType, outcomes: Mapping[str, str]
    ) -> None:
        for column in feature.columns(name):
            if column in outcomes:
                raise ValueError(
                    f"{where}: column {column!r} is {outcomes[column]}, which is not known when "
                    "ranking; "
                    "leave the feature away"
                )

    def _check_history(self) -> None:
        if self.history.source == "events" and self.tables.events is None:
            raise ValueError("history.source: events needs tables.events")
        for name in self.history.item_features or ():
            feature = self.features.item.get(name)
            if feature is None:
                raise ValueError(f"history.item_features: no item feature {name!r}")
            if not feature.tensor_columns().ids:
                raise ValueError(
                    f"history.item_features: {name} must be a one-valued categorical or bucketed "
                    "numeric"
                )
        if self.history.action is not None and self.history.action.multi:
            raise ValueError("history.action: one value, not multi")
        for name, field in self.history.fields.items():
            if name == "action":
                raise ValueError(
                    "history.fields.action: the action has a key of its own, history.action"
                )
            if not field.tensor_columns().ids:
                raise ValueError(
                    f"history.fields.{name}: one-valued categorical, bucketed numeric or clock part"
                )

    def _check_statistics(self) -> None:
        if self.history.counts and HISTORY_COUNTS in self.features.context:
            raise ValueError(
                f"features.context.{HISTORY_COUNTS}: the name is taken by history.counts; name "
                "the feature otherwise"
            )
        for name, statistic in self.statistics.items():
            statistic.check(name, self.labels, self.features.find)

    def _check_split(self) -> None:
        """Boundaries ascend: dates and times as moments of the schema's zone, other text as
        text.
        """
        marks: dict[str, Any] = self.split.marks
        with contextlib.suppress(TypeError, ValueError):  # numbers, or text of another kind
            marks = {name: moment_ms(mark, self.clock.timezone) for name, mark in marks.items()}
        for low, high in itertools.pairwise(marks):
            if not marks[low] < marks[high]:
                named = f"{getattr(self.split, low)!r} and {getattr(self.split, high)!r}"
                raise ValueError(f"split: expected {low} < {high}, got {named}")

    # -- what the rest of the house asks -----------------------------------------------------------

    @property
    def history_source(self) -> Literal["events", "impressions"]:
        """Where events come from."""
        return self.history.source or ("events" if self.tables.events else "impressions")

    @property
    def event_item_features(self) -> tuple[str, ...]:
        """The item features that an event carries, in the order of the item features."""
        wanted = self.history.item_features
        return tuple(
            n
            for n, f in self.features.item.items()
            if f.tensor_columns().ids and (wanted is None or n in wanted)
        )

    @property
    def event_fields(self) -> dict[str, FeatureType]:
        """All fields of an event, the action first."""
        action = self.history.action or Categorical.model_validate({"vocabulary": {"min_count": 1}})
        return {"action": action, **self.history.fields}

    def statistic_level(self, name: str) -> Literal["context", "cross"]:
        """Whose numbers a statistic gives: ``context`` (once a request) where its key holds nothing
        of the item, else ``cross``.
        """
        return self.statistics[name].level

    def statistics_of(self, level: str) -> tuple[str, ...]:
        """The statistics that give numbers to a level, in their order."""
        return tuple(name for name in self.statistics if self.statistic_level(name) == level)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels, in order."""
        return tuple(self.labels)

    @property
    def score_expression(self) -> Expression:
        """What candidates are sorted by."""
        return Expression(self.score or self.tasks[0])

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a model says of a candidate: every task, and ``b_given_a`` for every task with
        ``given``.
        """
        return self.tasks + tuple(f"{n}_given_{v.given}" for n, v in self.labels.items() if v.given)

    def fingerprint(self, *, but: Collection[str] = ()) -> str:
        """16 hex digits that change with any meaning of any column (not with the schema's name or
        the files' places), or with any but the parts ``but``, such as ``split``.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"name", "tables", *but})
        content["history"]["source"] = self.history_source
        if not self.history.counts:
            del content["history"][
                "counts"
            ]  # so that schemas older than the key keep their fingerprint
        content["has"] = [
            part for part in ("events", "items", "users") if getattr(self.tables, part) is not None
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def meaning(self) -> str:
        """The fingerprint without the split: the same for models of the same columns that were
        trained on other days.
        """
        return self.fingerprint(but=("split",))

    def to_yaml(self) -> str:
        """The schema as YAML text that :meth:`parse` reads back."""
        content = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        history = content.get("history", {})
        for key in ("realtime_window_ms", "delay_ms"):
            if key in history:
                value = history.pop(key)
                history[key.removesuffix("_ms")] = f"{value}ms" if isinstance(value, int) else value
        for label in content["labels"].values():
            if "maturity_ms" in label:
                label["maturity"] = f"{label.pop('maturity_ms')}ms"
        for level, name, feature in self.features:
            content["features"][level][name] = {
                "type": feature.type,
                **content["features"][level][name],
            }
        for name, field in self.history.fields.items():
            history["fields"][name] = {"type": field.type, **history["fields"][name]}
        return yaml.safe_dump(
            {"schema_version": 1, **content}, sort_keys=False, allow_unicode=True, width=120
        )

    @classmethod
    def parse(cls, text: str, origin: str = "schema") -> Schema:
        """Read YAML text. Raises SchemaError naming ``origin`` and the key."""
        content = parse_yaml(text, origin, SchemaError)
        if content is None:
            raise SchemaError(
                f"{origin}: expected keys such as user, item, labels, split; it is empty"
            )
        if not isinstance(content, dict):
            raise SchemaError(
                f"{origin}: expected keys such as user, item, labels, split; got "
                f"{type(content).__name__}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise SchemaError(f"{origin}: {first_problem(error)}") from error

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Read a YAML file. Raises SchemaError naming the file and the key."""
        return cls.parse(read_utf8(path, SchemaError), str(path))


def _check_level(key: str, level: str, what: str, feature: FeatureType) -> None:
    if level not in feature.levels:
        names = ", ".join(
            name for name, kind in registered_features().items() if level in kind.levels
        )
        raise ValueError(f"{key}: {what} is one of {names}, got {feature.type}")
