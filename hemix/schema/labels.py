"""Labels: 0/1 columns of the impression log, and the rules for their names and dependencies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field

from hemix.features.base import SchemaSection
from hemix.moments import DurationMs
from hemix.validation import InvalidKey

if TYPE_CHECKING:
    from hemix.schema.schema import Schema

__all__ = ["Label", "check_labels"]


class Label(SchemaSection):
    """A 0/1 column of the impression log. Null means unknown and is masked."""

    column: str | None = None
    given: str | None = None
    """The label that it depends on, as in ESMM: ``order`` given ``click`` is trained over all
    impressions.
    """
    available_at: str | None = None
    """Column with the time at which a positive became known, in the clock's unit."""
    maturity_ms: Annotated[DurationMs, Field(alias="maturity")] = 0
    """Attribution window: the label of a younger row is unknown."""
    loss_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Factor of the label's loss in training."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def check_labels(schema: Schema) -> None:
    """Check names of labels and their ``given`` labels, and that predictions can repeat the row
    key; raise ValueError with the key.
    """
    conditional_outputs = schema.outputs[len(schema.labels) :]
    prediction_columns = {
        *("score", "log_row", "time_ms"),
        *(schema.user, schema.item),
        *conditional_outputs,
    }
    row_key = schema.roles.row_key
    if row_key in {*prediction_columns, *schema.labels}:
        raise InvalidKey(
            "roles.row_key",
            f"{row_key!r} is taken by a column of the predictions; name another column",
        )
    earlier: list[str] = []
    for name, label in schema.labels.items():
        if name in prediction_columns:
            raise InvalidKey(
                f"labels.{name}",
                "the name is taken by a column of the predictions; choose another name",
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InvalidKey(f"labels.{name}", "expected a name of letters, digits and _")
        if label.given is not None and label.given not in earlier:
            raise InvalidKey(
                f"labels.{name}.given",
                "expected a label defined before it "
                f"({', '.join(earlier) or 'none'}), got {label.given!r}",
            )
        if schema.roles.negative_sampling_rate is not None and earlier and label.given is None:
            raise InvalidKey(
                f"labels.{name}",
                "with roles.negative_sampling_rate every further label needs a "
                "given label, because its rate cannot be recovered otherwise",
            )
        earlier.append(name)
