"""The schema as a whole: its keys, its fingerprint, and its YAML text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from hemix.errors import SchemaError
from hemix.features import Categorical
from hemix.features.base import FeatureType, SchemaSection
from hemix.features.statistics import Statistic
from hemix.schema.columns import Clock, Features, Roles, Tables
from hemix.schema.consistency import check_features, check_history, check_statistics
from hemix.schema.expression import Expression
from hemix.schema.history import History
from hemix.schema.labels import Label, check_labels
from hemix.schema.outcomes import check_outcomes
from hemix.schema.split import Split, check_split
from hemix.validation import first_problem
from hemix.yaml_files import parse_yaml, read_utf8

__all__ = ["Schema"]


class Schema(SchemaSection):
    """The meaning of a user's logs.

    Read it from a file with :meth:`load`, or make it in code with ``Schema(...)``.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    tables: Tables = Tables()
    user: str = "user_id"
    """The user column of every table that has users."""
    item: str = "item_id"
    clock: Clock = Clock()
    valid_from: str | None = None
    """Column of the item and user tables with the time from which a row is valid, in the clock's
    unit. Look-ups are as of the impression's time.
    """
    features: Features = Features()
    history: History = History()
    labels: Annotated[dict[str, Label], Field(min_length=1)]
    roles: Roles = Roles()
    score: str | None = None
    """An expression over outputs and numeric item columns, such as ``click * order_given_click^0.5
    * price``. By default the first label.
    """
    split: Split
    statistics: dict[str, Statistic] = {}
    """Rates and counts of strictly earlier days, two numbers each."""

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        check_features(self)
        check_labels(self)
        check_outcomes(self)
        check_history(self)
        check_statistics(self)
        check_split(self.split, self.clock.timezone)
        if self.score is not None:
            Expression(self.score)
        return self

    @property
    def history_source(self) -> Literal["events", "impressions"]:
        """The table that events come from."""
        return self.history.source or ("events" if self.tables.events else "impressions")

    @property
    def event_item_features(self) -> tuple[str, ...]:
        """The item features that an event carries, in the order of the item features."""
        selected = self.history.item_features
        return tuple(
            n
            for n, f in self.features.item.items()
            if f.tensor_columns().ids and (selected is None or n in selected)
        )

    @property
    def match_columns(self) -> tuple[str, ...]:
        """The item features in which match counts compare events with candidates: those of one
        value, then the lists.
        """
        counts = self.history.match_counts
        if counts is None:
            return ()
        names = self.event_item_features if counts.columns is None else counts.columns
        return tuple(sorted(names, key=lambda n: self.features.item[n].tensor_columns().jagged))

    @property
    def event_fields(self) -> dict[str, FeatureType]:
        """All fields of an event, the action first."""
        action = self.history.action or Categorical.model_validate({"vocabulary": {"min_count": 1}})
        return {"action": action, **self.history.fields}

    def statistic_level(self, name: str) -> Literal["context", "cross"]:
        """Return the level that a statistic's numbers belong to.

        ``context`` (once a request) if its key holds nothing of the item, else ``cross``.
        """
        return self.statistics[name].level

    def statistics_of(self, level: str) -> tuple[str, ...]:
        """Return the statistics of a level, in the order of the schema."""
        return tuple(name for name in self.statistics if self.statistic_level(name) == level)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the schema."""
        return tuple(self.labels)

    @property
    def score_expression(self) -> Expression:
        """The expression that candidates are sorted by."""
        return Expression(self.score or self.tasks[0])

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The item columns of the score expression."""
        return tuple(name for name in self.score_expression.names if name not in self.outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """A model's outputs: every task, then ``b_given_a`` for every task with ``given``."""
        return self.tasks + tuple(f"{n}_given_{v.given}" for n, v in self.labels.items() if v.given)

    def fingerprint(self, *, exclude: Collection[str] = ()) -> str:
        """Return 16 hex digits that change with the meaning of any column.

        The schema's name, the paths of its tables and ``roles.row_key`` do not count.

        Args:
            exclude: Top-level keys that do not count either, such as ``split``.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"name", "tables", *exclude})
        content["history"]["source"] = self.history_source
        if not self.history.counts:
            # so that a fingerprint from before history.counts existed still matches; match_counts
            # has no such rule, because it is on by default and changes the columns
            del content["history"]["counts"]
        for label in content["labels"].values():
            del label["loss_weight"]  # it changes no column
        del content["roles"]["row_key"]  # no column of a model
        content["has"] = [
            table
            for table in ("events", "items", "users")
            if getattr(self.tables, table) is not None
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def columns_fingerprint(self) -> str:
        """Return the fingerprint without the split.

        It is the same for models of the same columns that were trained on different days.
        """
        return self.fingerprint(exclude=("split",))

    def to_yaml(self) -> str:
        """Return YAML text that :meth:`parse` reads back."""
        content = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        history = content.setdefault("history", {})
        if self.history.match_counts is None:
            history["match_counts"] = False
        elif "windows_ms" in history.get("match_counts", {}):
            windows = history["match_counts"].pop("windows_ms")
            history["match_counts"]["windows"] = [f"{value}ms" for value in windows]
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
        if not history:
            del content["history"]
        return yaml.safe_dump(
            {"schema_version": 1, **content}, sort_keys=False, allow_unicode=True, width=120
        )

    @classmethod
    def parse(cls, text: str, source: str = "schema") -> Schema:
        """Read YAML text.

        Args:
            text: The schema as YAML.
            source: The name of the text in messages, usually its file.

        Raises:
            SchemaError: With ``source``, the key, and what is wrong.
        """
        content = parse_yaml(text, source, SchemaError)
        if not isinstance(content, dict):
            value = "it is empty" if content is None else f"got {type(content).__name__}"
            raise SchemaError(
                f"{source}: expected keys such as user, item, labels, split; {value}",
                code="missing_key",
                field=source,
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problem = first_problem(error)
            raise SchemaError(
                f"{source}: {problem}", code=problem.code, field=problem.field
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Read a YAML file; raise SchemaError with the file and the key."""
        return cls.parse(read_utf8(path, SchemaError), str(path))
